"""The seven latents of a view: 3DIEBench's order, ranges and meaning (facebookresearch/SIE@54541cf data/README.md)."""

from __future__ import annotations

import numpy as np

_LOW = np.array([-np.pi / 2] * 3 + [0, 0, 0, 0])
_HIGH = np.array([np.pi / 2] * 3 + [1, np.pi / 4, 2 * np.pi, 1])


def draw_latents(generator: np.random.Generator, views: int, ood: bool = False) -> np.ndarray:
    """Latents float64 [views, 7], each uniform in its range; a longer draw begins with the shorter one.

    ood: every Euler angle has |α| ∈ [π/2, π] and a random sign.
    """
    u = generator.random((views, 10))
    latents = _LOW + (_HIGH - _LOW) * u[:, :7]
    if ood:
        magnitude = np.pi / 2 + np.pi / 2 * u[:, :3]
        latents[:, :3] = np.where(u[:, 7:] < 0.5, -magnitude, magnitude)
    return latents


def rotation_matrix(angles: np.ndarray) -> np.ndarray:
    """Angles [..., 3] (rad) about the fixed x, then y, then z axis → R = Rz·Ry·Rx, [..., 3, 3] (scipy's "xyz")."""
    cx, cy, cz = np.moveaxis(np.cos(angles), -1, 0)
    sx, sy, sz = np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [cz * cy, cz * sy * sx - sz * cx, cz * sy * cx + sz * sx],
        [sz * cy, sz * sy * sx + cz * cx, sz * sy * cx - cz * sx],
        [-sy, cy * sx, cy * cx],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
