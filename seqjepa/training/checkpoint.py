"""What a run keeps on disk: state.pt to go on from, model.safetensors to use, and how to open both.

state.pt holds tensors and primitives only, so that it loads with `weights_only=True`; nothing of ours is unpickled.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from seqjepa.config import RunConfig
from seqjepa.files import write_atomic
from seqjepa.methods import build_method
from seqjepa.methods.base import Method, as_module
from seqjepa.recipes import read_config
from shards.errors import DamageError, FormatError

CONFIG, RUN, METRICS, WEIGHTS, STATE = "config.toml", "run.json", "metrics.jsonl", "model.safetensors", "state.pt"
EPOCHS = "epochs"


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


class LoadedRun(NamedTuple):
    """epochs: of training that the weights have behind them; None where the file does not say."""

    config: RunConfig
    method: Method
    data: DataInfo
    epochs: float | None = None


def initial_method(config: RunConfig, action_size: int) -> Method:
    """The method at its initial weights: a function of the configuration and its seed alone, made on the CPU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_method(config, action_size)


def load_run(run: Path, device: torch.device | str = "cpu", *, untrained: bool = False) -> LoadedRun:
    """A run's method in eval mode on `device`, with its weights, or with those that it began with.

    FormatError: not a run directory, or one without a checkpoint yet. DamageError: the weights do not fit or are cut.
    """
    info = read_run_json(run)
    config = read_config(run / CONFIG)
    try:
        data = DataInfo(**info["data"])
    except (KeyError, TypeError) as error:
        raise FormatError(f"{run / RUN} does not say what the run was trained on ({error})") from None
    method = initial_method(config, data.action_size)
    module = as_module(method)
    if not untrained:
        load_weights(module, run / WEIGHTS)
    module.to(device).eval()
    return LoadedRun(config, method, data, 0.0 if untrained else trained_epochs(run / WEIGHTS))


def read_run_json(run: Path) -> dict[str, Any]:
    """run.json of a run directory; FormatError where there is none or it is not ours."""
    try:
        info = json.loads((run / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise FormatError(f"{run} is not a run directory (no readable {RUN}); `seqjepa train` makes them") from None
    if not isinstance(info, dict) or info.get("kind") != "seqjepa-run":
        raise FormatError(f"{run / RUN} was not written by `seqjepa train`")
    if not isinstance(info.get("shards", {}), dict):
        raise FormatError(f"{run / RUN} was not written by `seqjepa train`: its shards are no object")
    if info.get("format") != 1:
        raise FormatError(f"{run} has format {info.get('format')!r}, this version reads 1: update seqjepa")
    return info


def save_weights(module: nn.Module, path: Path, epochs: float | None = None) -> None:
    """Parameters and buffers as safetensors, on the CPU, contiguous, in the state dict's names.

    epochs: of training so far, kept in the file's metadata.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    write_atomic(path, safetensors.torch.save(tensors, None if epochs is None else {EPOCHS: f"{epochs:g}"}))


def trained_epochs(path: Path) -> float | None:
    """What `save_weights` noted in a file that could be loaded."""
    with safetensors.safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get(EPOCHS, "")
    try:
        return float(said)
    except ValueError:
        return None


def load_weights(module: nn.Module, path: Path) -> None:
    if not path.exists():
        raise FormatError(f"{path} is not there: the run has no checkpoint yet; let `seqjepa train` go on")
    try:
        module.load_state_dict(safetensors.torch.load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise DamageError(f"{path} is damaged or of another model: {error}") from None


def save_state(state: Mapping[str, object], path: Path) -> None:
    """Nested dicts and lists of tensors and primitives → state.pt."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def load_state(path: Path) -> dict[str, Any] | None:
    """What `save_state` wrote, on the CPU; None where there is no such file yet. DamageError when it cannot be read."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        return None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise DamageError(f"{path} is damaged ({reason}); delete it to begin this run again") from None
