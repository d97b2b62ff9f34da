"""Odd one out (poster; protocol ours): of three views, one is of an object of another class; which?

The poster reports it without a protocol, so this one is ours: the odd place is uniform, actions are relative rotations
from each view to the next, also between objects. Heads learn on training objects and are scored on validation objects.
T triplets, D width of z, A action size, W width of z_AGG.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import ROTATION_COLUMNS
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.fit_and_score import Bench
from seqjepa.evaluate.intervals import averaged_mean
from seqjepa.evaluate.odd_draws import VIEWS, Triplets, draw_triplets, trials
from seqjepa.evaluate.probes import Fit, Gather, cross_entropy, fit, predict
from seqjepa.evaluate.study import Case, Study
from seqjepa.methods.base import Aggregating

TUNING_LR = 4e-4
"""Adam's, for the aggregator: the rate at which the paper trains it (paper §A.2)."""
ROWS_PER_PASS = 1024


@dataclass(frozen=True)
class Contest:
    """One way to tell: how triplets of a bank are shown, [T, …], a new head by its input, and how long it learns.

    draws   how many different training draws of triplets there are, cycled over epochs
    """

    show: Callable[[FeatureBank, Triplets], Tensor]
    head: Callable[[Tensor], nn.Module]
    how: Fit
    draws: int


def _why_not(case: Case) -> str:
    banks = (case.banks.train, case.banks.val)
    if not set(ROTATION_COLUMNS) <= set(banks[0].param_names):
        return "the samples have no rotations"
    if not case.subject.labelled:
        return "samples without a label"
    if any(int(bank.labels.min()) == int(bank.labels.max()) for bank in banks):
        return "a split has objects of one class only"
    return "a sample has a single view" if case.subject.most_views < 2 else ""


def _take(case: Case) -> dict[str, Any]:
    """Shares in 0..1, chance is 1/3, and intervals. Methods without an aggregate: of z alone."""
    lengths, bench, method = case.protocol.lengths, case.bench, case.loaded.method
    newly = Fit(lengths.epochs, bench.seed)
    told = {"z": _told(Contest(_joined, _linear, newly, lengths.epochs), bench)[0]}
    if isinstance(method, Aggregating):
        kind = case.subject.action
        shown, packed = _aggregated(method, kind, bench.device), _packed(kind)
        told["agg"], linear = _told(Contest(shown, _linear, newly, lengths.draws), bench)
        further = Fit(lengths.linear_regressor, bench.seed, lr=TUNING_LR)
        tuned = TunedAggregator(method, linear, case.banks.train.z.shape[-1])
        told["agg_tuned"] = _told(Contest(packed, lambda _: tuned, further, further.epochs), bench)[0]
    scores = {"odd_one_out": {name: right.double().mean().item() for name, right in told.items()}}
    if (resampling := bench.resampling) is None:
        return scores
    intervals = {name: resampling.interval(averaged_mean(right)) for name, right in told.items()}
    return {**scores, "intervals": {"odd_one_out": intervals}}


class TunedAggregator(nn.Module):
    """A copy of a method whose aggregator learns on, with a head that begins as `linear`: [b, 3, D + A] → [b, 3].

    The encoder plays no part, the action embedding stays as it is, and dropout stays off. The method is not touched.
    """

    def __init__(self, method: Aggregating, linear: nn.Module, features: int) -> None:
        super().__init__()
        self.method, self.linear, self.features = copy.deepcopy(method), copy.deepcopy(linear), features
        self.method.aggregator.requires_grad_(True)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        z, actions = x[..., : self.features], x[:, :-1, self.features :]
        return self.linear(self.method.aggregate(z, actions).float())


def _told(contest: Contest, bench: Bench) -> tuple[Tensor, nn.Module]:
    """Which validation triplets are told right after the last epoch, bool, draw after draw; and the head."""
    draws = min(contest.draws, contest.how.epochs)

    @lru_cache(maxsize=draws if draws < contest.how.epochs else 1)
    def training(draw: int) -> Gather:
        x, odd = _shown(contest, bench.train, bench, draw, Purpose.PROBE)
        return lambda rows: (x[rows], odd[rows])

    example = training(0)(torch.zeros(2, dtype=torch.int64, device=bench.device))[0]
    head = fit(
        lambda: contest.head(example),
        lambda epoch: training(epoch % draws),
        trials(len(bench.train)),
        cross_entropy,
        contest.how,
        device=bench.device,
    )
    parts = [_shown(contest, bench.val, bench, draw, Purpose.EVALUATION) for draw in range(bench.val_draws)]
    return torch.cat([predict(head, x).argmax(dim=-1) == odd for x, odd in parts]), head


def _shown(contest: Contest, bank: FeatureBank, bench: Bench, draw: int, purpose: Purpose) -> tuple[Tensor, Tensor]:
    triplets = draw_triplets(bank, bench.seed, draw, purpose)
    return contest.show(bank, triplets).to(bench.device), torch.from_numpy(triplets.odd).to(bench.device)


def _linear(example: Tensor) -> nn.Module:
    return nn.Linear(example.shape[-1], VIEWS)


def _joined(bank: FeatureBank, triplets: Triplets) -> Tensor:
    """[z1; z2; z3], [T, 3 D]."""
    return triplets.z(bank).flatten(1)


def _packed(kind: str) -> Callable[[FeatureBank, Triplets], Tensor]:
    """z of each view beside the action to the next one (zeros for the last), [T, 3, D + A]."""

    def show(bank: FeatureBank, triplets: Triplets) -> Tensor:
        actions = F.pad(torch.from_numpy(triplets.actions(bank, kind)), (0, 0, 0, 1))
        return torch.cat([triplets.z(bank), actions.to(bank.z.device)], dim=-1)

    return show


def _aggregated(method: Aggregating, kind: str, device: torch.device) -> Callable[[FeatureBank, Triplets], Tensor]:
    """z_AGG of the three views, [T, W]."""

    @torch.no_grad()
    def show(bank: FeatureBank, triplets: Triplets) -> Tensor:
        z, actions = triplets.z(bank), torch.from_numpy(triplets.actions(bank, kind))
        passes = zip(z.split(ROWS_PER_PASS), actions.split(ROWS_PER_PASS), strict=True)
        return torch.cat([method.aggregate(some.to(device), a.to(device)).float() for some, a in passes])

    return show


ODD_ONE_OUT = Study(
    name="odd_one_out",
    why_not=_why_not,
    take=_take,
    rows={
        "odd_one_out.agg": "odd one out (protocol ours), z_AGG",
        "odd_one_out.agg_tuned": "odd one out (protocol ours), z_AGG, aggregator tuned",
        "odd_one_out.z": "odd one out (protocol ours), three z",
    },
)
