"""The run directory: claim it, recognise the run in it, refuse everything else; run.json says what the run is.

run.json is read as a stranger's: every type and range is checked. Files: run_files.py.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from seqjepa import recipes
from seqjepa.config import RunConfig
from seqjepa.data.actions import DECLARED, PRESETS
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.data.fixations import Fixating
from seqjepa.files import TEMPORARY, warn_of_change, write_file, write_with_checksum
from seqjepa.recipes import read_config
from seqjepa.training.run_files import CONFIG, LOCK, OURS, PREVIOUS, RUN, STATE, WEIGHTS, has_state, remove_ours
from shards.errors import ConfigError, FormatError, UsageError, few
from shards.machine.environment import pass_environment_on
from shards.machine.lock import FolderLock

VERSIONS = ("seqjepa", "torch", "torchvision", "numpy")
MOST_PIXELS = 4096
"""A side of views or images: as DataConfig.image_size has it."""


class DataInfo(NamedTuple):
    """What the model was trained on: kept in run.json, needed to feed it again.

    action         a name in seqjepa.data.actions.PRESETS, or "declared": the terms are in the config;  action_size A
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
    mean: Annotated[Sequence[FiniteFloat], Field(min_length=3, max_length=3)]
    std: Annotated[Sequence[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=3, max_length=3)]
    height: Annotated[int, Field(ge=1, le=MOST_PIXELS)]
    width: Annotated[int, Field(ge=1, le=MOST_PIXELS)]
    kind: Annotated[str, Field(pattern="^(views|saliency|image)$")] = "views"
    split: str = "train"
    fixating: Mapping[str, Any] = {}
    image_height: Annotated[int, Field(ge=0, le=MOST_PIXELS)] = 0
    image_width: Annotated[int, Field(ge=0, le=MOST_PIXELS)] = 0
    augment: str = "none"

    @property
    def patch(self) -> int:
        """Pixels a side of the patches at fixations; 0: whole views."""
        return self.fixating.get("patch", 0)


class _Noted(BaseModel, strict=True):
    """What else run.json says that is read again."""

    shards: dict[str, str] = {}
    name: str = ""
    fidelity: str = ""
    versions: dict[str, Any] = {}
    extended: list[dict[str, Any]] = []
    finished_epochs: int = Field(0, ge=0)


_DATA_INFO: TypeAdapter[DataInfo] = TypeAdapter(DataInfo)


def read_run_json(run: Path) -> dict[str, Any]:
    """run.json of a run directory; a warning where it was changed. FormatError: there is none, or it is not ours."""
    path = run / RUN
    warn_of_change(path)
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        pass_environment_on(error)
        within = [str(found.parent) for found in sorted(run.glob(f"*/{RUN}"))]
        hint = f"runs in it: {few(within)}" if within else "`seqjepa train` makes them"
        raise FormatError(f"{run} is not a run directory (no readable {RUN}); {hint}") from None
    if not isinstance(info, dict) or info.get("kind") != "seqjepa-run":
        raise FormatError(f"{path} was not written by `seqjepa train`")
    if not isinstance(info.get("format"), int):
        raise FormatError(f"{path} was not written by `seqjepa train`: it says no format")
    if info["format"] != 1:
        raise FormatError(f"{run} has format {info['format']}, this version reads 1: update seqjepa")
    try:
        _Noted.model_validate(info)
    except ValidationError as error:
        raise FormatError(f"{path} was not written by `seqjepa train`: its {_first_of(error)}") from None
    return info


def read_run_config(run: Path) -> RunConfig:
    """config.toml of a run directory; ConfigError where it cannot be read, a warning where it was changed."""
    warn_of_change(run / CONFIG)
    return read_config(run / CONFIG)


def data_info(info: Mapping[str, Any], path: Path) -> DataInfo:
    """What run.json, read from `path`, says of the data. FormatError: it does not, or nothing can be fed like that."""
    try:
        data = _DATA_INFO.validate_python(info["data"], strict=True)
    except KeyError:
        raise FormatError(f"{path} does not say what the run was trained on ('data')") from None
    except ValidationError as error:
        raise FormatError(f"{path} does not say what the run was trained on ({_first_of(error)})") from None
    for problem in _wrong_data_fields(data):
        raise FormatError(f"{path} does not say what the run was trained on ({problem})")
    return data


def _first_of(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'data'}: {first['msg']}"


