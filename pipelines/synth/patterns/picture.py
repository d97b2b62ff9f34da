"""One picture of Patterns-Synth: a shape filled with a pattern, on a soft background. The class is shape and pattern.

Position, size, turn, colours, which of them is the lighter one, and the background say nothing of the class. Colours
come from a palette that all pictures share, so that they hardly tell one picture from another: what two crops of a
picture have in common is its shape and its pattern.

A shape is a list of strokes on a unit square: x to the right, y down, from -1 to 1. Later strokes add to what is there,
or cut from it.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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


def bar_stroke(left: float, top: float, right: float, bottom: float, ink: int = 1) -> Stroke:
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
    "house": [bar_stroke(-0.72, -0.15, 0.72, 0.95), polygon((-1.05, -0.1), (0, -1.05), (1.05, -0.1))],
    "flower": _around(6, 0.62, 0.42),
    "moon": [oval(0.0, 0, 1.05), oval(0.55, -0.1, 0.82, ink=0)],
    "cup": [oval(0.62, 0, 0.5), oval(0.62, 0, 0.24, ink=0), bar_stroke(-0.85, -0.75, 0.5, 0.75)],
    "bolt": [polygon((0.3, -1.15), (-0.75, 0.2), (-0.1, 0.2), (-0.35, 1.15), (0.75, -0.35), (0.08, -0.35))],
    "heart": [
        oval(-0.46, -0.38, 0.55),
        oval(0.46, -0.38, 0.55),
        polygon((-0.95, -0.12), (0.95, -0.12), (0, 1.1)),
        bar_stroke(-0.4, -0.5, 0.4, 0),
    ],
    "ring": [oval(0, 0, 1.05), oval(0, 0, 0.5, ink=0)],
    "tree": [
        polygon((-0.75, -0.15), (0, -1.15), (0.75, -0.15)),
        polygon((-1.0, 0.65), (0, -0.6), (1.0, 0.65)),
        bar_stroke(-0.22, 0.6, 0.22, 1.1),
    ],
    "arrow": [polygon((-1.1, -0.32), (0.1, -0.32), (0.1, -0.9), (1.15, 0), (0.1, 0.9), (0.1, 0.32), (-1.1, 0.32))],
    "mushroom": [oval(0, -0.1, 1.05, 0.95), bar_stroke(-1.2, 0.0, 1.2, 1.2, ink=0), oval(0, 0.45, 0.36, 0.65)],
    "boat": [
        polygon((-1.1, 0.35), (1.1, 0.35), (0.7, 1.0), (-0.7, 1.0)),
        polygon((-0.05, -1.1), (0.85, 0.15), (-0.05, 0.15)),
        polygon((-0.2, -0.75), (-0.2, 0.15), (-0.8, 0.15)),
    ],
    "cross": [bar_stroke(-0.36, -1.05, 0.36, 1.05), bar_stroke(-1.05, -0.36, 1.05, 0.36)],
    "drop": [oval(0, 0.35, 0.75), polygon((-0.68, 0.05), (0, -1.2), (0.68, 0.05))],
    "crown": [
        polygon((-1.05, 0.8), (-1.05, -0.75), (-0.5, -0.05), (0, -0.95), (0.5, -0.05), (1.05, -0.75), (1.05, 0.8))
    ],
    "umbrella": [
        oval(0, 0, 1.1, 1.0),
        bar_stroke(-1.3, 0.05, 1.3, 1.3, ink=0),
        bar_stroke(-0.13, 0, 0.13, 1.1),
        bar_stroke(-0.13, 0.85, 0.5, 1.1),
    ],
    "clover": [oval(x, y, 0.5) for x in (-0.48, 0.48) for y in (-0.48, 0.48)] + [bar_stroke(-0.4, -0.4, 0.4, 0.4)],
    "key": [
        oval(-0.6, 0, 0.56),
        oval(-0.6, 0, 0.22, ink=0),
        bar_stroke(-0.1, -0.2, 1.1, 0.2),
        bar_stroke(0.75, 0, 1.1, 0.65),
        bar_stroke(0.3, 0, 0.55, 0.5),
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


SIDE = 32
FINE = 2 * SIDE  # pixels of the canvas, averaged 2 × 2 at the end
SHAPES = tuple(SILHOUETTES)
PATTERNS = ("plain", "striped", "dotted", "checked", "ringed")
CLASSES = len(SHAPES) * len(PATTERNS)
SPLIT_NUMBERS = {"train": 0, "test": 1}
RADII = (9.5, 13.0)  # pixels
SHIFT = 3.0  # pixels from the picture's middle, each way
TURN = 0.5  # radians, each way
PERIOD = 5.2  # pixels from one stripe to the next
PERIOD_SPREAD = 0.12  # each way
HUES = (0.02, 0.10, 0.30, 0.50, 0.60, 0.80)
RIM = 1.1  # pixels

Uniform = Callable[..., np.ndarray]


@dataclass(frozen=True)
class PatternPicture:
    """`pixels` uint8 [32, 32, 3] RGB; `fine` class, of it `coarse` is the shape."""

    pixels: np.ndarray
    fine: int
    coarse: int


def parts_of(fine: int) -> tuple[int, int]:
    """(shape, pattern) of a fine class. The first twenty have a shape each, and patterns in turn."""
    shape = fine % len(SHAPES)
    return shape, (fine // len(SHAPES) + shape) % len(PATTERNS)


def fine_names() -> tuple[str, ...]:
    """ "plain_star" …, one for each fine class."""
    pairs = [parts_of(fine) for fine in range(CLASSES)]
    return tuple(f"{PATTERNS[pattern]}_{SHAPES[shape]}" for shape, pattern in pairs)


def draw_pattern(seed: int, split: str, index: int, classes: int = CLASSES) -> PatternPicture:
    """A picture is a function of these four. Classes take turns: index modulo `classes`."""
    key = np.array([seed, SPLIT_NUMBERS[split] << 48 | index], np.uint64)
    uniform: Uniform = np.random.Generator(np.random.Philox(key=key)).random  # the one method NumPy has never changed
    fine = index % classes
    shape, pattern = parts_of(fine)
    canvas = _background(uniform)
    _paint(canvas, SHAPES[shape], PATTERNS[pattern], uniform)
    pixels = cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return PatternPicture(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), fine, shape)


def _background(uniform: Uniform) -> np.ndarray:
    """float32 [64, 64, 3]: one muted colour passes into another, with soft clouds."""
    u = uniform(7)
    light = 90 + 120 * u[0]
    ends = [light * (0.66 + 0.34 * _rgb(u[k], 0.6)) * (0.85 + 0.3 * u[k + 1]) for k in (1, 3)]
    angle = 2 * np.pi * u[5]
    across, down = _axes()
    mix = 0.5 + (across * np.cos(angle) + down * np.sin(angle)) / SIDE
    canvas = ends[0] + (ends[1] - ends[0]) * mix[..., None]
    for cells, strength in ((3, 34.0), (7, 16.0)):
        noise = ((uniform((cells, cells, 1)) - 0.5) * strength).astype(np.float32)
        canvas += cv2.resize(noise, (FINE, FINE), interpolation=cv2.INTER_CUBIC)[..., None]
    return canvas.astype(np.float32)


def _paint(canvas: np.ndarray, shape: str, pattern: str, uniform: Uniform) -> None:
    """Paints over `canvas`: a soft shadow, a rim, the shape in two colours."""
    u = uniform(10)
    radius = RADII[0] + (RADII[1] - RADII[0]) * u[0]
    x, y = SHIFT * (2 * u[1] - 1), SHIFT * (2 * u[2] - 1)
    turn, mirrored = TURN * (2 * u[3] - 1), u[9] < 0.5
    apart = _placed(shape, x, y, radius, turn, mirrored)
    across, down = _axes()
    second = _weight(pattern, across - x, down - y, apart, uniform)
    base, accent = _colours(u[4:9])
    shadow = cv2.GaussianBlur(np.clip(0.5 - apart, 0, 1), (0, 0), 4.0)
    canvas *= 1 - 0.4 * shadow[..., None]
    light = (1 - 0.18 * down / SIDE)[..., None]
    body = (base + (accent - base) * second[..., None]) * light
    for cover, colour in ((_cover(apart - RIM), base * 0.35), (_cover(apart), body)):
        canvas += cover[..., None] * (colour - canvas)


def _colours(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A darker and a lighter colour of the palette, either of which may be the ground of the pattern."""
    hues = [HUES[int(v * len(HUES))] for v in u[:2]]
    dark, light = _rgb(hues[0], 0.75) * (95 + 45 * u[2]), _rgb(hues[1], 0.4) * (215 + 40 * u[3])
    return (dark, light) if u[4] < 0.5 else (light, dark)


