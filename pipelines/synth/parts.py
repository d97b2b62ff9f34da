"""What objects are made of: boxes, ellipsoids and round bars (cylinders, cones), placed, turned and coloured.

An object is a list of `Part`s in its own frame: x points forward, y to its left, z up; any unit of length, for
`assemble` centres the whole and scales it to one bounding sphere. Two-tone parts (`behind`) and one-sided parts make
rotation visible; so does the coat that shade.py gives everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.synth.latents import rotation_matrix

Vec = tuple[float, float, float]
Colour = tuple[float, float, float]
Kind = Literal["box", "ellipsoid", "bar"]
KINDS: tuple[Kind, ...] = ("box", "ellipsoid", "bar")
MAX_PARTS = 62  # a depth-buffer key has six bits for the part (render.py)

# Columns are the local x, y, z axes of a bar whose own axis (local z) points along the key.
_AXES = {
    "z": np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], float),
    "-z": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], float),
    "x": np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], float),
    "-x": np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], float),
    "y": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float),
    "-y": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], float),
}
Axis = Literal["x", "-x", "y", "-y", "z", "-z"]


@dataclass(frozen=True)
class Part:
    """One convex solid: local unit solid → scaled by `half` → turned by `turn` → moved to `at`.

    box: |x|, |y|, |z| ≤ 1.  ellipsoid: |p| ≤ 1.  bar: |z| ≤ 1 and √(x²+y²) ≤ 1 at z = −1, shrinking to `tip` at z = 1.
    """

    kind: Kind
    at: Vec
    half: np.ndarray
    turn: np.ndarray
    colour: Colour
    behind: Colour
    tip: float = 1.0


def box(at: Vec, size: Vec, colour: Colour, behind: Colour | None = None, turn: Vec = (0, 0, 0)) -> Part:
    """A box of full extents `size`; `turn` in degrees about the fixed x, then y, then z axis."""
    return Part("box", at, np.array(size) / 2, _turn(turn), colour, behind or colour)


def ellipsoid(at: Vec, size: Vec, colour: Colour, behind: Colour | None = None, turn: Vec = (0, 0, 0)) -> Part:
    """An ellipsoid that fills a box of full extents `size`."""
    return Part("ellipsoid", at, np.array(size) / 2, _turn(turn), colour, behind or colour)


def cylinder(
    at: Vec, size: Vec, colour: Colour, behind: Colour | None = None, turn: Vec = (0, 0, 0), axis: Axis = "z"
) -> Part:
    """A cylinder along `axis` that fills a box of full extents `size` (so its section may be an ellipse)."""
    return cone(at, size, colour, behind, turn, axis, tip=1.0)


def cone(
    at: Vec,
    size: Vec,
    colour: Colour,
    behind: Colour | None = None,
    turn: Vec = (0, 0, 0),
    axis: Axis = "z",
    tip: float = 0.0,
) -> Part:
    """A cone whose tip points along `axis`; `tip` > 0 cuts it off where its radius is `tip` times the base's."""
    frame = _AXES[axis]
    half = np.abs(frame.T @ (np.array(size) / 2))
    return Part("bar", at, half, _turn(turn) @ frame, colour, behind or colour, tip)


def strut(start: Vec, end: Vec, width: float, colour: Colour, tip: float = 1.0) -> Part:
    """A round bar of diameter `width` from `start` to `end`."""
    a, b = np.array(start, float), np.array(end, float)
    z = (b - a) / np.linalg.norm(b - a)
    x = np.cross(z, [0.0, 1.0, 0.0] if abs(z[1]) < 0.9 else [1.0, 0.0, 0.0])
    x /= np.linalg.norm(x)
    half = np.array([width / 2, width / 2, float(np.linalg.norm(b - a)) / 2])
    mid = (a + b) / 2
    at = (float(mid[0]), float(mid[1]), float(mid[2]))
    return Part("bar", at, half, np.stack([x, np.cross(z, x), z], axis=1), colour, colour, tip)


def _turn(degrees: Vec) -> np.ndarray:
    return rotation_matrix(np.radians(np.array(degrees, float)))


@dataclass(frozen=True)
class Solid:
    """A whole object, its parts sorted by kind: P parts, float64 arrays.

    at, half, colour, behind [P, 3]; turn [P, 3, 3] (columns: local axes in the object's frame); tip [P].
    coat: the iridescent coat's share of a surface's colour (shade.py).
    """

    kind: tuple[Kind, ...]
    at: np.ndarray
    half: np.ndarray
    turn: np.ndarray
    tip: np.ndarray
    colour: np.ndarray
    behind: np.ndarray
    coat: float = 0.5

    def __len__(self) -> int:
        return len(self.kind)

    def groups(self) -> list[tuple[Kind, slice]]:
        """The parts of each kind: they are neighbours."""
        kinds = dict.fromkeys(self.kind)
        return [(k, slice(self.kind.index(k), self.kind.index(k) + self.kind.count(k))) for k in kinds]


def assemble(parts: Sequence[Part], radius: float) -> Solid:
    """Pack parts into a Solid, its bounding box centred on the origin, its farthest point at `radius`."""
    if not 1 <= len(parts) <= MAX_PARTS:
        raise ValueError(f"an object has 1 to {MAX_PARTS} parts, not {len(parts)}")
    parts = sorted(parts, key=lambda part: KINDS.index(part.kind))
    points = np.concatenate([surface_points(part) for part in parts])
    centre = (points.min(0) + points.max(0)) / 2
    scale = radius / float(np.linalg.norm(points - centre, axis=1).max())
    return Solid(
        kind=tuple(part.kind for part in parts),
        at=(np.array([part.at for part in parts]) - centre) * scale,
        half=np.array([part.half for part in parts]) * scale,
        turn=np.array([part.turn for part in parts]),
        tip=np.array([part.tip for part in parts]),
        colour=np.array([part.colour for part in parts]),
        behind=np.array([part.behind for part in parts]),
    )


def surface_points(part: Part) -> np.ndarray:
    """Points [n, 3] on a part's surface whose hull is nearly the part: for bounds, not for rendering."""
    return np.array(part.at) + (_UNIT_POINTS[part.kind](part.tip) * part.half) @ part.turn.T


def box_corners(tip: float = 1.0) -> np.ndarray:
    """Corners [8, 3] of the unit box, its top face shrunk by `tip`: they also bound a bar."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
    corners[corners[:, 2] > 0, :2] *= tip
    return corners


def _ring(tip: float) -> np.ndarray:
    angle = np.arange(16) * (np.pi / 8)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    base = np.concatenate([circle, -np.ones((16, 1))], axis=1)
    top = np.concatenate([circle * tip, np.ones((16, 1))], axis=1)
    return np.concatenate([base, top])


def _globe(_tip: float) -> np.ndarray:
    """400 points spread evenly over the unit sphere (a golden spiral)."""
    k = np.arange(400) + 0.5
    z, angle = 1 - k / 200, k * (np.pi * (1 + 5**0.5))
    return np.stack([np.sqrt(1 - z * z) * np.cos(angle), np.sqrt(1 - z * z) * np.sin(angle), z], axis=1)


_UNIT_POINTS = {"box": box_corners, "ellipsoid": _globe, "bar": _ring}
