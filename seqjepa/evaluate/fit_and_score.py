"""Training one probe on the training bank and scoring it on the validation bank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from seqjepa.data.draws import Purpose
from seqjepa.devices import available_memory
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.intervals import Intervals, Resampling
from seqjepa.evaluate.measure import Measure, Scores
from seqjepa.evaluate.probes import Fit, Gather, fit, predict
from seqjepa.evaluate.taken import Taken

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

    train: FeatureBank
    val: FeatureBank
    device: torch.device
    seed: int
    val_draws: int = 1
    resampling: Resampling | None = None
    heads: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)


def fit_and_score(measure: Measure, bench: Bench) -> Taken:
    """Scores after the last epoch with their intervals, and the best seen in ten checks on the way (logged, never
    reported as ours). Nothing is fitted where there is nothing to tell apart."""
    x, y = shown_and_wanted(measure, bench, bench.val)
    skipped = measure.constant(y)
    if measure.name in skipped:
        return Taken({}, {}, {}, skipped)
    training = _training(measure, bench)
    spread = torch.linspace(0, len(bench.train) - 1, min(EXAMPLES, len(bench.train)), device=bench.device).long()
    examples = training(0)(spread)
    best: Scores = {}
    last: Scores = {}
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
    return Taken(last, best, intervals, skipped, confusions)


def _better(name: str, one: float, other: float) -> float:
    """Of errors in degrees the smaller, of all else the larger."""
    return min(one, other) if name.endswith(("_deg", "_deg_median")) else max(one, other)


def shown_and_wanted(measure: Measure, bench: Bench, bank: FeatureBank) -> tuple[Tensor, Tensor]:
    """Inputs and targets of every sample of a bank under each fixed draw of the bench, on the device."""
    drawn = (bank.draw(bench.seed, draw, Purpose.EVALUATION, measure.views) for draw in range(bench.val_draws))
    parts = [_everything(measure.inputs(bank, slots), len(bank), bench.device) for slots in drawn]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _training(measure: Measure, bench: Bench) -> Callable[[int], Gather]:
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
