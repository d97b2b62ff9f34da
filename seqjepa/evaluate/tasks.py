"""Which probes there are for a run and a shard set, and why others are missing (paper §3.3, §A.2, §B.9).

The probes of the paper's data come first, then those of data whose actions or columns are declared: what targets.py
lists, read from z and z_AGG. Their linear regressors see standardised features, and all heads are trained as long as
classifiers are: the paper's 50 epochs on features as they are belong to its own data. inputs.py has what probes see.

Letters: n rows, D numbers of an encoded target, K sizes M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seqjepa.config import EvalConfig
from seqjepa.data.actions import (
    POSITION_TARGET,
    ActionTarget,
    is_augmentation,
    path_of,
    rotation_term,
)
from seqjepa.data.sequence import KindOfViews
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather, build_head, squared_error
from seqjepa.evaluate.inputs import (
    action_between,
    action_of,
    aggregates_of_prefixes,
    augmentation_between,
    gather_z,
    label_of_image,
    label_of_means,
    label_of_prefixes,
    label_of_view,
    path_of_prefixes,
    rotation_of_view,
)
from seqjepa.evaluate.metrics import Averaged, geodesic_deg
from seqjepa.evaluate.probes import (
    R2_POOL,
    Found,
    Inputs,
    ProbeMetric,
    ProbeTask,
    classification,
    in_degrees,
    r2_over,
    regression,
)
from seqjepa.evaluate.studies import Capabilities
from seqjepa.evaluate.targets import Target
from seqjepa.methods.base import Aggregating

ABLATIONS = {"both": (True, True), "no_action": (True, False), "no_vision": (False, True)}
"""Path integration: (vision, acting) by name."""
OF_VIEW: dict[KindOfViews, str] = {
    "stored views": "top1_z",
    "patches": "top1_z_patch",
    "augmentations": "top1_z_view",
}
"""By what a view is: the name of top-1 on z of one."""


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
    if can.declared is not None:
        yield from declared_tasks(can, config)
        return
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
    way, declared, method = path_of(can.action), can.way, can.method
    if not way.terms or not isinstance(method, Aggregating):
        return
    if can.no_path:
        yield "r2_path", can.no_path
        return
    sizes = tuple(m for m in config.path_sizes if m < can.most_views)
    yield from ((f"r2_path.{m}", _too_few(m + 1, can)) for m in config.path_sizes if m not in sizes)
    if not sizes:
        return
    # No linear function of angles gives the sine of their sum.
    deep = rotation_term(way) is not None or any(term.op == "angle_difference" for term in way.terms)
    epochs = config.epochs if deep or declared else config.linear_regressor_epochs
    measured, width = (declared.encoded, declared.size) if declared else (action_of(way), way.size)
    for name, (vision, acting) in ABLATIONS.items():
        shown = path_of_prefixes(method, can.action, measured, sizes, vision=vision, acting=acting)
        yield regression(
            f"r2_path.{name}", shown, max(sizes) + 1, width, epochs, deep=deep,
            standardise=(config.standardise or declared is not None) and not deep,
            sizes=sizes, draws=min(config.aggregate_draws, epochs), whole=declared.whole if declared else (),
        )  # fmt: skip


def _too_few(needed: int, can: Capabilities) -> str:
    return f"needs {needed} views, a sample has {can.most_views}"


def declared_tasks(can: Capabilities, config: EvalConfig) -> Found:
    """A probe of each target on z, and of sequences one of all that a single view shows on z_AGG."""
    assert can.declared is not None, "asked for where actions are declared"
    yield from can.declared.unread.items()
    for target in can.declared.targets:
        yield _declared_task(target, config.epochs)
        if len(units := dict.fromkeys(unit for part in target.parts for unit in part.units)) > 1:
            yield f"{target.key}_rmse", f"its columns have different units: {', '.join(units)}"
    if can.ordered and isinstance(can.method, Aggregating):
        yield from _from_aggregates(can, can.method, config)


def _declared_task(target: Target, epochs: int) -> ProbeTask:
    """From [z1; z2] what lies between two views, from z what one view shows."""
    views = 2 if target.between else 1

    def inputs(features: Features, places: np.ndarray) -> Gather:
        return gather_z(features, places[:, :views], target.encoded(features, places[:, :views]))

    if target.values:
        return classification(f"top1_{target.key}", inputs, len(target.values), epochs, views=views, labels=False)
    head = partial(build_head, outputs=target.size, deep=target.deep, standardise=not target.deep)
    return ProbeTask(f"r2_{target.key}", inputs, views, head, squared_error, metrics_of(target), epochs)


def _from_aggregates(can: Capabilities, method: Aggregating, config: EvalConfig) -> Found:
    """What the last of M views shows, from z_AGG of the M: numbers and angles by one linear head, rotations by MLPs."""
    assert can.declared is not None
    sizes = tuple(m for m in config.m_val if m <= can.most_context)
    single = [target for target in can.declared.targets if not (target.between or target.values or target.mlp)]
    groups = [[target for target in single if not target.deep], *([target] for target in single if target.deep)]
    for group in filter(None, groups if sizes else []):
        deep = group[0].deep
        ends = np.cumsum([target.size for target in group])
        parts = tuple(
            (f"r2_{target.key}_agg", slice(int(end) - target.size, int(end)), (r2_over("{name}", target.whole),))
            for target, end in zip(group, ends, strict=True)
        )
        head = partial(build_head, outputs=int(ends[-1]), deep=deep, standardise=not deep)
        yield ProbeTask(
            f"r2_{group[0].key}_agg" if deep else "r2_indiv_agg", _last_view(can, method, group, sizes), max(sizes),
            head, squared_error, (), config.epochs, sizes=sizes, draws=config.aggregate_draws, parts=parts,
        )  # fmt: skip


def _last_view(can: Capabilities, method: Aggregating, group: Sequence[Target], sizes: Sequence[int]) -> Inputs:
    """z_AGG [b, K, W] of M views → what the last of them shows [b, K, D], targets side by side."""

    def shown(features: Features, places: np.ndarray) -> Tensor:
        of_size = ([target.encoded(features, places[:, [m - 1]]) for target in group] for m in sizes)
        return torch.stack([torch.cat(encoded, dim=-1) for encoded in of_size], dim=1)

    return aggregates_of_prefixes(method, can.action, sizes, shown)


def metrics_of(target: Target) -> tuple[ProbeMetric, ...]:
    """R² over numbers, angles and rotations, degrees of the latter two, RMSE in the columns' unit."""
    found: list[ProbeMetric] = [r2_over("{name}_avg", target.whole), R2_POOL]
    for part, own in zip(target.parts, target.slices, strict=True):
        if part.kind == "angles":
            found += in_degrees(partial(angle_errors, own=own))
        elif part.kind in ("quaternion", "6d"):
            found += in_degrees(partial(rotation_errors, own=own), partial(mean_rotation, own=own))
        elif target.unit:
            scale = torch.tensor([target.std[k] for k in part.raw], dtype=torch.float64)
            found.append(_rmse(partial(squared_errors, own=own, scale=scale)))
    return tuple(found)


