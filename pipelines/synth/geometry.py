"""Closed-form intersections of many rays with one unit solid, written for speed on plain tensors.

Everything that an intersection needs is linear in a ray's direction d, and d is affine in the pixel position
(u, v). So the rays of a tile are described by a few *fields*, each affine in (u, v): `field_weights` turns the eye's
position in the solid's frame into those linear forms, and the kernels combine the fields' values. The discriminants
are sums over 2×2 minors of (eye, direction), which stay accurate where b² − ac cancels: a thin solid from afar.

Kernels take fields [F, E, R] (E tiles, R rays each) and per-tile eyes o [3, E, 1], and return t [E, R]: eye + t·d is
where the ray enters; ≥ MISS where it does not. They select by arithmetic: masked writes cost 40 multiplications.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pipelines.synth.parts import Kind

MISS = 1e6
FloatOrArray = TypeVar("FloatOrArray", float, np.ndarray)
_PENALTY = 1e12  # a ray that misses by more than 1e-6 of anything lands beyond MISS


def field_weights(kind: Kind, eye: np.ndarray, tip: np.ndarray) -> np.ndarray:
    """Linear forms [..., F, 3] of a direction, given eyes [..., 3] in the solid's frame and a bar's tip [...].

    box: d (3).  ellipsoid: d (3), eye × d (3), eye · d (1).  bar: d (3), three minors (3), the bilinear form (1).
    """
    identity = np.broadcast_to(np.eye(3), (*eye.shape[:-1], 3, 3))
    if kind == "box":
        return identity
    x, y, z = np.moveaxis(eye, -1, 0)
    zero = np.zeros_like(x)
    if kind == "ellipsoid":
        forms = [[zero, -z, y], [z, zero, -x], [-y, x, zero], [x, y, z]]
    else:
        mean, slope = bar_radius(tip)
        radius = mean + slope * z
        forms = [[-radius, zero, slope * x], [zero, -radius, slope * y], [-y, x, zero], [x, y, -radius * slope]]
    extra = np.stack([np.stack(form, axis=-1) for form in forms], axis=-2)
    return np.concatenate([identity, extra], axis=-2)


def bar_radius(tip: FloatOrArray) -> tuple[FloatOrArray, FloatOrArray]:
    """(mean, slope) of a bar's radius: mean + slope·z runs from 1 at z = −1 to `tip` at z = 1."""
    return (1 + tip) / 2, (tip - 1) / 2


def enter_box(fields: Tensor, o: Tensor, tip: float) -> Tensor:
    """Slabs: the last entry before the first exit."""
    inverse = fields.reciprocal()
    middle, reach = inverse * o, inverse.abs_()
    near = middle.neg().sub_(reach)
    far = reach.sub_(middle)
    t = torch.maximum(torch.maximum(near[0], near[1]), near[2])
    out = torch.minimum(torch.minimum(far[0], far[1]), far[2])
    return t.add_(t.sub(out).clamp_(min=0), alpha=_PENALTY)


def enter_ellipsoid(fields: Tensor, o: Tensor, tip: float) -> Tensor:
    """(d·d) t² + 2 (o·d) t + o·o − 1 = 0, whose discriminant is d·d − |o × d|² (Lagrange's identity)."""
    d, m, b = fields[:3], fields[3:6], fields[6]
    a = _square_sum(d)
    discriminant = a - _square_sum(m)
    root = discriminant.clamp(min=0).sqrt_()
    return root.add_(b).neg_().div_(a).sub_(discriminant.clamp_(max=0), alpha=_PENALTY)


def enter_bar(fields: Tensor, o: Tensor, tip: float) -> Tensor:
    """Mantle: x² + y² = r(z)² with |z| ≤ 1; caps: the plane z = ±1 that faces the eye. A ray enters through one.

    Of the mantle's two roots the entering one is (−b − √disc)/a whatever the sign of a: there the form falls
    through 0.
    """
    mean, slope = bar_radius(tip)
    x, y, z = fields[:3]
    minors, b = fields[3:6], fields[6]
    a = (x * x).add_(y * y).sub_((z * z).mul_(slope * slope))
    discriminant = (minors[0] * minors[0]).add_(minors[1] * minors[1]).sub_(minors[2] * minors[2])
    mantle = discriminant.clamp(min=0).sqrt_().add_(b).neg_().div_(a)
    beyond = (mantle * z).add_(o[2]).abs_().sub_(1).clamp_(min=0)
    mantle.add_(beyond.sub_(discriminant.clamp_(max=0)), alpha=_PENALTY)

    face = o[2].sign()
    rim = mean + slope * face
    cap = (face - o[2]) / z
    off_axis = (x * cap).add_(o[0]).square_().add_((y * cap).add_(o[1]).square_())
    outside = off_axis.sub_(rim * rim).clamp_(min=0).add_((1 - o[2].abs()).clamp_(min=0))
    return torch.minimum(mantle, cap.add_(outside, alpha=_PENALTY))


ENTER: dict[Kind, Callable[[Tensor, Tensor, float], Tensor]] = {
    "box": enter_box,
    "ellipsoid": enter_ellipsoid,
    "bar": enter_bar,
}


def gradient(kind: Kind, x: Tensor, y: Tensor, z: Tensor, mean: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outward gradients (not unit) of the unit solid at surface points [N]; mean and slope [N] are a bar's radius."""
    if kind == "ellipsoid":
        return x, y, z
    if kind == "box":
        ax, ay, az = x.abs(), y.abs(), z.abs()
        on_x = ((ax >= ay) & (ax >= az)).to(x.dtype)
        on_y = (ay >= az).to(x.dtype).mul_(1 - on_x)
        return on_x * x.sign(), on_y * y.sign(), (1 - on_x - on_y) * z.sign()
    mantle = (z.abs() < 0.99).to(x.dtype)
    return mantle * x, mantle * y, (1 - mantle) * z.sign() - mantle * (mean + slope * z) * slope


def _square_sum(v: Tensor) -> Tensor:
    return (v[0] * v[0]).add_(v[1] * v[1]).add_(v[2] * v[2])
