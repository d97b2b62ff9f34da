"""A run directory from the weights that ContextSSL's authors released: one bare state dict (paper §A.3).

The names of parameters are those of Sharut/In-Context-Symmetries@124736d models.py.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqjepa.config import RunConfig
from seqjepa.data.actions import action_name, as_spec
from seqjepa.methods import build_method
from seqjepa.paper.sets import NORMALISATIONS
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import save_weights
from seqjepa.training.run import WEIGHTS, DataInfo, RunPlan, claimed, mark_finished
from shards.environment import pass_environment_on
from shards.errors import FormatError, UsageError, reason_of
from shards.files import sha256_of_file

# Ours: theirs, as beginnings of names.
PREFIXES = {
    "encoder.": "enc.",
    "regressor.": "aug_predictor.",
    "transformer.read_in.": "predictor._read_in.",
    "transformer.read_out.": "predictor._read_out.",
    "transformer.norm.": "predictor.transformer.ln_f.",
}
# The same within the block that comes next.
IN_BLOCK = {
    "norm1.": "ln_1.",
    "norm2.": "ln_2.",
    "attention.qkv.": "attn.c_attn.",
    "attention.out.": "attn.c_proj.",
    "widen.": "mlp.c_fc.",
    "narrow.": "mlp.c_proj.",
}
# Heads that the released model has and never uses: a linear probe, and a regressor of relative parameters.
UNUSED = ("equiv_linear.", "rel_aug_predictor.")
BLOCK = re.compile(r"transformer\.layers\.(\d+)\.(.*)")


def author_key(name: str) -> str:
    """The released name of our state-dict entry `name`. The mapping is one to one and shapes are equal."""
    if block := BLOCK.fullmatch(name):
        return f"predictor.transformer.h.{block[1]}.{_replace_prefix(block[2], IN_BLOCK)}"
    return _replace_prefix(name, PREFIXES)


def _replace_prefix(name: str, prefixes: dict[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise KeyError(name)


RECIPE = "context-ssl-3die"
MOST_BYTES = 2 * 2**30
"""The released file has about 0.7 GB: 166 million parameters in float32, and heads that nothing uses."""
MOST_NAMED = 6


@dataclass(frozen=True)
class Imported:
    """run: the directory; parameters: how many numbers; unused: entries of the file that the model has no place for."""

    run: Path
    parameters: int
    unused: tuple[str, ...]
    sha256: str


def import_weights(
    file: Path, out: Path, *, config: RunConfig | None = None, resolution: int = 128, overwrite: bool = False
) -> Imported:
    """Make `out` the finished run of the weights in `file`, to be evaluated like any other.

    config: of the architecture; None: the released one. Raises UsageError for files that are not there or too large and
    for an `out` that holds something else, FormatError for what is not such a state dict.
    """
    config = config or author_config()
    with torch.device("meta"):
        module = build_method(config, as_spec(config.data.action).size)
    state, unused = read_released_weights(file, module)
    module.load_state_dict(state, assign=True)
    digest = sha256_of_file(file)
    plan = RunPlan(config, _data_info(config, resolution), {"name": f"released weights {file.name}", "train": digest})
    with claimed(out, plan, overwrite):
        save_weights(module, out / WEIGHTS)
    mark_finished(out, config.optim.epochs)
    return Imported(out, sum(p.numel() for p in module.parameters()), unused, digest)


def author_config() -> RunConfig:
    """The settings of the released weights, as a run's."""
    return load_recipe(RECIPE, ["name=context-ssl-authors", "fidelity=author"])


def read_released_weights(file: Path, module: nn.Module) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The file's tensors under our names, float32 (counters int64), and the names of entries that have no place.

    module: what they are to fit, on any device. Every shape is checked before anything is copied. FormatError says in
    one line what is missing, unknown or of another shape.
    """
    # DataParallel puts "module." before every name
    released = {name.removeprefix("module."): tensor for name, tensor in _load_state_dict(file).items()}
    wanted = {author_key(name): (name, tensor) for name, tensor in module.state_dict().items()}
    unused = tuple(sorted(name for name in released if name.startswith(UNUSED)))
    if problems := list(_mismatches(released, {theirs: tensor for theirs, (_, tensor) in wanted.items()}, unused)):
        raise FormatError(f"{file} does not hold ContextSSL's weights: {'; '.join(problems)}")
    state = {name: released[theirs].to(tensor.dtype) for theirs, (name, tensor) in wanted.items()}
    if broken := [author_key(name) for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]:
        raise FormatError(f"{file} has numbers that are not finite in {_list_some(broken)}")
    return state, unused


def _load_state_dict(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UsageError(f"{file} is not a file; name the released simclr_resnet18_epoch1000.pt")
    if (size := file.stat().st_size) > MOST_BYTES:
        raise UsageError(f"{file} has {size:,} bytes; the released weights have about 0.7 GB, at most {MOST_BYTES:,}")
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        pass_environment_on(error)
        raise FormatError(f"{file} cannot be read as a PyTorch file of weights ({reason_of(error)})") from None
    if not isinstance(found, Mapping) or not all(_is_entry(name, value) for name, value in found.items()):
        raise FormatError(f"{file} does not hold a bare state dict (names to tensors)")
    return dict(found)


def _is_entry(name: object, value: object) -> bool:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return isinstance(name, str) and plain


def _mismatches(released: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unused: tuple[str, ...]) -> Iterator[str]:
    """Everything that does not fit, as parts of a sentence."""
    if missing := [name for name in wanted if name not in released]:
        yield f"missing {_list_some(missing)}"
    if unknown := [name for name in released if name not in wanted and name not in unused]:
        yield f"unknown {_list_some(unknown)}"
    common = [name for name in wanted if name in released]
    shapes = {name: (tuple(released[name].shape), tuple(wanted[name].shape)) for name in common}
    if other := [f"{name} {found}, not {shape}" for name, (found, shape) in shapes.items() if found != shape]:
        yield f"of another shape {_list_some(other)}"
    kinds = {name: (released[name].dtype, wanted[name].dtype) for name in common}
    if other := [f"{name} {found}" for name, (found, kind) in kinds.items() if not _same_kind(found, kind)]:
        yield f"of another kind {_list_some(other)}"


def _same_kind(found: torch.dtype, wanted: torch.dtype) -> bool:
    return found.is_floating_point == wanted.is_floating_point and not found.is_complex and found != torch.bool


def _list_some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _data_info(config: RunConfig, resolution: int) -> DataInfo:
    mean, std = NORMALISATIONS["3diebench"]
    action = config.data.action
    return DataInfo(action_name(action), as_spec(action).size, mean, std, resolution, resolution)
