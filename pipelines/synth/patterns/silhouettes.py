"""The twenty shapes of Patterns-Synth, and how far each point is from their outline.

A shape is a list of strokes on a unit square: x to the right, y down, from -1 to 1. Later strokes add to what is there,
or cut from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import cv2
import numpy as np

RESOLUTION = 96  # pixels of a distance map's side
EXTENT = 1.6  # a map reaches from -EXTENT to EXTENT
DRAWN = 4 * RESOLUTION  # pixels of the canvas that the distances are measured on
FRACTION_BITS = 4  # of a pixel of that canvas

Stroke = Callable[[np.ndarray], None]


def _pixels(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Coordinates → OpenCV's fixed-point pixels."""
    return np.rint(((np.asarray(values) / EXTENT + 1) / 2 * DRAWN - 0.5) * 2**FRACTION_BITS).astype(np.int32)


def polygon(*corners: tuple[float, float], ink: int = 1) -> Stroke:
    return lambda canvas: cv2.fillPoly(canvas, [_pixels(corners)], ink, cv2.LINE_8, FRACTION_BITS)  # type: ignore


def oval(x: float, y: float, width: float, height: float | None = None, turn: float = 0, ink: int = 1) -> Stroke:
    """`width` and `height` are half axes, `turn` is in degrees clockwise."""
    angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    u, v = width * np.cos(angles), (height or width) * np.sin(angles)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return polygon(*zip(x + u * cos - v * sin, y + u * sin + v * cos, strict=True), ink=ink)


def box(left: float, top: float, right: float, bottom: float, ink: int = 1) -> Stroke:
    return polygon((left, top), (right, top), (right, bottom), (left, bottom), ink=ink)


def _star(points: int, inner: float) -> Stroke:
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.1, inner)
    return polygon(*zip(radii * np.cos(angles), radii * np.sin(angles), strict=True))


def _around(count: int, distance: float, radius: float, narrow: float = 1.0) -> list[Stroke]:
    """Ovals in a ring, each pointing outwards."""
    turns = [360 * i / count - 90 for i in range(count)]
    middles = [(distance * np.cos(np.radians(turn)), distance * np.sin(np.radians(turn))) for turn in turns]
    return [oval(x, y, radius, radius * narrow, turn) for (x, y), turn in zip(middles, turns, strict=True)]


SILHOUETTES: dict[str, list[Stroke]] = {
    "star": [_star(5, 0.48)],
    "fish": [oval(-0.28, 0, 0.85, 0.58), polygon((0.3, 0), (1.1, -0.7), (0.9, 0), (1.1, 0.7))],
    "house": [box(-0.72, -0.15, 0.72, 0.95), polygon((-1.05, -0.1), (0, -1.05), (1.05, -0.1))],
    "flower": _around(6, 0.62, 0.42),
    "moon": [oval(0.0, 0, 1.05), oval(0.55, -0.1, 0.82, ink=0)],
    "cup": [oval(0.62, 0, 0.5), oval(0.62, 0, 0.24, ink=0), box(-0.85, -0.75, 0.5, 0.75)],
    "bolt": [polygon((0.3, -1.15), (-0.75, 0.2), (-0.1, 0.2), (-0.35, 1.15), (0.75, -0.35), (0.08, -0.35))],
    "heart": [
        oval(-0.46, -0.38, 0.55),
        oval(0.46, -0.38, 0.55),
        polygon((-0.95, -0.12), (0.95, -0.12), (0, 1.1)),
        box(-0.4, -0.5, 0.4, 0),
    ],
    "ring": [oval(0, 0, 1.05), oval(0, 0, 0.5, ink=0)],
    "tree": [
        polygon((-0.75, -0.15), (0, -1.15), (0.75, -0.15)),
        polygon((-1.0, 0.65), (0, -0.6), (1.0, 0.65)),
        box(-0.22, 0.6, 0.22, 1.1),
    ],
    "arrow": [polygon((-1.1, -0.32), (0.1, -0.32), (0.1, -0.9), (1.15, 0), (0.1, 0.9), (0.1, 0.32), (-1.1, 0.32))],
    "mushroom": [oval(0, -0.1, 1.05, 0.95), box(-1.2, 0.0, 1.2, 1.2, ink=0), oval(0, 0.45, 0.36, 0.65)],
    "boat": [
        polygon((-1.1, 0.35), (1.1, 0.35), (0.7, 1.0), (-0.7, 1.0)),
        polygon((-0.05, -1.1), (0.85, 0.15), (-0.05, 0.15)),
        polygon((-0.2, -0.75), (-0.2, 0.15), (-0.8, 0.15)),
    ],
    "cross": [box(-0.36, -1.05, 0.36, 1.05), box(-1.05, -0.36, 1.05, 0.36)],
    "drop": [oval(0, 0.35, 0.75), polygon((-0.68, 0.05), (0, -1.2), (0.68, 0.05))],
    "crown": [
        polygon((-1.05, 0.8), (-1.05, -0.75), (-0.5, -0.05), (0, -0.95), (0.5, -0.05), (1.05, -0.75), (1.05, 0.8))
    ],
    "umbrella": [
        oval(0, 0, 1.1, 1.0),
        box(-1.3, 0.05, 1.3, 1.3, ink=0),
        box(-0.13, 0, 0.13, 1.1),
        box(-0.13, 0.85, 0.5, 1.1),
    ],
    "clover": [oval(x, y, 0.5) for x in (-0.48, 0.48) for y in (-0.48, 0.48)] + [box(-0.4, -0.4, 0.4, 0.4)],
    "key": [
        oval(-0.6, 0, 0.56),
        oval(-0.6, 0, 0.22, ink=0),
        box(-0.1, -0.2, 1.1, 0.2),
        box(0.75, 0, 1.1, 0.65),
        box(0.3, 0, 0.55, 0.5),
    ],
    "gear": [*_around(8, 0.85, 0.34, 0.62), oval(0, 0, 0.82), oval(0, 0, 0.32, ink=0)],
}


@cache
def distances(shape: str) -> np.ndarray:
    """float32 [RESOLUTION, RESOLUTION]: how far a point is outside the outline; negative inside."""
    canvas = np.zeros((DRAWN, DRAWN), np.uint8)
    for stroke in SILHOUETTES[shape]:
        stroke(canvas)
    outside = cv2.distanceTransform(1 - canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    inside = cv2.distanceTransform(canvas, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    signed = (outside - inside) * (2 * EXTENT / DRAWN)
    return cv2.resize(signed, (RESOLUTION, RESOLUTION), interpolation=cv2.INTER_AREA)
