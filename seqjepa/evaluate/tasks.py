"""Which probes there are for a run and a shard set, and why others are missing (paper §3.3, §A.2, §B.9).

First what probes are shown and should say: each of these functions (or the one that it returns) is of type Inputs, and
turns features and one draw of slots int64 [S, V] into a Gather, rows → (inputs, targets). Then the list.

Letters: b rows, D width of z, W width of z_AGG, E width of an embedded action, K sizes M.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from seqjepa.config import EvalConfig
from seqjepa.data.actions import (
    POSITION_TARGET,
    ActionTarget,
    absolute_rotations,
    columns,
    is_augmentation,
    path_of,
    rotation_term,
)
from seqjepa.data.sequence import KindOfViews
from seqjepa.evaluate.capabilities import Capabilities
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.probes import Gather, Inputs, ProbeTask, classification, regression
from seqjepa.methods.base import Aggregating
from shards.schema import ActionSpec, ActionTerm

ABLATIONS = {"both": (True, True), "no_action": (True, False), "no_vision": (False, True)}
"""Path integration: (vision, acting) by name."""
OF_VIEW: dict[KindOfViews, str] = {
    "stored views": "top1_z",
    "patches": "top1_z_patch",
    "augmentations": "top1_z_view",
}
"""By what a view is: the name of top-1 on z of one."""


def gather_z(features: Features, slots: np.ndarray, targets: Tensor, flat: bool = True) -> Gather:
    """z of the drawn slots, float32 [b, V, D], or [b, V · D] if flat."""
    chosen = torch.from_numpy(slots).to(features.z.device)

    def gather(rows: Tensor) -> tuple[Tensor, Tensor]:
        at = rows.to(features.z.device)
        z = features.z[at[:, None], chosen[at]].to(rows.device).float()
        return z.flatten(1) if flat else z, targets[at].to(rows.device)

    return gather


def label_of_view(features: Features, slots: np.ndarray) -> Gather:
    """z of one view [b, D] → class (paper §3.3)."""
    return gather_z(features, slots[:, :1], features.labels)


def label_of_image(features: Features, slots: np.ndarray) -> Gather:
    """z of the whole image [b, D] → class (docs/fidelity.md #40); no draw plays a part."""
    z, labels = features.z_image, features.labels
    assert z is not None, "asked for only where there are whole images"
    return lambda rows: (z[rows.to(z.device)].to(rows.device).float(), labels[rows.to(labels.device)].to(rows.device))


def rotation_of_view(term: ActionTerm) -> Inputs:
    """z of one view [b, D] → its absolute rotation, quaternion (x, y, z, w), by the columns of a term."""

    def inputs(features: Features, slots: np.ndarray) -> Gather:
        params = features.params_of(slots[:, :1])[:, 0]
        rotations = absolute_rotations(params[:, columns(features.param_names, term.columns)], term)
        return gather_z(features, slots[:, :1], features.on_device(rotations))

    return inputs


def action_between(action: ActionSpec) -> Inputs:
    """[z1; z2] [b, 2 D] → the action that takes the first view to the second (paper §A.1): a rotation in the object's
    frame, a difference of two positions, hues in (−1, 1) and not circular (Table 7), or what the set declares."""
    return lambda features, slots: gather_z(features, slots[:, :2], features.actions(slots[:, :2], action)[:, 0])


def augmentation_between(action: ActionSpec, *, whole_draw: bool) -> Inputs:
    """[z1; z2] [b, 2 D] → how the second view's parameters differ from the first's (paper §A.2).

    The pair is what a draw of two views would be: the first observation view, and the target view, which is the last
    slot of a draw. whole_draw: the released pair for seq-JEPA, the first two of all V views, with targets that are
    normalised over all of them.
    """

    def inputs(features: Features, slots: np.ndarray) -> Gather:
        views = slots if whole_draw else slots[:, [0, -1]]
        return gather_z(features, views[:, :2], features.actions(views, action)[:, 0])

    return inputs


def _of_prefixes(
    gather: Gather, sizes: Sequence[int], represent: Callable[[Tensor, Tensor, int], Tensor], actions: Tensor
) -> Gather:
    """represent(z [b, V, D], actions [b, V', A], M) → [b, W] of each of K sizes M, stacked: [b, K, W]."""

    @torch.no_grad()
    def prefixes(rows: Tensor) -> tuple[Tensor, Tensor]:
        z, targets = gather(rows)
        a = actions[rows.to(actions.device)].to(rows.device)
        return torch.stack([represent(z, a, m).float() for m in sizes], dim=1), targets

    return prefixes


def label_of_prefixes(method: Aggregating, action: ActionSpec, sizes: Sequence[int]) -> Inputs:
    """z_AGG [b, K, W] of the first M views for each of K sizes M, prefixes of one draw → class (docs/fidelity.md #39).

    The actions a_1 … a_{M−1} run between successive views of the prefix; the last view's slot is zero. The view after
    the prefix and the action towards it play no part in z_AGG, so M views are enough.
    """

    def aggregate(z: Tensor, a: Tensor, m: int) -> Tensor:
        return method.aggregate(z[:, :m], a[:, : m - 1])

    def inputs(features: Features, slots: np.ndarray) -> Gather:
        gather = gather_z(features, slots[:, : max(sizes)], features.labels, flat=False)
        return _of_prefixes(gather, sizes, aggregate, features.actions(slots, action))

    return inputs


def label_of_means(sizes: Sequence[int]) -> Inputs:
    """Mean z [b, K, D] of the first M views for each of the K sizes M → class: for methods without aggregate."""

    def inputs(features: Features, slots: np.ndarray) -> Gather:
        gather = gather_z(features, slots[:, : max(sizes)], features.labels, flat=False)
        return _of_prefixes(gather, sizes, lambda z, _, m: z[:, :m].mean(dim=1), torch.zeros(len(features), 0))

    return inputs


def path_of_prefixes(
    method: Aggregating, action: ActionSpec, way: ActionSpec, sizes: Sequence[int], *, vision: bool, acting: bool
) -> Inputs:
    """[z_AGG; e_M] [b, K, W + E] after M views for each of the K sizes M → the whole way [b, K, A'], from the first
    view to the one after the prefix (path integration, paper §B.9).

    action  what the method is given;  way  its terms that add up along a path, in which the way is measured
    vision=False: every z is 0; acting=False: every embedded action is 0, e_M too.
    """

    def path(z: Tensor, a: Tensor, m: int) -> Tensor:
        return method.path_features(z[:, :m], a[:, :m], vision=vision, action=acting)

    def inputs(features: Features, slots: np.ndarray) -> Gather:
        longest = slots[:, : max(sizes) + 1]
        ways = torch.stack([features.actions(longest[:, [0, m]], way)[:, 0] for m in sizes], dim=1)
        gather = gather_z(features, longest, ways, flat=False)
        return _of_prefixes(gather, sizes, path, features.actions(longest, action))

    return inputs


Found = Iterator[ProbeTask | tuple[str, str]]
"""Tasks, and (name, reason) of those that make no sense here."""


def tasks_for(can: Capabilities, config: EvalConfig) -> tuple[list[ProbeTask], dict[str, str]]:
    """The probes that make sense, and for each that does not, why."""
    possible: list[ProbeTask] = []
    skipped: dict[str, str] = {}
    for found in (*_accuracy(can, config), *_regression(can, config), *_path(can, config)):
        if isinstance(found, ProbeTask) and found.views > can.most_views:
            found = (found.name, _too_few(found.views, can))
        if isinstance(found, ProbeTask):
            possible.append(found)
        else:
            skipped[found[0]] = found[1]
    return possible, skipped


def _accuracy(can: Capabilities, config: EvalConfig) -> Found:
    of_view = OF_VIEW[can.seen]
    if not can.labelled:
        yield from ((name, "samples without a label") for name in (of_view, "top1_agg"))
        return
    if can.seen != "stored views":
        yield classification("top1_z_image", label_of_image, can.classes, config.epochs)
    yield classification(of_view, label_of_view, can.classes, config.epochs)
    if isinstance(can.method, Aggregating):
        name, draws = "top1_agg", config.aggregate_draws
    elif can.seen == "patches":
        yield "top1_agg", "the method has no aggregate; top1_z_mean stands for it"
        name, draws = "top1_z_mean", None
    else:
        yield "top1_agg", "the method has no aggregate"
        return
    sizes = tuple(m for m in config.m_val if m <= can.most_context)
    yield from ((f"{name}.{m}", _too_few(m + can.augmented, can)) for m in config.m_val if m not in sizes)
    if sizes and isinstance(can.method, Aggregating):
        shown = label_of_prefixes(can.method, can.action, sizes)
        # Released actions of augmentations depend on how many views were drawn: always the whole draw.
        views = can.most_views if can.augmented else max(sizes)
        yield classification(name, shown, can.classes, config.epochs, views=views, sizes=sizes, draws=draws)
    elif sizes:
        shown = label_of_means(sizes)
        yield classification(name, shown, can.classes, config.epochs, views=max(sizes), sizes=sizes, draws=draws)


def _regression(can: Capabilities, config: EvalConfig) -> Found:
    if can.augmented and can.maps and not can.patches:
        yield "r2_position", "the images are smaller than patches of 32 px: --patch N"
    for target in can.targets:
        needed = target.spec.columns
        if absent := [name for name in needed if name not in can.param_names]:
            yield f"r2_{target.key}", f"the shards have no {', '.join(absent)}"
        elif is_augmentation(target.spec) and set(needed) <= set(can.constant):
            yield f"r2_{target.key}", "constant: the same in all views"
        else:
            yield _reading(target, can, config)


def _reading(target: ActionTarget, can: Capabilities, config: EvalConfig) -> ProbeTask:
    """The probe that reads `target` from z of two views, or of one."""
    views, width = 2, target.spec.size
    if target.absolute:
        (term,) = target.spec.terms
        inputs, views, width = rotation_of_view(term), 1, 4
    elif is_augmentation(target.spec):
        whole_draw = can.author and isinstance(can.method, Aggregating)
        inputs, views = augmentation_between(target.spec, whole_draw=whole_draw), can.most_views
    else:
        inputs = action_between(target.spec)
    epochs = config.epochs if target.deep else config.linear_regressor_epochs
    standardise = config.standardise and not target.deep
    return regression(
        f"r2_{target.key}", inputs, views, width, epochs,
        deep=target.deep, standardise=standardise, degrees=bool(target.angle),
    )  # fmt: skip


def position(config: EvalConfig) -> ProbeTask:
    """How far the second of two patches lies from the first, from z of both, whatever the run was trained on."""
    between, epochs = action_between(POSITION_TARGET.spec), config.linear_regressor_epochs
    return regression("r2_position", between, 2, 2, epochs, deep=False, standardise=config.standardise)


def _path(can: Capabilities, config: EvalConfig) -> Found:
    way, method = path_of(can.action), can.method
    if not way.terms or not isinstance(method, Aggregating):
        return
    if can.no_path:
        yield "r2_path", can.no_path
        return
    sizes = tuple(m for m in config.path_sizes if m < can.most_views)
    yield from ((f"r2_path.{m}", _too_few(m + 1, can)) for m in config.path_sizes if m not in sizes)
    if not sizes:
        return
    deep = rotation_term(way) is not None
    epochs = config.epochs if deep else config.linear_regressor_epochs
    for name, (vision, acting) in ABLATIONS.items():
        shown = path_of_prefixes(method, can.action, way, sizes, vision=vision, acting=acting)
        yield regression(
            f"r2_path.{name}", shown, max(sizes) + 1, way.size, epochs, deep=deep,
            standardise=config.standardise and not deep, sizes=sizes, draws=min(config.aggregate_draws, epochs),
        )  # fmt: skip


def _too_few(needed: int, can: Capabilities) -> str:
    return f"needs {needed} views, a sample has {can.most_views}"