def _wrong_data_fields(data: DataInfo) -> Iterator[str]:
    preset = PRESETS.get(data.action)
    fits = data.action == DECLARED and data.action_size > 0 if preset is None else preset.size == data.action_size
    if not fits:
        yield f"an action {data.action!r:.40} of {data.action_size} numbers"
    if data.augment not in RECIPES:
        yield f"augmentations {data.augment!r:.40}"
    try:
        Fixating(**data.fixating)
    except (ConfigError, TypeError) as error:
        yield f"fixating: {error}"


# May differ between the calls that make up one run: they change nothing that is learned or in metrics.jsonl. Runs of
# before noted no data.set, and those that normalise by their shards' own constants do not show it either.
FREE_KEYS = {
    "data.set",
    "train.checkpoint_minutes",
    "train.compile",
    "train.keep_epochs",
    "train.loggers",
    "train.picture_epochs",
    "train.pin_memory",
    "train.resident",
    "train.timeout_minutes",
}


@dataclass(frozen=True)
class RunPlan:
    """What is asked of a run directory: these settings on this training split."""

    config: RunConfig
    data: DataInfo
    shards: dict[str, str]  # "name" of the set and "train", the fingerprint of the split
    extend_epochs: int | None = None
    pretrained: Mapping[str, str] = field(default_factory=dict)  # models.pretrained.weights_note; empty: none, or gone


@contextmanager
def claimed(out: Path, plan: RunPlan, overwrite: bool = False) -> Iterator[None]:
    """Hold `out` for this process: made when missing, resumed when it holds the run of `plan`, else UsageError."""
    _check_fits(out, plan, overwrite)  # nothing is made where it does not
    with _locked(out):
        if _check_fits(out, plan, overwrite) and overwrite:  # another may have begun there while we waited
            remove_ours(out)
        _write_identity(out, plan)
        yield


