"""What a run keeps on disk: state.pt to go on from, model.safetensors to use, and how to open both.

state.pt holds tensors and primitives only, so that it loads with `weights_only=True`; nothing of ours is unpickled.
Both are held against their checksums whenever they are read. The state of before, state-previous.pt, stays until the
next one is written and read back: where the newest is damaged, a run goes back to it.
"""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from seqjepa import files
from seqjepa.config import RunConfig
from seqjepa.data.actions import DECLARED, action_name, as_spec
from seqjepa.methods import build_method
from seqjepa.methods.base import Method
from seqjepa.models.ema import MovingAverage
from seqjepa.models.pretrained import check_kinds, load_plain, load_pretrained, weights_note
from seqjepa.training.run import DataInfo, data_info, read_run_config, read_run_json
from seqjepa.training.run_files import CONFIG, METRICS, PREVIOUS, RUN, STATE, WEIGHTS, kept_weights
from shards.describe import human_bytes
from shards.errors import ConfigError, DamageError, FormatError, reason_of
from shards.machine.files import sha256_of_bytes
from shards.schema import ActionSpec

logger = logging.getLogger(__name__)

EPOCHS, FORMAT = "epochs", 1


class LoadedRun(NamedTuple):
    """A run as it is in its folder.

    config  its settings, as config.toml has them
    method  its networks, in eval mode
    data    what it was trained on: sizes in pixels, normalisation for pixels in [0, 1], action
    epochs  of training that the weights have behind them; None where the file does not say
    """

    config: RunConfig
    method: Method
    data: DataInfo
    epochs: float | None = None

    @property
    def action(self) -> ActionSpec:
        """What takes a view to the next."""
        return as_spec(self.config.data.action)


def initial_method(config: RunConfig, action_size: int, *, pretrained: bool = True) -> Method:
    """The method at its initial weights: a function of the configuration and its seed alone, made on the CPU.

    pretrained: with the weights of model.pretrained in its encoder, where that is set; without them nothing is read,
    for runs that have weights of their own. ConfigError: see build_method and load_pretrained.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        method = build_method(config, action_size)
    if pretrained and config.model.pretrained:
        load_pretrained(method.encoder, config.model)
        if isinstance(method, MovingAverage):
            method.restart_averages()
    return method


def load_run(
    run: Path, device: torch.device | str = "cpu", *, untrained: bool = False, epoch: int | None = None
) -> LoadedRun:
    """A run's method in eval mode on `device`, with its weights, or with those that it began with.

    epoch: with those that were kept after so many epochs (train.keep_epochs).
    Weights that are damaged come from state.pt, with a warning. FormatError: not a run directory, or one without a
    checkpoint yet. DamageError: no weights are whole, or they do not fit.
    """
    info, config = read_run_json(run), read_run_config(run)
    data = data_info(info, run / RUN)
    found, told = (data.action, data.action_size), (action_name(config.data.action), as_spec(config.data.action).size)
    if found != told and found != (DECLARED, told[1]):  # terms that have become a preset's since
        raise FormatError(
            f"{run / RUN} has actions {found[0]!r} ({found[1]}), {CONFIG} {told[0]!r} ({told[1]}); restore both"
        )
    again = untrained and not config.model.freeze
    method = initial_method(config, data.action_size, pretrained=again)
    noted = info.get("pretrained")
    if again and noted and weights_note(method.encoder, config.model) != noted:
        raise ConfigError(f"model.pretrained = {config.model.pretrained!r} is not what {run} began with; restore it")
    if epoch is not None:
        tensors, epochs = read_weights(run / kept_weights(epoch))
        _fill(method, tensors, run / kept_weights(epoch))
    elif not untrained:
        epochs = load_weights(method, run / WEIGHTS)
    else:
        epochs = 0.0
        if config.model.freeze:  # never trained: the run's own copy, so that the file that it came from may be gone
            _fill(method.encoder, encoder_of(read_weights(run / WEIGHTS)[0]), run / WEIGHTS)
    method.to(device).eval()
    return LoadedRun(config, method, data, epochs)


def encoder_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A method's weights → those of its encoder, under the names that the encoder has for them."""
    return {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}


def save_weights(module: nn.Module, path: Path, epochs: float | None = None) -> None:
    """Parameters and buffers as safetensors, on the CPU, contiguous, in the state dict's names.

    epochs: of training so far, kept in the file's metadata.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    data = safetensors.torch.save(tensors, None if epochs is None else {EPOCHS: f"{epochs:g}"})
    files.write_with_checksum(path, data)


def load_weights(module: nn.Module, path: Path) -> float | None:
    """Weights, or state.pt's where they are damaged or gone, into `module`; → epochs of training, if that was noted."""
    try:
        if not path.exists() and path.with_name(STATE).exists():
            raise DamageError(f"{path} is gone")
        tensors, epochs = read_weights(path)
    except DamageError as error:
        return _weights_of_state(module, path, error)
    _fill(module, tensors, path)
    return epochs


