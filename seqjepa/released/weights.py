"""Weights that authors released, read as a stranger's file and held against a model: every name, shape and kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqjepa.config import RunConfig
from seqjepa.models.pretrained import load_plain, same_kind
from seqjepa.training.checkpoint import save_weights
from seqjepa.training.run import DataInfo, RunPlan, claimed, mark_finished
from seqjepa.training.run_files import WEIGHTS
from shards.errors import FormatError, UsageError, few
from shards.machine.files import sha256_of_file

MOST_BYTES = 2 * 2**30
"""A checkpoint of seq-JEPA has 0.4 GB: 39 million numbers in float32, and two more for most of them from the optimizer.
ContextSSL's weights have about 0.7 GB: 166 million parameters in float32, and heads that nothing uses."""
MOST_NAMED = 6


@dataclass(frozen=True)
class Imported:
    """run: the directory; parameters: how many numbers; unused: what of the file the model has no place for, mostly
    probes."""

    run: Path
    parameters: int
    unused: tuple[str, ...]
    sha256: str


def write_run(
    module: nn.Module,
    file: Path,
    out: Path,
    how: tuple[RunConfig, DataInfo],
    unused: tuple[str, ...],
    *,
    epochs: int | None = None,
    overwrite: bool = False,
) -> Imported:
    """Make `out` the finished run of `module`, which has the weights of `file`. how: settings, and what it saw.

    epochs: of training, if the file says; else the settings'. UsageError: an `out` that holds something else.
    """
    config, data = how
    digest = sha256_of_file(file)
    plan = RunPlan(config, data, {"name": f"released weights {file.name}", "train": digest})
    with claimed(out, plan, overwrite):
        save_weights(module, out / WEIGHTS, epochs)
    mark_finished(out, epochs or config.optim.epochs)
    return Imported(out, sum(p.numel() for p in module.parameters()), unused, digest)


def load_file(file: Path, name: str, most_bytes: int) -> Any:
    """What torch.save wrote, tensors and plain values alone, on the CPU.

    name: how the sentence calls the file that is wanted. UsageError: it is not there or too large. FormatError: it
    holds anything else.
    """
    if not file.is_file():
        raise UsageError(f"{file} is not a file; name {name}")
    if (size := file.stat().st_size) > most_bytes:
        raise UsageError(f"{file} has {size:,} bytes; {name} has at most {most_bytes:,}")
    try:
        return load_plain(file)
    except ValueError as error:
        raise FormatError(f"{file} cannot be read as a PyTorch file of weights ({error})") from None


def state_dict_of(found: Any, file: Path) -> dict[str, Tensor]:
    """Names to plain CPU tensors, without the "module." that (Distributed)DataParallel puts before every name.

    FormatError: `found` is something else.
    """
    if not isinstance(found, Mapping) or not all(_is_entry(name, value) for name, value in found.items()):
        raise FormatError(f"{file} does not hold a bare state dict (names to tensors)")
    if twice := [name for name in found if name.startswith("module.") and name.removeprefix("module.") in found]:
        raise FormatError(f"{file} has tensors with and without 'module.' before their names: {few(twice, MOST_NAMED)}")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def with_prefix_of(name: str, prefixes: Mapping[str, str]) -> str:
    """The released name of an entry of ours; prefixes: beginnings of our names → of theirs, all others are the same."""
    ours = next(filter(name.startswith, prefixes), "")
    return prefixes.get(ours, "") + name.removeprefix(ours)


def fit(
    released: Mapping[str, Tensor], wanted: Mapping[str, tuple[str, Tensor]], unused: Iterable[str], said: str
) -> dict[str, Tensor]:
    """The released tensors under our names, in our types.

    wanted  released name → our name and a tensor of the shape and type that it must have, on any device
    unused  released names that have no place and need none;  said: beginning of the FormatError, which lists in one
            line all that is missing, unknown, of another shape or kind, or not finite
    """
    like = {theirs: tensor for theirs, (_, tensor) in wanted.items()}
    if problems := list(_mismatches(released, like, set(unused))):
        raise FormatError(f"{said}: {'; '.join(problems)}")
    state = {name: released[theirs].to(tensor.dtype) for theirs, (name, tensor) in wanted.items()}
    if broken := [theirs for theirs, (name, _) in wanted.items() if not bool(torch.isfinite(state[name]).all())]:
        raise FormatError(f"{said}: numbers that are not finite in {few(broken, MOST_NAMED)}")
    return state


def _is_entry(name: object, value: object) -> bool:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu"
    return isinstance(name, str) and plain


def _mismatches(released: Mapping[str, Tensor], wanted: Mapping[str, Tensor], unused: set[str]) -> Iterator[str]:
    """Everything that does not fit, as parts of a sentence."""
    if missing := [name for name in wanted if name not in released]:
        yield f"missing {few(missing, MOST_NAMED)}"
    if unknown := [name for name in released if name not in wanted and name not in unused]:
        yield f"unknown {few(unknown, MOST_NAMED)}"
    common = [name for name in wanted if name in released]
    shapes = {name: (tuple(released[name].shape), tuple(wanted[name].shape)) for name in common}
    if other := [f"{name} {found}, not {shape}" for name, (found, shape) in shapes.items() if found != shape]:
        yield f"of another shape {few(other, MOST_NAMED)}"
    kinds = {name: (released[name].dtype, wanted[name].dtype) for name in common}
    if other := [f"{name} {found}" for name, (found, kind) in kinds.items() if not same_kind(found, kind)]:
        yield f"of another kind {few(other, MOST_NAMED)}"
