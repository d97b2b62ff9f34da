"""Presets: which kinds a set has, how much its objects vary, and what stage they stand on.

plain  32 kinds in the colours of their families, under one light, on a bare floor: easy to learn from in minutes
hard   55 kinds, one in five near-symmetric, whose objects vary in proportions, details and colours, on patterned floors
       with clutter, under lights that hide edges: tells methods apart after long training. What it does to an object of
       any family: wider proportions, a stretch, lost details, other colours
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

import numpy as np

from pipelines.synth.dice import Dice, Stream, stream
from pipelines.synth.families import FAMILIES, HARD_FAMILIES, NEAR_SYMMETRIC, Family
from pipelines.synth.parts import Colour, Part, Solid, assemble, surface_points
from pipelines.synth.scene import OBJECT_RADIUS

WIDER = 1.25  # a range's ends are so many times as far apart, as logarithms
STRETCH = 0.15  # log of the greatest stretch along an axis
DETAIL, LOST = 0.22, 0.25  # parts whose half axes are all below this share of the radius are left out so often
HUE = 0.22  # a paint's hue is so far from its family's either way: colours overlap, and tell little of the kind


class WideDice(Dice):
    """Dice whose ranges of lengths are wider; ranges that touch 0 (angles either way, shares, choices) stay."""

    def __call__(self, low: float, high: float) -> float:
        if low <= 0:
            return super().__call__(low, high)
        middle, reach = (low * high) ** 0.5, (high / low) ** (WIDER / 2)
        return super().__call__(middle / reach, middle * reach)

    def paint(self) -> Colour:
        return self._paint_near(HUE, (0.2, 0.9), (0.4, 1.0))


def varied(parts: list[Part], r: Dice, near_symmetric: bool) -> list[Part]:
    """The same kind of object, further from others of its kind. Near-symmetric ones stay round and keep their mark."""
    by = np.array([exp(r(-STRETCH, STRETCH)) for _ in range(3)])
    if near_symmetric:
        by[1] = by[0]
    else:
        parts = _without_some_details(parts, r)
    return [_stretch(part, by) for part in parts]


def _without_some_details(parts: list[Part], r: Dice) -> list[Part]:
    points = np.concatenate([surface_points(part) for part in parts])
    radius = float(np.linalg.norm(np.ptp(points, axis=0))) / 2
    return [part for part in parts if r(0, 1) >= LOST or part.half.max() >= DETAIL * radius]


def _stretch(part: Part, by: np.ndarray) -> Part:
    """The object's axes scaled by `by` [3]. A turned part would shear; it keeps right angles instead, its longest axis
    exactly where the stretch takes it."""
    moved = by[:, None] * part.turn  # columns: where the stretch takes the local axes
    half = part.half * np.linalg.norm(moved, axis=0)
    turn = np.empty((3, 3))
    first, second, third = (int(axis) for axis in np.argsort(-half, kind="stable"))
    turn[:, first] = _unit(moved[:, first])
    turn[:, second] = _unit(moved[:, second] - (moved[:, second] @ turn[:, first]) * turn[:, first])
    turn[:, third] = np.cross(turn[:, first], turn[:, second])
    if np.linalg.det(turn) < 0:
        turn[:, third] *= -1
    at = tuple(float(x) for x in np.array(part.at) * by)
    return replace(part, at=(at[0], at[1], at[2]), half=half, turn=turn)


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


THIN_COAT = 0.3  # of hard objects; a near-symmetric one wears none, for that would show its turns


@dataclass(frozen=True)
class Preset:
    """name; version: raised whenever the same seed would give other pixels; families by label; hard: see above."""

    name: str
    version: int
    families: tuple[Family, ...]
    hard: bool

    def class_names(self, count: int) -> tuple[str, ...]:
        """Names of the first `count` families, by label."""
        return tuple(family.__name__ for family in self.families[:count])

    def solid(self, seed: int, index: int, families: int) -> Solid:
        """The shape and the paint of object `index` of a set of that many families, the same in every view."""
        label = index % families
        family, generator = self.families[label], stream(seed, index, Stream.SHAPE)
        if not self.hard:
            return assemble(family(Dice(generator, label)), OBJECT_RADIUS)
        parts = family(WideDice(generator, label))
        near_symmetric, dice = family in NEAR_SYMMETRIC, Dice(stream(seed, index, Stream.VARIATION))
        solid = assemble(varied(parts, dice, near_symmetric), OBJECT_RADIUS)
        return replace(solid, coat=0.0 if near_symmetric else THIN_COAT)


PRESETS = {
    "plain": Preset("plain", 1, FAMILIES, hard=False),
    "hard": Preset("hard", 1, HARD_FAMILIES, hard=True),
}