def _rmse(errors: Callable[[Tensor, Tensor], Tensor]) -> ProbeMetric:
    return ProbeMetric(
        "{target}_rmse",
        lambda p, y: math.sqrt(errors(p, y).mean().item()),
        lambda p, y: Averaged(errors(p, y)[:, None], lambda means: means[:, 0].sqrt()),
    )


def squared_errors(predicted: Tensor, target: Tensor, own: slice, scale: Tensor) -> Tensor:
    """Mean over z-scored columns [n, D] of squared errors in their unit: float64 [n]. scale: their deviations."""
    return ((predicted - target)[:, own].double() * scale.to(target.device)).square().mean(dim=1)


def angle_errors(predicted: Tensor, target: Tensor, own: slice) -> Tensor:
    """Mean over angles, all sines before all cosines, of how far each is off, 0 to 180 degrees: float64 [n]."""
    (sin_p, cos_p), (sin_y, cos_y) = (x[:, own].double().chunk(2, dim=1) for x in (predicted, target))
    off = torch.atan2(sin_p * cos_y - cos_p * sin_y, cos_p * cos_y + sin_p * sin_y)
    return torch.rad2deg(off.abs()).mean(dim=1)


def rotation_errors(predicted: Tensor, target: Tensor, own: slice) -> Tensor:
    """Angle between rotations, quaternions or in 6-D, in degrees: float64 [n]."""
    p, y = predicted[:, own], target[:, own]
    if y.shape[1] == 4:
        return geodesic_deg(y, p)
    apart = (matrices(p) - matrices(y)).flatten(1).norm(dim=1)  # of rotation matrices by θ: √8 sin θ/2
    return torch.rad2deg(2 * torch.asin((apart / math.sqrt(8)).clamp(max=1)))


def mean_rotation(known: Tensor, own: slice) -> Tensor:
    """The rotation nearest to all of `known` [n, D] in the chordal metric, in its place among D numbers."""
    guess = known.double().mean(dim=0)
    rotations = known[:, own].double()
    if rotations.shape[1] == 4:
        guess[own] = torch.linalg.eigh(rotations.T @ rotations)[1][:, -1]
    else:
        u, _, v = torch.linalg.svd(matrices(rotations).mean(dim=0))
        sign = torch.diag(torch.tensor([1, 1, float(torch.linalg.det(u @ v))], dtype=u.dtype, device=u.device))
        guess[own] = (u @ sign @ v)[:, :2].T.flatten()
    return guess


def matrices(six: Tensor) -> Tensor:
    """Two columns of a rotation matrix, one after the other, by Gram and Schmidt: [n, 6] → float64 [n, 3, 3]."""
    first, second = six.double().chunk(2, dim=1)
    x = torch.nn.functional.normalize(first, dim=1)
    y = torch.nn.functional.normalize(second - (x * second).sum(dim=1, keepdim=True) * x, dim=1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=2)
