"""Which numbers there are for a run and a shard set, and why others are missing (paper §3.3, §A.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from seqjepa.data.actions import AUGMENTATION_COLUMNS, AUGMENTATION_PARTS, HUE_COLUMNS, ROTATION_COLUMNS, action_size
from seqjepa.evaluate import inputs
from seqjepa.evaluate.measure import Measure, accuracy, accuracy_by_size, regression, regression_by_size
from seqjepa.methods.base import Aggregating, Method

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
class Subject:
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


def battery_for(subject: Subject, m_val: Sequence[int], lengths: Lengths) -> tuple[list[Measure], dict[str, str]]:
    """The measures that can be taken, and for each that cannot, why."""
    possible: list[Measure] = []
    skipped: dict[str, str] = {}
    for part in (_accuracy, _regression, _path):
        for found in part(subject, m_val, lengths):
            if isinstance(found, Measure) and found.views > subject.most_views:
                found = (found.name, _too_few(found.views, subject))
            if isinstance(found, Measure):
                possible.append(found)
            else:
                skipped[found[0]] = found[1]
    return possible, skipped


Found = Iterator[Measure | tuple[str, str]]
"""Measures, and (name, reason) of those that make no sense here."""


def _accuracy(subject: Subject, m_val: Sequence[int], lengths: Lengths) -> Found:
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


def _regression(subject: Subject, m_val: Sequence[int], lengths: Lengths) -> Found:
    if subject.augmented:
        yield from _augmentation(subject, lengths)
    elif subject.action == "position":
        yield position(subject, lengths)
    else:
        yield from _rotation(subject, lengths)


def position(subject: Subject, lengths: Lengths) -> Measure:
    """How far the second of two patches lies from the first, from z of both, whatever the run was trained on."""
    between, epochs = inputs.action_between("position"), lengths.linear_regressor
    return regression("r2_position", between, 2, 2, epochs, deep=False, standardise=subject.standardise)


def _augmentation(subject: Subject, lengths: Lengths) -> Found:
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


def _rotation(subject: Subject, lengths: Lengths) -> Found:
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


def _path(subject: Subject, m_val: Sequence[int], lengths: Lengths) -> Found:
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


def _missing(subject: Subject, fields: tuple[str, ...]) -> str | None:
    absent = [name for name in fields if name not in subject.param_names]
    return f"the shards have no {', '.join(absent)}" if absent else None


def _too_few(needed: int, subject: Subject) -> str:
    return f"needs {needed} views, a sample has {subject.most_views}"
