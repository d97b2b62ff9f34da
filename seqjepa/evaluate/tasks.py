"""A measure: one probe and the numbers that it gives. The kinds of it that the battery is made of.

n validation rows, K sizes M (prefixes of M views, each with a head of its own), D width of a target, C classes.

Which numbers there are for a run and a shard set, and why others are missing (paper §3.3, §A.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from seqjepa.data.actions import AUGMENTATION_COLUMNS, AUGMENTATION_PARTS, HUE_COLUMNS, ROTATION_COLUMNS, action_size
from seqjepa.evaluate import inputs
from seqjepa.evaluate.bootstrap import Averaged, averaged_mean, averaged_r2_avg, averaged_r2_pool
from seqjepa.evaluate.heads import (
    Loss,
    StackedLinear,
    Standardise,
    cross_entropy,
    from_mean,
    mlp,
    squared_error,
    stacked_mlp,
)
from seqjepa.evaluate.inputs import Inputs
from seqjepa.evaluate.metrics import confusion, geodesic_deg, r2_avg, r2_pool, top1, varying
from seqjepa.methods.base import Aggregating, Method

Numbers = dict[str, float]
CONSTANT = "constant: the same in all validation samples"
ONE_CLASS = "constant: all validation samples are of one class"


def _none(*_: Tensor) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class ProbeTask:
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
    score: Callable[[Tensor, Tensor], Numbers]
    averaged: Callable[[Tensor, Tensor], dict[str, Averaged]]
    constant: Callable[[Tensor], dict[str, str]]
    confusions: Callable[[Tensor, Tensor], dict[str, Tensor]] = _none
    draws: int | None = None


def accuracy(name: str, inputs: Inputs, classes: int, epochs: int) -> ProbeTask:
    """A linear classifier; top-1."""
    head, score, averaged = partial(_linear, outputs=classes), partial(_top1, name), partial(_hits, name)
    counts = partial(_confusion, name, classes)
    return ProbeTask(name, inputs, 1, head, cross_entropy, epochs, score, averaged, partial(_one_class, name), counts)


def accuracy_by_size(
    name: str, inputs: Inputs, sizes: Sequence[int], views: int, classes: int, epochs: int, draws: int | None
) -> ProbeTask:
    """A linear classifier for each size M; top-1. views: at least the largest size."""
    head, score = partial(_stacked, outputs=classes), partial(_top1_by_size, name, sizes)
    averaged, counts = partial(_hits_by_size, name, sizes), partial(_confusion_by_size, name, sizes, classes)
    return ProbeTask(
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
) -> ProbeTask:
    """A linear regressor, or an MLP; R² in both definitions, over the dimensions of the target that vary.

    angle: of quaternions, the name for their geodesic error in degrees, mean and median.
    standardise: of a linear regressor, see probes.from_mean.
    """
    head = partial(_mlp if deep else _standardised if standardise else _linear, outputs=outputs)
    score, averaged = partial(_r2, name, angle), partial(_squares, name, angle)
    return ProbeTask(name, inputs, views, head, squared_error, epochs, score, averaged, partial(_unvarying, name))


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
) -> ProbeTask:
    """As `regression` for each size M, of a target one view further; R², average over dimensions that vary."""
    head = partial(_stacked_mlp if deep else _stacked_standardised if standardise else _stacked, outputs=outputs)
    score, averaged = partial(_r2_by_size, name, sizes), partial(_squares_by_size, name, sizes)
    constant = partial(_unvarying_by_size, name, sizes)
    return ProbeTask(name, inputs, max(sizes) + 1, head, squared_error, epochs, score, averaged, constant, draws=draws)


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


def _top1(name: str, logits: Tensor, labels: Tensor) -> Numbers:
    return {name: top1(logits, labels)}


def _top1_by_size(name: str, sizes: Sequence[int], logits: Tensor, labels: Tensor) -> Numbers:
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


def _r2(name: str, angle: str, predicted: Tensor, target: Tensor) -> Numbers:
    y, found = _that_vary(target, predicted)
    scores = {f"{name}_avg": r2_avg(y, found), f"{name}_pool": r2_pool(y, found)}
    if angle:
        degrees = geodesic_deg(target, predicted)
        scores |= {angle: degrees.mean().item(), f"{angle}_median": degrees.median().item()}
    return scores


def _r2_by_size(name: str, sizes: Sequence[int], predicted: Tensor, target: Tensor) -> Numbers:
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


PAPER_EPOCHS = 300
PAPER_EPOCHS_LINEAR_REGRESSOR = 50
LONGEST_PATH = 7
WAY = {"position": "position", "rotation": "rotation", "rotation_colour": "rotation"}
"""By the kind of action that a method was given: the kind in which the way between two views is measured."""
ABLATIONS = {"both": (True, True), "no_action": (True, False), "no_vision": (False, True)}
"""Path integration: (vision, acting) by name."""
Seen = Literal["stored views", "patches", "augmentations"]
OF_VIEW: dict[Seen, str] = {
    "stored views": "top1_z",
    "patches": "top1_z_patch",
    "augmentations": "top1_z_view",
}
"""By what a view is: the name of top-1 on z of one."""
AUGMENTATIONS = {"crop": True, "jitter": True, "blur": False}
"""Parts of an augmentation that are read from a pair of views: whether by an MLP (paper §A.2)."""


@dataclass(frozen=True)
class Capabilities:
    """What decides which measures make sense: the splits at hand and the method.

    most_views  the longest sequence that every sample can give
    seen        what views are; of patches and augmentations the banks also hold z of the images that they are made of
    maps        the set has saliency maps
    constant    parameters that are the same in all views
    author      fidelity: which pairs of augmented views are compared, see inputs.augmentation_between
    no_path     why not to integrate paths where it could be done; empty: do
    patches     position R² is read from patches that stand beside the augmented images, see `position`
    standardise  linear regressors see standardised features, see probes.from_mean
    """

    method: Method
    action: str
    classes: int
    param_names: tuple[str, ...]
    most_views: int
    labelled: bool
    seen: Seen = "stored views"
    maps: bool = False
    constant: tuple[str, ...] = ()
    author: bool = False
    no_path: str = ""
    standardise: bool = False
    patches: bool = False

    @property
    def augmented(self) -> bool:
        """Whether views are augmented images, made here or baked: then the last view of a sequence is the target."""
        return set(AUGMENTATION_COLUMNS) <= set(self.param_names)

    @property
    def most_context(self) -> int:
        """The most views that a z_AGG can be of: the target view of augmentations plays no part in it."""
        return self.most_views - self.augmented


@dataclass(frozen=True)
class Lengths:
    """How long probes learn: epochs (the paper's 300), and draws (as in Measure) of what costs a forward pass."""

    epochs: int
    draws: int

    @property
    def linear_regressor(self) -> int:
        """Epochs of the linear regressors, in the paper's proportion to the others' (50 to 300)."""
        return max(1, round(self.epochs * PAPER_EPOCHS_LINEAR_REGRESSOR / PAPER_EPOCHS))


def path_sizes(m_val: Sequence[int]) -> list[int]:
    """The sizes for which paths are integrated: up to 7, as in Figure 6."""
    return [m for m in m_val if m <= LONGEST_PATH]


def views_wanted(m_val: Sequence[int]) -> int:
    """The longest sequence that a measure needs: M_val views, M + 1 for paths, 2 for pairs."""
    return max(2, *m_val, *(m + 1 for m in path_sizes(m_val)))


def augmented_views_wanted(m_val: Sequence[int]) -> int:
    """The views of a draw of augmentations: M_val of the observation pipeline, and one of the target pipeline."""
    return max(m_val) + 1


def tasks_for(subject: Capabilities, m_val: Sequence[int], lengths: Lengths) -> tuple[list[ProbeTask], dict[str, str]]:
    """The measures that can be taken, and for each that cannot, why."""
    possible: list[ProbeTask] = []
    skipped: dict[str, str] = {}
    for part in (_accuracy, _regression, _path):
        for found in part(subject, m_val, lengths):
            if isinstance(found, ProbeTask) and found.views > subject.most_views:
                found = (found.name, _too_few(found.views, subject))
            if isinstance(found, ProbeTask):
                possible.append(found)
            else:
                skipped[found[0]] = found[1]
    return possible, skipped


Found = Iterator[ProbeTask | tuple[str, str]]
"""Measures, and (name, reason) of those that make no sense here."""


def _accuracy(subject: Capabilities, m_val: Sequence[int], lengths: Lengths) -> Found:
    of_view = OF_VIEW[subject.seen]
    if not subject.labelled:
        yield from ((name, "samples without a label") for name in (of_view, "top1_agg"))
        return
    if subject.seen != "stored views":
        yield accuracy("top1_z_image", inputs.label_of_image, subject.classes, lengths.epochs)
    yield accuracy(of_view, inputs.label_of_view, subject.classes, lengths.epochs)
    if isinstance(subject.method, Aggregating):
        name, draws = "top1_agg", lengths.draws
    elif subject.seen == "patches":
        yield "top1_agg", "the method has no aggregate; top1_z_mean stands for it"
        name, draws = "top1_z_mean", None
    else:
        yield "top1_agg", "the method has no aggregate"
        return
    sizes = [m for m in m_val if m <= subject.most_context]
    yield from ((f"{name}.{m}", _too_few(m + subject.augmented, subject)) for m in m_val if m not in sizes)
    if sizes and isinstance(subject.method, Aggregating):
        shown = inputs.label_of_prefixes(subject.method, subject.action, sizes)
        # Released actions of augmentations depend on how many views were drawn: always the whole draw.
        views = subject.most_views if subject.augmented else max(sizes)
        yield accuracy_by_size(name, shown, sizes, views, subject.classes, lengths.epochs, draws)
    elif sizes:
        shown = inputs.label_of_means(sizes)
        yield accuracy_by_size(name, shown, sizes, max(sizes), subject.classes, lengths.epochs, draws)


def _regression(subject: Capabilities, m_val: Sequence[int], lengths: Lengths) -> Found:
    if subject.augmented:
        yield from _augmentation(subject, lengths)
    elif subject.action == "position":
        yield position(subject, lengths)
    else:
        yield from _rotation(subject, lengths)


def position(subject: Capabilities, lengths: Lengths) -> ProbeTask:
    """How far the second of two patches lies from the first, from z of both, whatever the run was trained on."""
    between, epochs = inputs.action_between("position"), lengths.linear_regressor
    return regression("r2_position", between, 2, 2, epochs, deep=False, standardise=subject.standardise)


def _augmentation(subject: Capabilities, lengths: Lengths) -> Found:
    if subject.maps and not subject.patches:
        yield "r2_position", "the images are smaller than patches of 32 px: --patch N"
    whole_draw = subject.author and isinstance(subject.method, Aggregating)
    for part, deep in AUGMENTATIONS.items():
        if set(AUGMENTATION_COLUMNS[AUGMENTATION_PARTS[part]]) <= set(subject.constant):
            yield f"r2_{part}", "constant: the same in all views"
            continue
        between = inputs.augmentation_between(part, whole_draw=whole_draw)
        epochs = lengths.epochs if deep else lengths.linear_regressor
        views, width, standardise = subject.most_views, action_size(part), subject.standardise
        yield regression(f"r2_{part}", between, views, width, epochs, deep=deep, standardise=standardise)


def _rotation(subject: Capabilities, lengths: Lengths) -> Found:
    deep, flat = lengths.epochs, lengths.linear_regressor
    if absent := _missing(subject, ROTATION_COLUMNS):
        yield from (("r2_rel_rot", absent), ("r2_indiv_rot", absent))
    else:
        between = inputs.action_between("rotation")
        yield regression("r2_rel_rot", between, 2, 4, deep, deep=True, angle="rel_rot_deg")
        yield regression("r2_indiv_rot", inputs.rotation_of_view, 1, 4, deep, deep=True, angle="indiv_rot_deg")
    if absent := _missing(subject, HUE_COLUMNS):
        yield "r2_hue", absent
    else:
        yield regression("r2_hue", inputs.hue_between, 2, 2, flat, deep=False, standardise=subject.standardise)


def _path(subject: Capabilities, m_val: Sequence[int], lengths: Lengths) -> Found:
    way = WAY.get(subject.action)
    if way is None or not isinstance(subject.method, Aggregating):
        return
    if subject.no_path:
        yield "r2_path", subject.no_path
        return
    sizes = [m for m in path_sizes(m_val) if m < subject.most_views]
    yield from ((f"r2_path.{m}", _too_few(m + 1, subject)) for m in path_sizes(m_val) if m not in sizes)
    deep = way == "rotation"
    epochs = lengths.epochs if deep else lengths.linear_regressor
    for name, (vision, acting) in ABLATIONS.items():
        if sizes:
            shown = inputs.path_of_prefixes(subject.method, subject.action, way, sizes, vision=vision, acting=acting)
            yield regression_by_size(
                f"r2_path.{name}", shown, sizes, action_size(way), epochs, min(lengths.draws, epochs),
                deep=deep, standardise=subject.standardise,
            )  # fmt: skip


def _missing(subject: Capabilities, fields: tuple[str, ...]) -> str | None:
    absent = [name for name in fields if name not in subject.param_names]
    return f"the shards have no {', '.join(absent)}" if absent else None


def _too_few(needed: int, subject: Capabilities) -> str:
    return f"needs {needed} views, a sample has {subject.most_views}"
