"""Which tiles of the image a part can touch: exact or nearly exact bounds, so that few rays are cast in vain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.synth.parts import box_corners
from pipelines.synth.pose import Pose
from pipelines.synth.scene import Rays

# A rotated grid: four samples a pixel on four different rows and columns smooth near-level edges best.
ROTATED_GRID = np.array([(-1, -3), (3, -1), (1, 3), (-3, 1)]) / 8
CENTRE = np.array([(0.0, 0.0)])


@dataclass(frozen=True)
class Grid:
    """An image of size × size pixels cut into across × across tiles of side × side pixels.

    u, v [R]: sample positions in pixels, relative to a tile's corner; R = side² · samples, a pixel's samples adjacent.
    """

    size: int
    side: int
    samples: int
    u: np.ndarray
    v: np.ndarray

    @property
    def across(self) -> int:
        return -(-self.size // self.side)

    @property
    def tiles(self) -> int:
        return self.across**2


def grid(size: int, side: int, offsets: np.ndarray) -> Grid:
    """A grid whose every pixel is sampled at its centre plus each of offsets [n, 2] (pixels)."""
    pixel = np.arange(side) + 0.5
    u = pixel[None, :, None] + offsets[:, 0]
    v = pixel[:, None, None] + offsets[:, 1]
    u, v = np.broadcast_arrays(u, v)
    return Grid(size, side, len(offsets), u.reshape(-1), v.reshape(-1))


def bounds(pose: Pose, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest (u, v) [P, V, 2] of every part seen through `rays`, in pixels."""
    # In the pencil's own coordinates a point is s·(1, u, v).
    to_pencil = np.linalg.inv(rays.basis.transpose(0, 2, 1))
    middle = np.einsum("vij,pvj->pvi", to_pencil, pose.centre - rays.eye)
    spokes = np.einsum("vij,pvjk->pvik", to_pencil, pose.axes)
    found = []
    for kind, parts in pose.solid.groups():
        if kind == "ellipsoid":
            found.append(_ellipsoid_bounds(middle[parts], spokes[parts]))
        else:
            corners = np.stack([box_corners(tip) for tip in pose.solid.tip[parts]])
            found.append(_hull_bounds(middle[parts], spokes[parts], corners))
    low, high = zip(*found, strict=True)
    return np.concatenate(low), np.concatenate(high)


def _hull_bounds(middle: np.ndarray, spokes: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points = middle[:, :, None, :] + np.einsum("pvik,pck->pvci", spokes, corners)
    uv = points[..., 1:] / points[..., :1]
    return uv.min(2), uv.max(2)


def _ellipsoid_bounds(middle: np.ndarray, spokes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lines u = const that touch the outline satisfy l·Q·l = 0 with the dual quadric Q = c cᵀ − S Sᵀ."""
    q = middle[..., :, None] * middle[..., None, :] - np.einsum("pvik,pvjk->pvij", spokes, spokes)
    depth = q[..., 0, 0, None]
    mixed, square = q[..., 0, 1:], np.stack([q[..., 1, 1], q[..., 2, 2]], axis=-1)
    spread = np.sqrt(np.maximum(mixed**2 - depth * square, 0))
    return (mixed - spread) / depth, (mixed + spread) / depth


@dataclass(frozen=True)
class Visits:
    """Every (part, view, tile) that bounds overlap, part by part: int64 [E] each; part p owns first[p]:first[p + 1]."""

    part: np.ndarray
    view: np.ndarray
    column: np.ndarray
    row: np.ndarray
    first: list[int]


def visits(low: np.ndarray, high: np.ndarray, grid: Grid) -> Visits:
    """Bounds [P, V, 2] in pixels → the tiles to visit."""
    begin = np.clip(np.floor(low / grid.side), 0, grid.across).astype(np.int64)
    end = np.clip(np.floor(high / grid.side) + 1, 0, grid.across).astype(np.int64)
    wide, tall = np.moveaxis(np.maximum(end - begin, 0), -1, 0)
    count = wide * tall
    pair = np.repeat(np.arange(count.size), count.ravel())
    nth = np.arange(len(pair)) - np.repeat(np.cumsum(count) - count.ravel(), count.ravel())
    down, across = np.divmod(nth, wide.ravel()[pair])
    corner = begin.reshape(-1, 2)[pair]
    part, view = np.divmod(pair, low.shape[1])
    first = [0, *np.cumsum(count.sum(1)).tolist()]
    return Visits(part, view, corner[:, 0] + across, corner[:, 1] + down, first)