def _weight(pattern: str, x: np.ndarray, y: np.ndarray, apart: np.ndarray, uniform: Uniform) -> np.ndarray:
    """float32 [64, 64] from 0 to 1: how much of the second colour. All patterns take the same draws."""
    u = uniform(4)
    period = PERIOD * (1 + PERIOD_SPREAD * (2 * u[0] - 1))
    angle = np.pi * u[1]
    across = (x * np.cos(angle) + y * np.sin(angle)) / period + u[2]
    along = (y * np.cos(angle) - x * np.sin(angle)) / period + u[3]
    if pattern == "plain":
        return np.zeros_like(apart)
    if pattern == "ringed":
        return _edge(np.sin(2 * np.pi * (apart / period + 0.25)), period)
    if pattern == "striped":
        return _edge(np.sin(2 * np.pi * across), period)
    if pattern == "checked":
        return _edge(np.sin(np.pi * across) * np.sin(np.pi * along) * 2, period)
    return _edge((0.36 - np.hypot(across % 1 - 0.5, along % 1 - 0.5)) * 5, period)


def _edge(wave: np.ndarray, period: float) -> np.ndarray:
    """A wave of slope 2π a period at its zeros → 0 or 1, smooth over a pixel."""
    return np.clip(0.5 + wave * np.float32(period / (2 * np.pi)), 0, 1)


