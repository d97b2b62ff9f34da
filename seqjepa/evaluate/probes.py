"""Training one probe on the training bank and scoring it on the validation bank.

The same measures on one part of z: of methods whose features have an invariant and an equivariant half (SIE).

What probes gave: numbers by dotted key, as in results.json ("r2_path.both.3").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from seqjepa.data.draws import Purpose
from seqjepa.devices import available_memory
from seqjepa.evaluate.bootstrap import Intervals, Resampling
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Fit, Gather, fit, predict
from seqjepa.evaluate.tasks import Numbers, ProbeTask

CHECKS = 10
EXAMPLES = 4096
FULL_PRECISION_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Bench:
    """Where probes are trained: the two banks, the device, and the seed that fixes draws, heads and row order.

    val_draws: the validation set is seen under so many fixed draws of views; scores are over all of them together.
    resampling: of the validation samples, for intervals; None for no intervals.
    heads: what was fitted here, by the measure's name, for studies that show it to other banks.
    """

    train: Features
    val: Features
    device: torch.device
    seed: int
    val_draws: int = 1
    resampling: Resampling | None = None
    heads: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)


def fit_and_score(measure: ProbeTask, bench: Bench) -> Scores:
    """Scores after the last epoch with their intervals, and the best seen in ten checks on the way (logged, never
    reported as ours). Nothing is fitted where there is nothing to tell apart."""
    x, y = shown_and_wanted(measure, bench, bench.val)
    skipped = measure.constant(y)
    if measure.name in skipped:
        return Scores({}, {}, {}, skipped)
    training = _training(measure, bench)
    spread = torch.linspace(0, len(bench.train) - 1, min(EXAMPLES, len(bench.train)), device=bench.device).long()
    examples = training(0)(spread)
    best: Numbers = {}
    last: Numbers = {}
    intervals: Intervals = {}
    confusions: dict[str, np.ndarray] = {}
    every = max(1, measure.epochs // CHECKS)

    def check(epoch: int, head: nn.Module) -> None:
        if epoch % every and epoch != measure.epochs:
            return
        predicted = predict(head, x)
        last.update(measure.score(predicted, y))
        best.update({name: _better(name, value, best.get(name, value)) for name, value in last.items()})
        if epoch == measure.epochs:
            confusions.update({name: counts.cpu().numpy() for name, counts in measure.confusions(predicted, y).items()})
        if epoch == measure.epochs and bench.resampling is not None:
            averaged = measure.averaged(predicted, y)
            intervals.update({name: bench.resampling.interval(a) for name, a in averaged.items()})

    bench.heads[measure.name] = fit(
        lambda: measure.head(*examples),
        training,
        len(bench.train),
        measure.loss,
        Fit(measure.epochs, bench.seed),
        device=bench.device,
        after_epoch=check,
    )
    return Scores(last, best, intervals, skipped, confusions)


def _better(name: str, one: float, other: float) -> float:
    """Of errors in degrees the smaller, of all else the larger."""
    return min(one, other) if name.endswith(("_deg", "_deg_median")) else max(one, other)


def shown_and_wanted(measure: ProbeTask, bench: Bench, bank: Features) -> tuple[Tensor, Tensor]:
    """Inputs and targets of every sample of a bank under each fixed draw of the bench, on the device."""
    drawn = (bank.draw(bench.seed, draw, Purpose.EVALUATION, measure.views) for draw in range(bench.val_draws))
    parts = [_everything(measure.inputs(bank, slots), len(bank), bench.device) for slots in drawn]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _training(measure: ProbeTask, bench: Bench) -> Callable[[int], Gather]:
    """inputs(epoch) for `fit`. Inputs that cost a forward pass are computed once for each draw, as far as they fit.

    They are kept as float16, as a bank of that size is, where all draws together would take more than 4 GiB.
    """
    bank = bench.train
    draws = min(measure.draws or measure.epochs, bank.different_draws or measure.epochs)
    keep = measure.draws is not None and draws < measure.epochs
    budget = _kept_bytes(bench.device)
    kept: dict[int, Gather] = {}

    def inputs(epoch: int) -> Gather:
        nonlocal budget
        draw = epoch % draws
        if draw in kept:
            return kept[draw]
        gather = measure.inputs(bank, bank.draw(bench.seed, draw, Purpose.PROBE, measure.views))
        size = _bytes_of_all(gather, len(bank), bench.device) if keep else 0
        dtype = torch.float32 if size * draws <= FULL_PRECISION_BYTES else torch.float16
        size = size * dtype.itemsize // torch.float32.itemsize
        if keep and size <= budget:
            budget -= size
            gather = kept[draw] = _looked_up(*_everything(gather, len(bank), bench.device, dtype))
        return gather

    return inputs


def _kept_bytes(device: torch.device) -> int:
    """Half of the memory that is free."""
    return (torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()) // 2


def _bytes_of_all(gather: Gather, rows: int, device: torch.device) -> int:
    return rows * sum(tensor.nbytes for tensor in gather(torch.zeros(1, dtype=torch.int64, device=device)))


def _looked_up(x: Tensor, y: Tensor) -> Gather:
    return lambda rows: (x[rows].float(), y[rows])


def _everything(
    gather: Gather, rows: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    parts = [gather(part) for part in torch.arange(rows, device=device).split(1024)]
    return torch.cat([x.to(dtype) for x, _ in parts]), torch.cat([y for _, y in parts])


def bench_of_columns(bench: Bench, columns: slice) -> Bench:
    """The bench with nothing of z [S, N, D] but some of its columns, of views and of whole images."""
    return replace(bench, train=_bank_of(bench.train, columns), val=_bank_of(bench.val, columns))


def _bank_of(bank: Features, columns: slice) -> Features:
    whole = bank.z_image
    return replace(bank, z=bank.z[..., columns], z_image=None if whole is None else whole[..., columns])


Value = TypeVar("Value")


class Scores(NamedTuple):
    """What is known by the name of a number.

    last        after the last epoch;  best: the best of ten checks on the way;  intervals: of `last`, 95 %
    skipped     why a number is missing, or what was left out of it
    confusions  of top-1: int64 [C, C], true classes by predicted ones, over all validation draws
    """

    last: Numbers
    best: Numbers
    intervals: Intervals
    skipped: Mapping[str, str] = {}
    confusions: Mapping[str, np.ndarray] = {}

    def named(self, pattern: str) -> Scores:
        """The same under other names: "halves.invariant.{}"."""
        return Scores(
            _renamed(self.last, pattern),
            _renamed(self.best, pattern),
            _renamed(self.intervals, pattern),
            _renamed(self.skipped, pattern),
            _renamed(self.confusions, pattern),
        )

    def joined(self, other: Scores) -> Scores:
        """Both; of a number that both have, the other's."""
        return Scores(
            self.last | other.last,
            self.best | other.best,
            self.intervals | other.intervals,
            {**self.skipped, **other.skipped},
            {**self.confusions, **other.confusions},
        )


def _renamed(numbers: Mapping[str, Value], pattern: str) -> dict[str, Value]:
    return {pattern.format(key): value for key, value in numbers.items()}


NO_SCORES = Scores({}, {}, {})


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """{"r2_path.both.3": x} → {"r2_path": {"both": {"3": x}}}."""
    levels: dict[str, Any] = {}
    for key, value in numbers.items():
        *outer, last = key.split(".")
        inner = levels
        for level in outer:
            inner = inner.setdefault(level, {})
        inner[last] = value
    return levels
