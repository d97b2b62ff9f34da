"""Probes of actions that are declared, and of columns that no action uses: what targets.py lists, from z and z_AGG.

Linear regressors see standardised features, and all heads are trained as long as classifiers are: the paper's 50 epochs
on features as they are belong to its own data. Letters: n rows, D numbers of an encoded target, K sizes M.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seqjepa.config import EvalConfig
from seqjepa.evaluate.capabilities import Capabilities
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather, build_head, squared_error
from seqjepa.evaluate.inputs import aggregates_of_prefixes, gather_z
from seqjepa.evaluate.metrics import Averaged, averaged_mean, geodesic_deg
from seqjepa.evaluate.probes import (
    R2_AVG,
    R2_OF_SIZE,
    R2_POOL,
    Found,
    Inputs,
    ProbeMetric,
    ProbeTask,
    classification,
)
from seqjepa.evaluate.targets import Target
from seqjepa.methods.base import Aggregating

Errors = Callable[[Tensor, Tensor], Tensor]
"""(predictions, targets) [n, D] → errors float64 [n]."""


def declared_tasks(can: Capabilities, config: EvalConfig) -> Found:
    """A probe of each target on z, and of sequences one of all that a single view shows on z_AGG."""
    assert can.declared is not None, "asked for where actions are declared"
    yield from can.declared.unread.items()
    for target in can.declared.targets:
        yield _reading(target, config.epochs)
        if len(units := dict.fromkeys(unit for part in target.parts for unit in part.units)) > 1:
            yield f"{target.key}_rmse", f"its columns have different units: {', '.join(units)}"
    if can.ordered and isinstance(can.method, Aggregating):
        yield from _from_aggregates(can, can.method, config)


def _reading(target: Target, epochs: int) -> ProbeTask:
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
    single = [target for target in can.declared.targets if not target.between and not target.values]
    groups = [[target for target in single if not target.deep], *([target] for target in single if target.deep)]
    for group in filter(None, groups if sizes else []):
        deep = group[0].deep
        ends = np.cumsum([target.size for target in group])
        parts = tuple(
            (f"r2_{target.key}_agg", slice(int(end) - target.size, int(end)))
            for target, end in zip(group, ends, strict=True)
        )
        head = partial(build_head, outputs=int(ends[-1]), deep=deep, standardise=not deep)
        yield ProbeTask(
            f"r2_{group[0].key}_agg" if deep else "r2_indiv_agg", _last_view(can, method, group, sizes), max(sizes),
            head, squared_error, (R2_OF_SIZE,), config.epochs, sizes=sizes, draws=config.aggregate_draws, parts=parts,
        )  # fmt: skip


def _last_view(can: Capabilities, method: Aggregating, group: Sequence[Target], sizes: Sequence[int]) -> Inputs:
    """z_AGG [b, K, W] of M views → what the last of them shows [b, K, D], targets side by side."""

    def shown(features: Features, places: np.ndarray) -> Tensor:
        of_size = ([target.encoded(features, places[:, [m - 1]]) for target in group] for m in sizes)
        return torch.stack([torch.cat(encoded, dim=-1) for encoded in of_size], dim=1)

    return aggregates_of_prefixes(method, can.action, sizes, shown)


def metrics_of(target: Target) -> tuple[ProbeMetric, ...]:
    """R² over the encoding, degrees of angles and rotations, and the root mean square error in the columns' unit."""
    found: list[ProbeMetric] = [R2_AVG, R2_POOL]
    for part, own in zip(target.parts, target.slices, strict=True):
        if part.kind == "angles":
            found += _degrees(partial(angle_errors, own=own))
        elif part.kind in ("quaternion", "6d"):
            found += _degrees(partial(rotation_errors, own=own), partial(mean_rotation, own=own))
        elif target.unit:
            scale = torch.tensor([target.std[k] for k in part.raw], dtype=torch.float64)
            found.append(_rmse(partial(squared_errors, own=own, scale=scale)))
    return tuple(found)


def _degrees(errors: Errors, constant: Callable[[Tensor], Tensor] | None = None) -> list[ProbeMetric]:
    """Mean and median of errors in degrees [n]."""
    mean = ProbeMetric(
        "{target}_deg", lambda p, y: errors(p, y).mean().item(), lambda p, y: averaged_mean(errors(p, y))
    )
    median = ProbeMetric("{target}_deg_median", lambda p, y: errors(p, y).median().item(), None)
    return [mean, median] if constant is None else [m._replace(constant=constant) for m in (mean, median)]


def _rmse(errors: Errors) -> ProbeMetric:
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
