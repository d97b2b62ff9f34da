"""Odd one out: of three views, one is of an object of another class; which?

The poster reports it without a protocol, so this one is ours: the odd place is uniform, actions are relative rotations
from each view to the next, also between objects. Heads learn on training objects and are scored on validation objects.
Letters: T triplets, D width of z, A action size, W width of z_AGG.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import ROTATION_COLUMNS, actions_between
from seqjepa.data.draws import Purpose, below, choose_distinct, draw_u32
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Fit, Gather, cross_entropy, fit, predict
from seqjepa.evaluate.metrics import averaged_mean
from seqjepa.evaluate.probes import Bench
from seqjepa.evaluate.studies import IN_SEQUENCES, EvalContext, Study
from seqjepa.methods.base import Aggregating
from shards.schema import ActionSpec

VIEWS = 3
FEWEST = 2048


@dataclass(frozen=True)
class Triplets:
    """T sequences of three views, two of one object and one of an object of another class.

    samples, slots  int64 [T, 3]: whose view, and which;  odd  int64 [T]: the place of the one that does not belong
    """

    samples: np.ndarray
    slots: np.ndarray
    odd: np.ndarray

    def __len__(self) -> int:
        return len(self.odd)

    def z(self, features: Features) -> Tensor:
        """Features float32 [T, 3, D], on their device and in their dtype."""
        return features.z_at(self.samples, self.slots).float()

    def actions(self, features: Features, action: ActionSpec) -> np.ndarray:
        """float32 [T, 2, A] from each view to the next by their parameters, also from one object to the other."""
        return actions_between(features.params[self.samples, self.slots], features.param_names, action)


def trials(samples: int) -> int:
    """T: every object gives the pair's candidates equally often, and there are at least 2,048 triplets."""
    return samples * -(-FEWEST // samples)


def draw_triplets(features: Features, seed: int, draw: int, purpose: Purpose) -> Triplets:
    """Triplets as a function of (seed, draw, purpose); needs two classes, and two views of every object.

    Object t mod S is drawn with one of any other class, and a coin says which of the two is the odd one: whatever the
    sizes of classes, no object is odd more often than not, so a single view gives nothing away.
    """
    size = len(features)
    number = np.arange(trials(size))
    drawn = draw_u32(seed, draw, purpose, number, 6)
    first = number % size
    second = _of_another_class(features.labels.cpu().numpy(), first, drawn[:, 0])
    swap = drawn[:, 1] < 2**31
    pair, single = np.where(swap, second, first), np.where(swap, first, second)
    twice = choose_distinct(features.n_views[pair], drawn[:, 2:4])
    once = choose_distinct(features.n_views[single], drawn[:, 4:5])
    odd = below(VIEWS, drawn[:, 5])
    return Triplets(_with_odd(np.stack([pair, pair], 1), single[:, None], odd), _with_odd(twice, once, odd), odd)


def _of_another_class(labels: np.ndarray, first: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """For each sample int64 [T] one of the samples of other classes, all equally likely: int64 [T]."""
    by_class = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[by_class], labels[first], side="left")
    stop = np.searchsorted(labels[by_class], labels[first], side="right")
    pick = below(len(labels) - (stop - start), numbers)
    return by_class[np.where(pick < start, pick, pick + stop - start)]


def _with_odd(two: np.ndarray, one: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """[T, 2] and [T, 1] → [T, 3] with the one at place `odd`, the two in order around it."""
    order = np.argsort(np.stack([odd, (odd + 1) % VIEWS, (odd + 2) % VIEWS], axis=1), axis=1)
    return np.take_along_axis(np.concatenate([one, two], axis=1), order, axis=1)


TUNING_LR = 4e-4
"""Adam's, for the aggregator: the rate at which the paper trains it (paper §A.2)."""
ROWS_PER_PASS = 1024


@dataclass(frozen=True)
class Contest:
    """One way to tell: how triplets of a split are shown, [T, …], a new head by its input, and how long it learns.

    draws   how many different training draws of triplets there are, cycled over epochs
    """

    show: Callable[[Features, Triplets], Tensor]
    head: Callable[[Tensor], nn.Module]
    how: Fit
    draws: int


def _why_no_odd_one_out(ctx: EvalContext) -> str:
    splits = (ctx.splits.train, ctx.splits.val)
    if not set(ROTATION_COLUMNS) <= set(splits[0].param_names):
        return "the samples have no rotations"
    if splits[0].sequences is not None:
        return IN_SEQUENCES
    if not ctx.can.labelled:
        return "samples without a label"
    if any(int(features.labels.min()) == int(features.labels.max()) for features in splits):
        return "a split has objects of one class only"
    return "a sample has a single view" if ctx.can.most_views < 2 else ""


def _odd_one_out_scores(ctx: EvalContext) -> dict[str, Any]:
    """Shares in 0..1, chance is 1/3, and intervals. Methods without an aggregate: of z alone."""
    config, bench, method = ctx.config, ctx.bench, ctx.loaded.method
    newly = Fit(config.epochs, bench.seed)
    told = {"z": _told(Contest(_joined, _linear, newly, config.epochs), bench)[0]}
    if isinstance(method, Aggregating):
        action = ctx.can.action
        shown, packed = _aggregated(method, action, bench.device), _packed(action)
        told["agg"], linear = _told(Contest(shown, _linear, newly, config.aggregate_draws), bench)
        further = Fit(config.linear_regressor_epochs, bench.seed, lr=TUNING_LR)
        tuned = TunedAggregator(method, linear, ctx.splits.train.z.shape[-1])
        told["agg_tuned"] = _told(Contest(packed, lambda _: tuned, further, further.epochs), bench)[0]
    scores = {name: right.double().mean().item() for name, right in told.items()}
    intervals = {name: bench.resampling.interval(averaged_mean(right)) for name, right in told.items()}
    return {"odd_one_out": scores, "intervals": {"odd_one_out": intervals}}


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


def _shown(contest: Contest, features: Features, bench: Bench, draw: int, purpose: Purpose) -> tuple[Tensor, Tensor]:
    triplets = draw_triplets(features, bench.seed, draw, purpose)
    return contest.show(features, triplets).to(bench.device), torch.from_numpy(triplets.odd).to(bench.device)


def _linear(example: Tensor) -> nn.Module:
    return nn.Linear(example.shape[-1], VIEWS)


def _joined(features: Features, triplets: Triplets) -> Tensor:
    """[z1; z2; z3], [T, 3 D]."""
    return triplets.z(features).flatten(1)


def _packed(action: ActionSpec) -> Callable[[Features, Triplets], Tensor]:
    """z of each view beside the action to the next one (zeros for the last), [T, 3, D + A]."""

    def show(features: Features, triplets: Triplets) -> Tensor:
        actions = F.pad(torch.from_numpy(triplets.actions(features, action)), (0, 0, 0, 1))
        return torch.cat([triplets.z(features), actions.to(features.z.device)], dim=-1)

    return show


def _aggregated(
    method: Aggregating, action: ActionSpec, device: torch.device
) -> Callable[[Features, Triplets], Tensor]:
    """z_AGG of the three views, [T, W]."""

    @torch.no_grad()
    def show(features: Features, triplets: Triplets) -> Tensor:
        z, actions = triplets.z(features), torch.from_numpy(triplets.actions(features, action))
        passes = zip(z.split(ROWS_PER_PASS), actions.split(ROWS_PER_PASS), strict=True)
        return torch.cat([method.aggregate(some.to(device), a.to(device)).float() for some, a in passes])

    return show


ODD_ONE_OUT = Study("odd_one_out", _why_no_odd_one_out, _odd_one_out_scores)
