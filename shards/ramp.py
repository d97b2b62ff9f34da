"""Densities as colours: a ramp of evenly growing lightness, the same in grey and to the colour-blind."""

from __future__ import annotations

import numpy as np

# Every eighth of matplotlib's "inferno" (CC0).
_ANCHORS = np.array(
    [
        (0, 0, 4),
        (33, 12, 74),
        (87, 16, 110),
        (138, 34, 106),
        (188, 55, 84),
        (228, 90, 49),
        (249, 142, 9),
        (249, 203, 53),
        (252, 255, 164),
    ],
    np.float64,
)
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_CLEAR, _DENSE = 0.15, 0.8  # how much of the image a map hides where there is no density, and at its peak


def strength(density: np.ndarray) -> np.ndarray:
    """[H, W] in [0, 1]: the square root of a density over its peak, or else all but the peak would be black."""
    return np.sqrt(density / density.max())


def colours_of(density: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of a non-negative density [H, W] with a positive peak."""
    at = strength(density) * (len(_ANCHORS) - 1)
    below = np.minimum(at.astype(int), len(_ANCHORS) - 2)
    part = (at - below)[..., None]
    return np.rint(_ANCHORS[below] * (1 - part) + _ANCHORS[below + 1] * part).astype(np.uint8)


def overlay(image: np.ndarray, density: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the image in grey (so that all colour is the map's) under its density, opaque where dense."""
    grey = image @ _LUMA
    opacity = _CLEAR + (_DENSE - _CLEAR) * strength(density)
    return np.rint((grey * (1 - opacity))[..., None] + colours_of(density) * opacity[..., None]).astype(np.uint8)
