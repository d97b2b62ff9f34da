"""A probe: a head trained on frozen features of one split and scored on those of another (paper §3.3, §A.2).

ProbeTask says what a probe is; heads.py trains heads; probe_training.py has the numbers of them. Features come from a
cache, so the model that made them is out of reach of any gradient.

Letters: n validation rows, b of a minibatch, D width of an input or target, K sizes M (prefixes of M views, each with a
head of its own), C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather, Loss, build_head, cross_entropy, squared_error
from seqjepa.evaluate.metrics import (
    Averaged,
    Resampling,
    averaged_mean,
    averaged_r2_avg,
    averaged_r2_pool,
    confusion,
    geodesic_deg,
    r2_avg,
    r2_pool,
    top1,
    varying,
)
from seqjepa.recipes.library import merge_tables, table_of

Inputs = Callable[[Features, np.ndarray], Gather]
"""Features and one draw of their slots int64 [S, V] → how to gather from it; the same for training and validation."""
CONSTANT = "constant: the same in all validation samples"
ONE_CLASS = "constant: all validation samples are of one class"


class ProbeMetric(NamedTuple):
    """One number of a probe.

    key       in results.json; {name} stands for the task's name, {target} for it without "r2_"
    value     (predictions, targets) [n, …] over the whole validation set → the number
    averaged  likewise → the number as a function of means over rows, for its interval; None: it has no interval
    constant  targets [n, …] of training → what a head that is shown no view says, by this number best: [D], or [C]
    """

    key: str
    value: Callable[[Tensor, Tensor], float]
    averaged: Callable[[Tensor, Tensor], Averaged] | None
    constant: Callable[[Tensor], Tensor] = partial(torch.mean, dim=0)


Metrics = tuple[ProbeMetric, ...]


def _varying_dimensions(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(targets, predictions) [n, D'] in those dimensions of [n, D] in which the target varies."""
    kept = varying(target)
    return target[:, kept], predicted[:, kept]


