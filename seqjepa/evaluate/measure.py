"""A measure: one probe and the numbers that it gives. The kinds of it that the battery is made of.

n validation rows, K sizes M (prefixes of M views, each with a head of its own), D width of a target, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from seqjepa.evaluate.inputs import Inputs
from seqjepa.evaluate.intervals import Averaged, averaged_mean, averaged_r2_avg, averaged_r2_pool
from seqjepa.evaluate.metrics import confusion, geodesic_deg, r2_avg, r2_pool, top1, varying
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
CONSTANT = "constant: the same in all validation samples"
ONE_CLASS = "constant: all validation samples are of one class"


def _none(*_: Tensor) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Measure:
    """One probe.

    views   how many views of a sample it needs
    head    builds the head from examples of training inputs and targets [e, …]; e ≥ 2 where it standardises
    score   (predictions, targets) over the whole validation set → numbers by name, as in results.json with a dot for
            each level
    averaged  likewise → those of the numbers that have an interval, as functions of means over rows
    constant  targets of the whole validation set → why a number is missing or what is left out of it, by its name;
              under the measure's own name where there is nothing to measure
    confusions  (logits, labels) → int64 [C, C] for each top-1
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
    constant: Callable[[Tensor], dict[str, str]]
    confusions: Callable[[Tensor, Tensor], dict[str, Tensor]] = _none
    draws: int | None = None


def accuracy(name: str, inputs: Inputs, classes: int, epochs: int) -> Measure:
    """A linear classifier; top-1."""
    head, score, averaged = partial(_linear, outputs=classes), partial(_top1, name), partial(_hits, name)
    counts = partial(_confusion, name, classes)
    return Measure(name, inputs, 1, head, cross_entropy, epochs, score, averaged, partial(_one_class, name), counts)


def accuracy_by_size(
    name: str, inputs: Inputs, sizes: Sequence[int], views: int, classes: int, epochs: int, draws: int | None
) -> Measure:
    """A linear classifier for each size M; top-1. views: at least the largest size."""
    head, score = partial(_stacked, outputs=classes), partial(_top1_by_size, name, sizes)
    averaged, counts = partial(_hits_by_size, name, sizes), partial(_confusion_by_size, name, sizes, classes)
    return Measure(
        name, inputs, views, head, cross_entropy, epochs, score, averaged, partial(_one_class, name), counts, draws
    )


def regression(
    name: str,
    inputs: Inputs,
    views: int,
    outputs: int,
    epochs: int,
    *,
    deep: bool,
    angle: str = "",
    standardise: bool = False,
) -> Measure:
    """A linear regressor, or an MLP; R² in both definitions, over the dimensions of the target that vary.

    angle: of quaternions, the name for their geodesic error in degrees, mean and median.
    standardise: of a linear regressor, see probes.from_mean.
    """
    head = partial(_mlp if deep else _standardised if standardise else _linear, outputs=outputs)
    score, averaged = partial(_r2, name, angle), partial(_squares, name, angle)
    return Measure(name, inputs, views, head, squared_error, epochs, score, averaged, partial(_unvarying, name))


def regression_by_size(
    name: str,
    inputs: Inputs,
    sizes: Sequence[int],
    outputs: int,
    epochs: int,
    draws: int | None,
    *,
    deep: bool,
    standardise: bool = False,
) -> Measure:
    """As `regression` for each size M, of a target one view further; R², average over dimensions that vary."""
    head = partial(_stacked_mlp if deep else _stacked_standardised if standardise else _stacked, outputs=outputs)
    score, averaged = partial(_r2_by_size, name, sizes), partial(_squares_by_size, name, sizes)
    constant = partial(_unvarying_by_size, name, sizes)
    return Measure(name, inputs, max(sizes) + 1, head, squared_error, epochs, score, averaged, constant, draws=draws)


def _linear(examples: Tensor, _: Tensor, outputs: int) -> nn.Linear:
    return nn.Linear(examples.shape[-1], outputs)


def _stacked(examples: Tensor, _: Tensor, outputs: int) -> StackedLinear:
    return StackedLinear(examples.shape[1], examples.shape[-1], outputs)


def _standardised(examples: Tensor, targets: Tensor, outputs: int) -> nn.Module:
    return from_mean(Standardise(examples), _linear(examples, targets, outputs), targets.mean(dim=0))