def read_weights(path: Path) -> tuple[dict[str, Tensor], float | None]:
    """Tensors by name, and epochs of training. FormatError: not there. DamageError: not as they were written."""
    try:
        data = files.read_checked(path)
    except FileNotFoundError:
        raise FormatError(f"{path} is not there: the run has no checkpoint yet; let `seqjepa train` go on") from None
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamageError(f"{path} is damaged ({reason_of(error)})") from None
    said = header.get("__metadata__", {}).get(EPOCHS, "")
    return tensors, float(said) if re.fullmatch(r"\d+(\.\d+)?(e[+-]?\d+)?", said) else None


def weights_epochs(path: Path) -> float | None:
    """Epochs of training of weights that are there and whole; −1 of others, None where they do not say."""
    try:
        return read_weights(path)[1]
    except (FormatError, DamageError):
        return -1.0


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        check_kinds(module, tensors)
        module.load_state_dict(tensors)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DamageError(f"{path} is of another model than {CONFIG} ({reason_of(error):.200})") from None
    if not all(bool(torch.isfinite(value).all()) for value in module.state_dict().values()):
        raise DamageError(f"{path} is damaged: a number is not finite, and such weights are never saved")


def _weights_of_state(module: nn.Module, path: Path, damage: DamageError) -> float | None:
    """What `load_weights` does where only state.pt is whole."""
    again = f"{damage}; `seqjepa train` with the same options writes it anew from {STATE}"
    try:
        state = load_state(path.with_name(STATE))
    except (DamageError, FormatError):
        state = None
    learner = state.get("learner") if state else None
    if state is None or not isinstance(learner, dict):
        raise DamageError(f"{damage}, and {STATE} is not there or not whole; restore one of them") from None
    _fill(module, learner.get("method", {}), path.with_name(STATE))
    logger.warning("%s; until then the weights in %s are used, which are the same", again, STATE)
    return state.get(EPOCHS)


def save_state(state: Mapping[str, object], path: Path) -> None:
    """Nested dicts and lists of tensors and primitives → state.pt. The state that was there becomes state-previous.pt.

    "log" is what metrics.jsonl holds at this moment: its checksum is noted too.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **state}, buffer)
    log = state.get("log")
    also = {METRICS: sha256_of_bytes(log.encode())} if isinstance(log, str) else {}
    files.write_with_checksum(path, buffer.getvalue(), keep=PREVIOUS, also=also)


def warn_of_room(run: Path, method: nn.Module, keep_epochs: Sequence[int]) -> None:
    """A warning where the disk cannot take what the run will write: two states, a third before it takes the place of
    one, and weights; those of epochs that are kept too."""
    weights = sum(value.nbytes for value in method.state_dict().values())
    moments = 2 * sum(value.nbytes for value in method.parameters() if value.requires_grad)
    states = 3 - sum((run / name).exists() for name in (STATE, PREVIOUS))
    files_of_weights = (WEIGHTS, *map(kept_weights, keep_epochs))
    needed = states * (weights + moments) + weights * sum(not (run / name).exists() for name in files_of_weights)
    if needed > (free := shutil.disk_usage(run).free):
        said = "%s: its states and weights will take at least %s, and %s is free there; make room before one is saved"
        logger.warning(said, run, human_bytes(needed), human_bytes(free))


def load_state(path: Path) -> dict[str, Any] | None:
    """What `save_state` wrote, on the CPU; None where there is no such file.

    DamageError: it is not what was written. FormatError: a newer version wrote it.
    """
    try:
        data = files.read_checked(path)
    except FileNotFoundError:
        return None
    return parse_state(data, path)


def parse_state(data: bytes, path: Path) -> dict[str, Any]:
    """The bytes of a state.pt, which were read from `path`. Errors as of load_state."""
    try:
        state = load_plain(io.BytesIO(data))
    except ValueError:
        raise DamageError(f"{path} is damaged: it cannot be read as a state of training") from None
    if not isinstance(state, dict):
        raise DamageError(f"{path} is damaged: it holds no state of training")
    if state.get("format") != FORMAT:
        found = f"format {state['format']!r:.40}" if "format" in state else "no format"
        raise FormatError(f"{path} has {found}, this version reads {FORMAT}: update seqjepa, or restore the file")
    return state


def newest_state(run: Path) -> dict[str, Any] | None:
    """The newest state that is whole; None where none was saved yet. A damaged one is replaced by the one before it.

    DamageError: there is no whole one.
    """
    newest, previous = run / STATE, run / PREVIOUS
    advice = "restore one of them, or begin the run again with --overwrite"
    try:
        state, problem = load_state(newest), f"{newest} is gone"
    except DamageError as error:
        state, problem = None, str(error)
    if state is not None:
        return state
    try:
        kept = load_state(previous)
    except DamageError as error:
        raise DamageError(f"{problem}; {error}; {advice}") from None
    if kept is None:
        if newest.exists():
            raise DamageError(f"{problem}, and there is no {PREVIOUS}; {advice}")
        return None
    where = f"epoch {kept[EPOCHS]:g}, " if isinstance(kept.get(EPOCHS), float) else ""
    logger.warning("%s; going back to %s: %sstep %s", problem, PREVIOUS, where, kept.get("step"))
    files.restore_with_checksum(newest, previous)
    return kept