def r2_over(key: str, whole: tuple[int, ...] = ()) -> ProbeMetric:
    """R² averaged over dimensions that vary, or over vectors of them: `whole` as r2_avg has it, of all D."""

    def kept(predicted: Tensor, target: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        of = [name for name, varies in zip(whole, varying(target).tolist(), strict=True) if varies] if whole else []
        return *_varying_dimensions(predicted, target), of

    return ProbeMetric(
        key,
        lambda predicted, target: r2_avg(*kept(predicted, target)),
        lambda predicted, target: averaged_r2_avg(*kept(predicted, target)),
    )


TOP1 = ProbeMetric(
    "{name}",
    top1,
    lambda logits, labels: averaged_mean(logits.argmax(dim=-1) == labels),
    lambda labels: torch.bincount(labels).float(),
)
R2_POOL = ProbeMetric(
    "{name}_pool",
    lambda predicted, target: r2_pool(*_varying_dimensions(predicted, target)),
    lambda predicted, target: averaged_r2_pool(*_varying_dimensions(predicted, target)),
)


def in_degrees(
    errors: Callable[[Tensor, Tensor], Tensor], constant: Callable[[Tensor], Tensor] = partial(torch.mean, dim=0)
) -> Metrics:
    """Mean and median of errors in degrees: (predictions, targets) [n, D] → float64 [n]. constant: as ProbeMetric's."""
    mean = ProbeMetric(
        "{target}_deg", lambda p, y: errors(p, y).mean().item(), lambda p, y: averaged_mean(errors(p, y)), constant
    )
    return mean, ProbeMetric("{target}_deg_median", lambda p, y: errors(p, y).median().item(), None, constant)


@dataclass(frozen=True)
class ProbeTask:
    """One probe as data: input and target, head, loss, metrics.

    inputs   gathers inputs [b, D], or [b, K, D] of K sizes, and targets: classes [b], or numbers [b, D'] or [b, K, D']
    views    how many views of a sample it needs
    head     builds the head from examples of training inputs and targets [e, …]; e ≥ 2 where it standardises
    classes  C of a classifier; 0 for a regressor
    sizes    the K sizes M, each with a head and numbers of its own ("top1_agg.5"); empty: one head
    draws    for inputs that cost a forward pass: how many different training draws there are, cycled over epochs.
             None: a new one every epoch
    parts    of a regressor of several targets side by side: (name, which outputs, metrics) of each; empty: one target
    labels   whether its classes are the set's: then confusions are kept
    """

    name: str
    inputs: Inputs
    views: int
    head: Callable[[Tensor, Tensor], nn.Module]
    loss: Loss
    metrics: Metrics
    epochs: int
    classes: int = 0
    sizes: tuple[int, ...] = ()
    draws: int | None = None
    parts: tuple[tuple[str, slice, Metrics], ...] = ()
    labels: bool = True

    def score(self, predicted: Tensor, target: Tensor) -> dict[str, float]:
        """Numbers by dotted key in results.json, over the whole validation set."""
        return {
            metric.key.format(name=name, target=name.removeprefix("r2_")): metric.value(*pair)
            for name, metrics, *pair in self._measurable(predicted, target)
            for metric in metrics
        }

    def intervals(self, predicted: Tensor, target: Tensor, resampling: Resampling) -> dict[str, list[float]]:
        """[low, high] by the key of each number that has an interval."""
        return {
            metric.key.format(name=name, target=name.removeprefix("r2_")): resampling.interval(metric.averaged(*pair))
            for name, metrics, *pair in self._measurable(predicted, target)
            for metric in metrics
            if metric.averaged is not None
        }

    def blind(self, known: Tensor, target: Tensor) -> dict[str, float]:
        """The same numbers of a head that is shown no view and has learned constants from training targets `known`."""
        found: dict[str, float] = {}
        for (name, metrics, part), (*_, training) in zip(self._targets(target), self._targets(known), strict=True):
            if self.classes or bool(varying(part).any()):
                for metric in metrics:
                    guess = metric.constant(training).expand(len(part), -1)
                    found[metric.key.format(name=name, target=name.removeprefix("r2_"))] = metric.value(guess, part)
        return found

    def confusions(self, logits: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
        """int64 [C, C] for each top-1 of the set's classes."""
        parts = self._measurable(logits, labels) if self.classes and self.labels else ()
        return {name: confusion(of_size, y, self.classes).cpu().numpy() for name, _, of_size, y in parts}

    def missing(self, target: Tensor, known: Tensor) -> dict[str, str]:
        """Why a number is missing, or what is left out of it, by its key, from all validation targets.

        Under the task's own name where there is nothing to measure. Of some dimensions alone: "r2_rel_rot, dimension 2
        of 4". Of classes that none of `known`, the training samples' labels, has: "top1_z, 2 of 5 classes".
        """
        if self.classes:
            return self._missing_classes(target, known)
        found: dict[str, str] = {}
        for name, _, y in self._targets(target):
            still = [str(d + 1) for d, varies in enumerate(varying(y).tolist()) if not varies]
            part = "" if len(still) == y.shape[1] else f", dimension {', '.join(still)} of {y.shape[1]}"
            found |= {f"{name}{part}": CONSTANT} if still else {}
        nothing = all(name in found for name, *_ in self._targets(target))
        return {self.name: CONSTANT} if nothing else found

    def _missing_classes(self, target: Tensor, known: Tensor) -> dict[str, str]:
        if bool((target == target[0]).all()):
            return {self.name: ONE_CLASS}
        new = ~torch.isin(target, known.to(target.device))
        if not self.labels or not bool(new.any()):
            return {}
        if bool(new.all()):
            return {self.name: "training has no sample of any class of validation"}
        classes, share = len(target[new].unique()), 1 - new.double().mean().item()
        part = f"{self.name}, {classes} of {len(target.unique())} classes"
        return {part: f"training has no sample of them; the others are {share:.3f} of the validation samples"}

    def _measurable(self, predicted: Tensor, target: Tensor) -> Iterator[tuple[str, Metrics, Tensor, Tensor]]:
        """(name, metrics, predictions, targets) of each part and size whose target varies, or of everything as one."""
        for name, metrics, place in self._places():
            y = target if self.classes else target[place]
            if self.classes or bool(varying(y).any()):
                yield name, metrics, predicted[place], y

    def _targets(self, target: Tensor) -> Iterator[tuple[str, Metrics, Tensor]]:
        """(name, metrics, targets) of each part and size, or of everything as one."""
        for name, metrics, place in self._places():
            yield name, metrics, target if self.classes else target[place]

    def _places(self) -> Iterator[tuple[str, Metrics, Any]]:
        """(name, metrics, index of its numbers) in outputs [n, D] or [n, K, D]."""
        for name, own, metrics in self.parts or ((self.name, slice(None), self.metrics),):
            if not self.sizes:
                yield name, metrics, (..., own)
            for k, m in enumerate(self.sizes):
                yield f"{name}.{m}", metrics, (slice(None), k, own)


Found = Iterator["ProbeTask | tuple[str, str]"]
"""Tasks, and (name, reason) of those that make no sense."""


def classification(
    name: str,
    inputs: Inputs,
    classes: int,
    epochs: int,
    *,
    views: int = 1,
    sizes: tuple[int, ...] = (),
    draws: int | None = None,
    labels: bool = True,
) -> ProbeTask:
    """A linear classifier, or one for each size; top-1. labels: of the set's classes."""
    head = partial(build_head, outputs=classes)
    return ProbeTask(name, inputs, views, head, cross_entropy, (TOP1,), epochs, classes, sizes, draws, labels=labels)


def regression(
    name: str,
    inputs: Inputs,
    views: int,
    outputs: int,
    epochs: int,
    *,
    deep: bool,
    standardise: bool = False,
    degrees: bool = False,
    sizes: tuple[int, ...] = (),
    draws: int | None = None,
    whole: tuple[int, ...] = (),
) -> ProbeTask:
    """A linear regressor, or an MLP (`deep`), or one for each size; R² over the dimensions of the target that vary.

    R² is in both definitions, of sizes the average over dimensions alone. degrees: targets are quaternions, whose
    geodesic error is measured too, mean and median. standardise: of a linear regressor, see `from_mean`. whole: which
    dimensions are one, as r2_avg has it.
    """
    head = partial(build_head, outputs=outputs, deep=deep, standardise=standardise)
    r2 = (r2_over("{name}", whole),) if sizes else (r2_over("{name}_avg", whole), R2_POOL)
    metrics = (*r2, *(in_degrees(lambda predicted, target: geodesic_deg(target, predicted)) if degrees else ()))
    return ProbeTask(name, inputs, views, head, squared_error, metrics, epochs, 0, sizes, draws)


@dataclass(frozen=True)
class Bench:
    """Where probes are trained: features of both splits, the device, the seed that fixes draws, heads and row order.

    val_draws  fixed draws of views under which the validation set is seen; scores are over all of them together
    blind      whether numbers are held against those of a head that is shown no view
    heads      what was fitted here, by the task's name, for studies that show it to other features
    """

    train: Features
    val: Features
    device: torch.device
    seed: int
    val_draws: int = 1
    blind: bool = False
    heads: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def resampling(self) -> Resampling:
        """Of the objects of the validation samples, for intervals."""
        return Resampling.over(self.val.objects, self.seed, self.device)

    def columns(self, columns: slice) -> Bench:
        """The same with some columns of z alone: one half, of methods that have halves (SIE)."""
        return replace(self, train=self.train.columns(columns), val=self.val.columns(columns))


class Scores(NamedTuple):
    """What probes gave, by dotted key in results.json ("r2_path.both.3").

    last        after the last epoch;  best: the best of ten checks on the way;  intervals: of `last`, 95 %
    skipped     why a number is missing, or what was left out of it
    blind       the same numbers of a head that is shown no view, where they were asked for
    confusions  of top-1: int64 [C, C], true classes by predicted ones, over all validation draws
    """

    last: Mapping[str, float] = {}
    best: Mapping[str, float] = {}
    intervals: Mapping[str, list[float]] = {}
    skipped: Mapping[str, str] = {}
    blind: Mapping[str, float] = {}
    confusions: Mapping[str, np.ndarray] = {}

    def named(self, pattern: str) -> Scores:
        """The same under other keys: "halves.invariant.{}"."""
        return Scores._make({pattern.format(key): value for key, value in part.items()} for part in self)

    def joined(self, other: Scores) -> Scores:
        """Both; of a number that both have, the other's."""
        return Scores._make({**mine, **others} for mine, others in zip(self, other, strict=True))


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """{"r2_path.both.3": x} → {"r2_path": {"both": {"3": x}}}."""
    return reduce(merge_tables, (table_of(key, value) for key, value in numbers.items()), {})
