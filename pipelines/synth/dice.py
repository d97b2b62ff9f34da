"""Random numbers that depend on nothing but (seed, object, purpose)."""

from __future__ import annotations

import colorsys
from enum import IntEnum
from typing import TypeVar

import numpy as np

from pipelines.synth.parts import Colour

T = TypeVar("T")


class Stream(IntEnum):
    """What a stream of numbers is for. The values are part of what a seed means: never renumber them."""

    SHAPE = 0
    VIEWS = 1
    VIEWS_OOD = 2
    VARIATION = 3
    STAGE = 4
    STAGE_OOD = 5


def stream(seed: int, index: int, purpose: Stream) -> np.random.Generator:
    """Counter-based generator (Philox 4×64) keyed by the seed, the object's index and the purpose."""
    key = np.array([seed, index * 8 + purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


GOLDEN = (5**0.5 - 1) / 2


class Dice:
    """What a family draws its proportions and paints from: `r(low, high)`, `r.pick(a, b)`, `r.paint()`.

    family: which palette. The paints of a family are alike, as those of dogs or of chairs are, and vary by instance.
    """

    def __init__(self, generator: np.random.Generator, family: int = 0) -> None:
        self._palette, self._paints = GOLDEN * GOLDEN * family, 0
        # `random()` alone, in order: it is the one method whose numbers NumPy has never changed.
        self._next = generator.random

    def __call__(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return self._uniform(low, high)

    def _uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(self._next())

    def pick(self, *options: T) -> T:
        return options[int(self._uniform(0, len(options)))]

    def paint(self) -> Colour:
        """The palette's next hue, give or take 0.12: neither grey nor dark, and far from the hue before."""
        return self._paint_near(0.12, (0.45, 0.9), (0.6, 1.0))

    def _paint_near(self, spread: float, saturation: tuple[float, float], value: tuple[float, float]) -> Colour:
        self._paints += 1
        hue = self._palette + GOLDEN * self._paints + self._uniform(-spread, spread)
        return colorsys.hsv_to_rgb(hue % 1, self._uniform(*saturation), self._uniform(*value))

    def pale(self) -> Colour:
        return colorsys.hsv_to_rgb(self._uniform(0, 1), self._uniform(0.05, 0.25), self._uniform(0.85, 1.0))

    def dark(self) -> Colour:
        return colorsys.hsv_to_rgb(self._uniform(0, 1), self._uniform(0.2, 0.6), self._uniform(0.12, 0.28))