def _cover(apart: np.ndarray) -> np.ndarray:
    return np.clip(0.5 - 2 * apart, 0, 1)  # a pixel of the canvas is half a pixel


def _placed(shape: str, x: float, y: float, radius: float, turn: float, mirrored: bool) -> np.ndarray:
    """float32 [64, 64]: distance from the outline in pixels, negative inside, of the shape turned, scaled and moved."""
    scale = RESOLUTION / (2 * EXTENT * radius * 2)  # pixels of the map for one of the canvas
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array([[cos, sin], [-sin, cos]])
    if mirrored:
        matrix[0] *= -1
    middle = np.array([x, y]) * 2 + (FINE - 1) / 2
    move = (RESOLUTION - 1) / 2 - matrix @ middle
    inverse = np.concatenate([matrix, move[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    far = cv2.warpAffine(distances(shape), inverse, (FINE, FINE), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return far * np.float32(radius)


@cache
def _axes() -> tuple[np.ndarray, np.ndarray]:
    """float32 [64, 64] each: x and y of the canvas' pixels, in pixels of the picture from its middle."""
    axis = ((np.arange(FINE) + 0.5) / 2 - SIDE / 2).astype(np.float32)
    down, across = np.meshgrid(axis, axis, indexing="ij")
    return across, down


def _rgb(hue: float, saturation: float) -> np.ndarray:
    """float32 [3] from 0 to 1, full value."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, 1.0), np.float32)