def _stacked_standardised(examples: Tensor, targets: Tensor, outputs: int) -> nn.Module:
    return from_mean(Standardise(examples), _stacked(examples, targets, outputs), targets.mean(dim=0))


def _mlp(examples: Tensor, _: Tensor, outputs: int) -> nn.Module:
    return mlp(examples.shape[-1], outputs)


def _stacked_mlp(examples: Tensor, _: Tensor, outputs: int) -> nn.Module:
    return stacked_mlp(examples.shape[1], examples.shape[-1], outputs)


def _top1(name: str, logits: Tensor, labels: Tensor) -> Scores:
    return {name: top1(logits, labels)}


def _top1_by_size(name: str, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> Scores:
    return {f"{name}.{m}": top1(logits[:, k], labels) for k, m in enumerate(sizes)}


def _confusion(name: str, classes: int, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {name: confusion(logits, labels, classes)}


def _confusion_by_size(
    name: str, sizes: Sequence[int], classes: int, logits: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    return {f"{name}.{m}": confusion(logits[:, k], labels, classes) for k, m in enumerate(sizes)}


def _one_class(name: str, labels: Tensor) -> dict[str, str]:
    return {name: ONE_CLASS} if bool((labels == labels[0]).all()) else {}


def _unvarying(name: str, target: Tensor) -> dict[str, str]:
    """Targets [n, D]. Of some dimensions alone: "r2_rel_rot, dimension 2"."""
    constant = [str(d + 1) for d, varies in enumerate(varying(target).tolist()) if not varies]
    if len(constant) == target.shape[1]:
        return {name: CONSTANT}
    return {f"{name}, dimension {', '.join(constant)} of {target.shape[1]}": CONSTANT} if constant else {}


def _unvarying_by_size(name: str, sizes: Sequence[int], target: Tensor) -> dict[str, str]:
    """Targets [n, K, D]."""
    found = [_unvarying(f"{name}.{m}", target[:, k]) for k, m in enumerate(sizes)]
    if all(f"{name}.{m}" in reasons for m, reasons in zip(sizes, found, strict=True)):
        return {name: CONSTANT}
    return {key: reason for reasons in found for key, reason in reasons.items()}


def _r2(name: str, angle: str, predicted: Tensor, target: Tensor) -> Scores:
    y, found = _that_vary(target, predicted)
    scores = {f"{name}_avg": r2_avg(y, found), f"{name}_pool": r2_pool(y, found)}
    if angle:
        degrees = geodesic_deg(target, predicted)
        scores |= {angle: degrees.mean().item(), f"{angle}_median": degrees.median().item()}
    return scores


def _r2_by_size(name: str, sizes: Sequence[int], predicted: Tensor, target: Tensor) -> Scores:
    return {f"{name}.{m}": r2_avg(*pair) for m, pair in _pairs(sizes, predicted, target)}


def _hits(name: str, logits: Tensor, labels: Tensor) -> dict[str, Averaged]:
    return {name: averaged_mean(logits.argmax(dim=-1) == labels)}


def _hits_by_size(name: str, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> dict[str, Averaged]:
    right = logits.argmax(dim=-1) == labels[:, None]
    return {f"{name}.{m}": averaged_mean(right[:, k]) for k, m in enumerate(sizes)}


def _squares(name: str, angle: str, predicted: Tensor, target: Tensor) -> dict[str, Averaged]:
    pair = _that_vary(target, predicted)
    averaged = {f"{name}_avg": averaged_r2_avg(*pair), f"{name}_pool": averaged_r2_pool(*pair)}
    return averaged | ({angle: averaged_mean(geodesic_deg(target, predicted))} if angle else {})


def _squares_by_size(name: str, sizes: Sequence[int], predicted: Tensor, target: Tensor) -> dict[str, Averaged]:
    return {f"{name}.{m}": averaged_r2_avg(*pair) for m, pair in _pairs(sizes, predicted, target)}


def _that_vary(target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """The dimensions of both [n, D] in which the target varies."""
    kept = varying(target)
    return target[:, kept], predicted[:, kept]


def _pairs(sizes: Sequence[int], predicted: Tensor, target: Tensor) -> list[tuple[int, tuple[Tensor, Tensor]]]:
    """`_that_vary` of each size M; sizes of which nothing varies are left out. Both tensors [n, K, D]."""
    pairs = [(m, _that_vary(target[:, k], predicted[:, k])) for k, m in enumerate(sizes)]
    return [(m, pair) for m, pair in pairs if pair[0].shape[1]]