def _check_fits(out: Path, plan: RunPlan, overwrite: bool) -> bool:
    """Whether there is a run of ours in `out`. UsageError: another one, or something else."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out needs a folder")
    ours = (out / RUN).exists()
    if not ours:
        _refuse_foreign(out, plan)
    elif not overwrite:
        check_same_run(out, plan)
    else:
        read_run_json(out)  # a run.json of someone else's is refused even so
    return ours


def mark_finished(out: Path, epochs: int) -> None:
    """Note in run.json that `epochs` epochs are finished."""
    info = read_run_json(out)
    if info.get("finished_epochs") != epochs:
        _write_json(out / RUN, {**info, "finished_epochs": epochs})


def mark_unfinished(out: Path, epochs: int) -> None:
    """Where run.json says that `epochs` are finished and they are not: the run has gone back to an earlier state."""
    info = read_run_json(out)
    if info.get("finished_epochs") == epochs:
        _write_json(out / RUN, {key: value for key, value in info.items() if key != "finished_epochs"})


def refuse_lost_state(out: Path) -> None:
    """UsageError where a run was trained and what it could go on from is gone: it would be begun again, and emptied."""
    if not (out / RUN).exists() or has_state(out):
        return
    finished = read_run_json(out).get("finished_epochs")
    if finished or (out / WEIGHTS).exists():
        what = f"is finished ({finished} epochs)" if finished else "was trained"
        raise UsageError(
            f"{out} {what}, but {STATE} is gone, so it cannot go on; restore that file, or `seqjepa train --overwrite` "
            "begins the run again and removes what is there"
        )


def _refuse_foreign(out: Path, plan: RunPlan) -> None:
    entries = sorted(p.name for p in out.iterdir() if not p.name.startswith(TEMPORARY)) if out.exists() else []
    if len(set(OURS) & set(entries)) > 1:
        raise UsageError(f"{out} holds a run whose {RUN} is gone; restore it, or choose another --out")
    if entries:
        raise UsageError(f"{out} holds {entries[0]!r} and is not a run directory; choose a new or empty --out")
    if plan.extend_epochs is not None:
        raise UsageError(f"--extend-epochs: there is no run in {out} to extend")


def check_same_run(out: Path, plan: RunPlan) -> None:
    """UsageError that names every key in which the run there differs from what is asked."""
    info = read_run_json(out)
    if not (out / CONFIG).exists():
        if trained := [name for name in (STATE, PREVIOUS, WEIGHTS) if (out / name).exists()]:
            raise FormatError(f"{out} has {trained[0]} but no {CONFIG}; restore it, or `seqjepa train --overwrite`")
        return  # killed between its first two files: nothing was trained
    there = run_identity(read_run_config(out), _shards_of(info, out)) | _weights(info.get("pretrained"))
    asked = run_identity(plan.config, plan.shards) | (_weights(plan.pretrained) or _weights(info.get("pretrained")))
    if plan.extend_epochs is not None:
        planned = there.pop("optim.epochs")
        if plan.extend_epochs < planned:
            raise UsageError(f"--extend-epochs {plan.extend_epochs}: {out} is planned to {planned} already")
    differ = [k for k in {**there, **asked} if k in there and there[k] != asked.get(k)]
    if differ:
        diff = ", ".join("{} {} there, {} asked".format(k, *_shortened(there[k], asked.get(k))) for k in differ)
        more = " (--extend-epochs changes the number of epochs)" if "optim.epochs" in differ else ""
        more += "" if has_state(out) or (out / WEIGHTS).exists() else "; nothing is saved of that run, so none is lost"
        raise UsageError(
            f"{out} holds another run: {diff}. Give the same settings, choose another --out, or `seqjepa train "
            f"--overwrite`{more}"
        )


def identity_of(run: Path) -> dict[str, Any]:
    """What is the same as long as a folder holds the same run, however long it is trained: settings and split."""
    found = run_identity(read_run_config(run), {"train": read_run_json(run).get("shards", {}).get("train", "")})
    return {key: value for key, value in found.items() if key != "optim.epochs"}


def _shards_of(info: Mapping[str, Any], out: Path) -> Mapping[str, str]:
    if "train" not in info.get("shards", {}):
        raise FormatError(f"{out / RUN} does not say which shards the run is of ('shards'); restore it")
    return info["shards"]


def run_identity(config: RunConfig, shards: Mapping[str, str]) -> dict[str, Any]:
    """By their names, flat, what one run has all along."""
    flat = recipes.flatten(config.model_dump()) | {"shards.train": shards["train"]}
    return {k: v for k, v in flat.items() if k not in FREE_KEYS}


def _weights(note: object) -> dict[str, Any]:
    """Of model.pretrained: whatever was noted but its name, which is in the configuration."""
    if not isinstance(note, Mapping):
        return {}
    return {f"model.pretrained's {key}": value for key, value in note.items() if key != "weights"}


def _shortened(*values: object) -> list[str]:
    """Each value, of long ones the place where they begin to differ."""
    texts = [str(value) for value in values]
    same = next((i for i, letters in enumerate(zip(*texts, strict=False)) if len(set(letters)) > 1), 0)
    start = max(0, same - 4)
    return [text if len(text) < 40 else f"{'…' * bool(start)}{text[start : start + 12]}…" for text in texts]


def _write_identity(out: Path, plan: RunPlan) -> None:
    """run.json first: it is what makes the folder ours. Extending rewrites both and notes it."""
    if (out / RUN).exists() and (out / CONFIG).exists():
        info = read_run_json(out)
        before = read_run_config(out)
        if before.optim.epochs == plan.config.optim.epochs:
            return
        note = {"from": before.optim.epochs, "to": plan.config.optim.epochs}
        extended = [e for e in info.get("extended", []) if e != note]
        _write_json(out / RUN, {**info, "extended": [*extended, note]})
    else:
        _write_json(out / RUN, _new_run_json(plan))
    write_with_checksum(out / CONFIG, recipes.to_toml(plan.config).encode())


def _new_run_json(plan: RunPlan) -> dict[str, Any]:
    return {
        "kind": "seqjepa-run",
        "format": 1,
        "name": plan.config.name,
        "fidelity": plan.config.fidelity,
        "data": plan.data._asdict(),
        "shards": plan.shards,
        "versions": {
            "python": platform.python_version(),
            **_versions(*VERSIONS, *(["timm"] if plan.config.model.backbone.startswith("timm:") else [])),
        },
        **({"pretrained": dict(plan.pretrained)} if plan.pretrained else {}),
    }


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "unknown"
    return found


def _write_json(path: Path, value: object) -> None:
    data = (json.dumps(value, indent=2) + "\n").encode()
    if not path.exists():  # before its checksum: a folder with SHA256SUMS alone would not be known as ours
        write_file(path, data)
    write_with_checksum(path, data)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Make `out` and keep a second trainer out of it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        pass_environment_on(error)
        reason = "a link that leads nowhere" if out.is_symlink() and not out.exists() else error.strerror
        raise UsageError(f"cannot use {out} as a run directory: {reason}; choose another --out") from None
    with FolderLock(out / LOCK, f"{out} is being trained by another process"):
        yield
