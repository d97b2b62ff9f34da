"""The five kinds of stickers, as signed distances (negative inside) and as layers ready to be placed.

Coordinates: x to the right, y down, the sticker's body within about the unit circle.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

RESOLUTION = 128  # pixels of a layer's side; it is placed at about a third of that
EXTENT = 1.5  # a layer reaches from -EXTENT to EXTENT: the body with its white border and its shadow
BORDER = 0.17
SHADOW_BLUR = 9.0  # layer pixels

Shape = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _circle(x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    return np.hypot(x, y) - radius


def _ellipse(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """Near the edge a distance; farther away its order of magnitude."""
    length = np.hypot(x / width, y / height)
    slope = np.hypot(x / width**2, y / height**2)
    return length * (length - 1) / np.maximum(slope, 1e-6)


def _polygon(x: np.ndarray, y: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Distance to the nearest edge, negative inside (even-odd rule). corners [n, 2] of (x, y)."""
    squared, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
        t = np.clip(along, 0, 1)
        squared = np.minimum(squared, (x - ax - t * (bx - ax)) ** 2 + (y - ay - t * (by - ay)) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return np.where(inside, -1, 1) * np.sqrt(squared)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.46)
    return _polygon(x, y, np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)) - 0.08


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    across = 16 * np.sin(t) ** 3
    down = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return _polygon(x, y, np.stack([across, down - 2], 1) / 16.5)


def _flower(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    angles = np.arange(6) * np.pi / 3
    return np.min([_circle(x - 0.62 * np.cos(a), y - 0.62 * np.sin(a), 0.38) for a in angles], axis=0)


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(_circle(x - 0.1, y, 1.0), -_circle(x - 0.62, y, 0.78))


def _fish(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    tail = _polygon(x, y, np.array([[0.3, 0.0], [1.08, -0.62], [0.9, 0.0], [1.08, 0.62]]))
    return np.minimum(_ellipse(x + 0.28, y, 0.78, 0.56), tail)


def _nothing(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.ones(x.shape)


# name: (body, what is drawn on it in a second colour)
SHAPES: dict[str, tuple[Shape, Shape]] = {
    "star": (_star, _nothing),
    "heart": (_heart, lambda x, y: _ellipse(x + 0.42, y + 0.4, 0.2, 0.15)),
    "flower": (_flower, lambda x, y: _circle(x, y, 0.36)),
    "moon": (_moon, lambda x, y: np.minimum(_circle(x + 0.55, y + 0.25, 0.14), _circle(x + 0.42, y - 0.4, 0.1))),
    "fish": (
        _fish,
        lambda x, y: np.minimum(_circle(x + 0.62, y + 0.12, 0.12), np.abs(_circle(x + 0.95, y, 0.72)) - 0.05),
    ),
}


@cache
def layers(kind: str) -> np.ndarray:
    """float32 [RESOLUTION, RESOLUTION, 4] from 0 to 1: shadow, white border, body, second colour."""
    axis = (np.arange(RESOLUTION) + 0.5) / RESOLUTION * 2 * EXTENT - EXTENT
    y, x = np.meshgrid(axis, axis, indexing="ij")
    body, detail = SHAPES[kind]
    distance = body(x, y)
    border = _cover(distance - BORDER)
    shadow = cv2.GaussianBlur(border, (0, 0), SHADOW_BLUR)
    inner = np.minimum(_cover(detail(x, y)), _cover(distance))
    return np.stack([shadow, border, _cover(distance), inner], axis=2).astype(np.float32)


def _cover(distance: np.ndarray) -> np.ndarray:
    """Smooth over about one pixel of the picture, which is three of a layer."""
    edge = 3 * 2 * EXTENT / RESOLUTION
    return np.clip(0.5 - distance / edge, 0, 1)
