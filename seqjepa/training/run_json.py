"""run.json: what a run is and was trained on. Read as a stranger's: every type and range is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from seqjepa.checksums import warn_of_change
from seqjepa.data.actions import ACTIONS
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.data.fixations import Fixating
from shards.environment import pass_environment_on
from shards.errors import ConfigError, FormatError

RUN = "run.json"
MOST_PIXELS = 4096
"""A side of views or images: as DataConfig.image_size has it."""


class DataInfo(NamedTuple):
    """What the model was trained on: kept in run.json, needed to feed it again.

    action         a kind in seqjepa.data.actions.ACTIONS;  action_size A
    mean, std      per channel, for pixels in [0, 1]
    height, width  of the views, in pixels: of the patches where those are cut at fixations
    kind           of the shards: "views", "saliency" or "image"
    split          that was trained on
    fixating       fields of seqjepa.data.fixations.Fixating ("patch", "inhibition" …); empty for whole views
    image_height, image_width  of the images that patches are cut from or that are augmented, in pixels; 0 for views
    augment        name of the augmentation recipe, "none" without

    Runs of earlier versions lack the fields that have defaults; all of them are of whole stored views.
    """

    action: str
    action_size: int
    mean: Sequence[float]
    std: Sequence[float]
    height: int
    width: int
    kind: str = "views"
    split: str = "train"
    fixating: Mapping[str, Any] = {}
    image_height: int = 0
    image_width: int = 0
    augment: str = "none"

    @property
    def patch(self) -> int:
        """Pixels a side of the patches at fixations; 0: whole views."""
        return self.fixating.get("patch", 0)


_DATA: TypeAdapter[DataInfo] = TypeAdapter(DataInfo)


def read_run_json(run: Path) -> dict[str, Any]:
    """run.json of a run directory; a warning where it was changed. FormatError: there is none, or it is not ours."""
    path = run / RUN
    warn_of_change(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        pass_environment_on(error)
        raise FormatError(f"{run} is not a run directory (no readable {RUN}); `seqjepa train` makes them") from None
    if not isinstance(info, dict) or info.get("kind") != "seqjepa-run":
        raise FormatError(f"{path} was not written by `seqjepa train`")
    if info.get("format") != 1:
        raise FormatError(f"{run} has format {info.get('format')!r:.40}, this version reads 1: update seqjepa")
    for problem in _misfits(info):
        raise FormatError(f"{path} was not written by `seqjepa train`: {problem}")
    return info


def _misfits(info: Mapping[str, Any]) -> Iterator[str]:
    """Ends of the sentence "run.json was not written by `seqjepa train`: …"."""
    shards = info.get("shards", {})
    if not isinstance(shards, dict) or not all(isinstance(value, str) for value in shards.values()):
        yield "its shards are no object" if not isinstance(shards, dict) else "its shards are not all strings"
    for key in ("name", "fidelity"):
        if not isinstance(info.get(key, ""), str):
            yield f"its {key} is no string"
    if not isinstance(info.get("versions", {}), dict):
        yield "its versions are no object"
    extended = info.get("extended", [])
    if not isinstance(extended, list) or not all(isinstance(note, dict) for note in extended):
        yield "its extended is no list of objects"
    finished = info.get("finished_epochs", 0)
    if isinstance(finished, bool) or not isinstance(finished, int) or finished < 0:
        yield f"its finished_epochs is {finished!r:.40}"


def data_info(info: Mapping[str, Any], path: Path) -> DataInfo:
    """What run.json, read from `path`, says of the data. FormatError: it does not, or nothing can be fed like that."""
    try:
        data = _DATA.validate_python(info["data"], strict=True)
    except KeyError:
        raise FormatError(f"{path} does not say what the run was trained on ('data')") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "data"
        raise FormatError(f"{path} does not say what the run was trained on ({where}: {first['msg']})") from None
    for problem in _impossible(data):
        raise FormatError(f"{path} does not say what the run was trained on ({problem})")
    return data


def _impossible(data: DataInfo) -> Iterator[str]:
    if ACTIONS.get(data.action) != data.action_size:
        yield f"an action {data.action!r:.40} of {data.action_size} numbers"
    if not len(data.mean) == len(data.std) == 3 or not all(map(math.isfinite, (*data.mean, *data.std))):
        yield "mean and std are not three numbers each"
    if any(value <= 0 for value in data.std):
        yield "std is not above 0"
    sides = (data.height, data.width)
    whole = (data.image_height, data.image_width)
    if not all(1 <= side <= MOST_PIXELS for side in sides) or not all(0 <= side <= MOST_PIXELS for side in whole):
        yield f"views of {data.height}×{data.width} in images of {data.image_height}×{data.image_width}"
    if data.kind not in ("views", "saliency", "image"):
        yield f"shards of kind {data.kind!r:.40}"
    if data.augment not in RECIPES:
        yield f"augmentations {data.augment!r:.40}"
    try:
        Fixating(**data.fixating)
    except (ConfigError, TypeError) as error:
        yield f"fixating: {error}"
