"""A measure: one probe and the numbers that it gives. The kinds of it that the battery is made of.

n validation rows, K sizes M (prefixes of M views, each with a head of its own), D width of a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from seqjepa.evaluate.inputs import Inputs
from seqjepa.evaluate.intervals import Averaged, averaged_mean, averaged_r2_avg, averaged_r2_pool
from seqjepa.evaluate.metrics import geodesic_deg, r2_avg, r2_pool, top1
from seqjepa.evaluate.probes import (
    Loss,
    StackedLinear,
    Standardise,
    cross_entropy,
    from_mean,
    mlp,
    squared_error,
    stacked_mlp,
)

Scores = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """One probe.

    views   how many views of a sample it needs
    head    builds the head from examples of training inputs and targets [e, …]; e ≥ 2 where it standardises
    score   (predictions, targets) over the whole validation set → numbers by name, as in results.json with a dot for
            each level
    averaged  likewise → those of the numbers that have an interval, as functions of means over rows
    draws   for inputs that cost a forward pass: how many different training draws there are, cycled over epochs.
            None: a new one every epoch
    """

    name: str
    inputs: Inputs
    views: int
    head: Callable[[Tensor, Tensor], nn.Module]
    loss: Loss
    epochs: int
    score: Callable[[Tensor, Tensor], Scores]
    averaged: Callable[[Tensor, Tensor], dict[str, Averaged]]
    draws: int | None = None


def accuracy(name: str, inputs: Inputs, classes: int, epochs: int) -> Measure:
    """A linear classifier; top-1."""
    head, score, averaged = partial(_linear, outputs=classes), partial(_top1, name), partial(_hits, name)
    return Measure(name, inputs, 1, head, cross_entropy, epochs, score, averaged)


def accuracy_by_size(
    name: str, inputs: Inputs, sizes: Sequence[int], views: int, classes: int, epochs: int, draws: int | None
) -> Measure:
    """A linear classifier for each size M; top-1. views: at least the largest size."""
    head, score = partial(_stacked, outputs=classes), partial(_top1_by_size, name, sizes)
    averaged = partial(_hits_by_size, name, sizes)
    return Measure(name, inputs, views, head, cross_entropy, epochs, score, averaged, draws)


def regression(
    name: str, inputs: Inputs, views: int, outputs: int, epochs: int, *, deep: bool, angle: str = ""
) -> Measure:
    """A linear regressor on standardised features, or an MLP; R² in both definitions.

    angle: of quaternions, the name for their geodesic error in degrees, mean and median.
    """
    head = partial(_mlp if deep else _regressor, outputs=outputs)
    score, averaged = partial(_r2, name, angle), partial(_squares, name, angle)
    return Measure(name, inputs, views, head, squared_error, epochs, score, averaged)


def regression_by_size(
    name: str, inputs: Inputs, sizes: Sequence[int], outputs: int, epochs: int, draws: int | None, *, deep: bool
) -> Measure:
    """As `regression` for each size M, of a target one view further; R², average over dimensions."""
    head = partial(_stacked_mlp if deep else _stacked_regressor, outputs=outputs)
    score, averaged = partial(_r2_by_size, name, sizes), partial(_squares_by_size, name, sizes)
    return Measure(name, inputs, max(sizes) + 1, head, squared_error, epochs, score, averaged, draws)


def _linear(examples: Tensor, _: Tensor, outputs: int) -> nn.Linear:
    return nn.Linear(examples.shape[-1], outputs)


def _stacked(examples: Tensor, _: Tensor, outputs: int) -> StackedLinear:
    return StackedLinear(examples.shape[1], examples.shape[-1], outputs)


def _regressor(examples: Tensor, targets: Tensor, outputs: int) -> nn.Module:
    return from_mean(Standardise(examples), _linear(examples, targets, outputs), targets.mean(dim=0))


def _stacked_regressor(examples: Tensor, targets: Tensor, outputs: int) -> nn.Module:
    return from_mean(Standardise(examples), _stacked(examples, targets, outputs), targets.mean(dim=0))


def _mlp(examples: Tensor, _: Tensor, outputs: int) -> nn.Module:
    return mlp(examples.shape[-1], outputs)


def _stacked_mlp(examples: Tensor, _: Tensor, outputs: int) -> nn.Module:
    return stacked_mlp(examples.shape[1], examples.shape[-1], outputs)


def _top1(name: str, logits: Tensor, labels: Tensor) -> Scores:
    return {name: top1(logits, labels)}


def _top1_by_size(name: str, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> Scores:
    return {f"{name}.{m}": top1(logits[:, k], labels) for k, m in enumerate(sizes)}


def _r2(name: str, angle: str, predicted: Tensor, target: Tensor) -> Scores:
    scores = {f"{name}_avg": r2_avg(target, predicted), f"{name}_pool": r2_pool(target, predicted)}
    if angle:
        degrees = geodesic_deg(target, predicted)
        scores |= {angle: degrees.mean().item(), f"{angle}_median": degrees.median().item()}
    return scores


def _r2_by_size(name: str, sizes: Sequence[int], predicted: Tensor, target: Tensor) -> Scores:
    return {f"{name}.{m}": r2_avg(target[:, k], predicted[:, k]) for k, m in enumerate(sizes)}


def _hits(name: str, logits: Tensor, labels: Tensor) -> dict[str, Averaged]:
    return {name: averaged_mean(logits.argmax(dim=-1) == labels)}


def _hits_by_size(name: str, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> dict[str, Averaged]:
    right = logits.argmax(dim=-1) == labels[:, None]
    return {f"{name}.{m}": averaged_mean(right[:, k]) for k, m in enumerate(sizes)}


def _squares(name: str, angle: str, predicted: Tensor, target: Tensor) -> dict[str, Averaged]:
    averaged = {f"{name}_avg": averaged_r2_avg(target, predicted), f"{name}_pool": averaged_r2_pool(target, predicted)}
    return averaged | ({angle: averaged_mean(geodesic_deg(target, predicted))} if angle else {})


def _squares_by_size(name: str, sizes: Sequence[int], predicted: Tensor, target: Tensor) -> dict[str, Averaged]:
    return {f"{name}.{m}": averaged_r2_avg(target[:, k], predicted[:, k]) for k, m in enumerate(sizes)}
