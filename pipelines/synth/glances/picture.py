"""One picture of Glances-Synth: a meadow, and stickers of two kinds that take turns on a loose 3 × 3 chessboard.

Each of the five kinds of stickers is a signed distance (negative inside) and a layer ready to be placed. Coordinates: x
to the right, y down, the sticker's body within about the unit circle.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations

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


SIDE = 96
FIELD = 27  # pixels from one field of the board to the next: stickers keep off the border, glances at them stay inside
KINDS = tuple(SHAPES)
PAIRS = tuple(combinations(KINDS, 2))
CLASS_NAMES = tuple("-".join(pair) for pair in PAIRS)
HUES = {"star": 0.13, "heart": 0.98, "flower": 0.80, "moon": 0.59, "fish": 0.38}
HUE_SPREAD = 0.12  # each way: neighbours on the colour wheel overlap
JITTER = 3.0  # pixels by which a sticker may lie beside the middle of its field, each way
RADII = (8.0, 10.0)  # pixels, without the white border
TURN = 0.45  # radians, each way
FEWEST, MOST = 2, 3  # stickers of either kind
MEADOW = (112, 122, 96)
TINT = np.array([50, 10, -50])  # from bluish to yellowish blades
BLADES = 50
BLADE_BITS = 3  # of a pixel's fraction
SPLIT_NUMBERS = {"train": 0, "test": 1, "unlabeled": 2}


@dataclass(frozen=True)
class Sticker:
    """Centre in pixels (x right, y down), radius of the body in pixels, turn in radians, two colours (RGB, 0 … 255)."""

    kind: str
    x: float
    y: float
    radius: float
    turn: float
    colour: np.ndarray
    accent: np.ndarray


@dataclass(frozen=True)
class Glance:
    """`pixels` uint8 [96, 96, 3] RGB; `label` is the rank of its pair in CLASS_NAMES."""

    pixels: np.ndarray
    label: int
    stickers: tuple[Sticker, ...]


def draw_glance(seed: int, split: str, index: int) -> Glance:
    """A picture is a function of these three. Labels take turns: index modulo 10."""
    key = np.array([seed, SPLIT_NUMBERS[split] << 48 | index], np.uint64)
    uniform = np.random.Generator(np.random.Philox(key=key)).random  # the one method NumPy has never changed
    label = index % len(PAIRS)
    stickers = _scatter(PAIRS[label], uniform)
    canvas = _clutter(uniform)
    for sticker in stickers:
        _place(canvas, sticker)
    return Glance(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), label, stickers)


def _scatter(pair: tuple[str, str], uniform) -> tuple[Sticker, ...]:
    """Two or three stickers of either kind: one kind on the white fields of the board, the other on the black ones."""
    first = int(uniform() < 0.5)
    stickers = []
    for colour in (0, 1):
        fields = [(row, col) for row in range(3) for col in range(3) if (row + col) % 2 == colour]
        order = np.argsort(uniform(len(fields)))
        for place in order[: FEWEST + int(uniform() * (MOST - FEWEST + 1))]:
            stickers.append(_sticker(pair[first ^ colour], fields[place], uniform))
    return tuple(stickers)


def _sticker(kind: str, field: tuple[int, int], uniform) -> Sticker:
    u = uniform(8)
    middle = [(SIDE / 2 + (n - 1) * FIELD + (2 * v - 1) * JITTER) for n, v in zip(field, u[:2], strict=True)]
    hue = HUES[kind] + (2 * u[4] - 1) * HUE_SPREAD
    return Sticker(
        kind=kind,
        x=middle[1],
        y=middle[0],
        radius=RADII[0] + (RADII[1] - RADII[0]) * u[2],
        turn=(2 * u[3] - 1) * TURN,
        colour=_rgb(hue, 0.6 + 0.35 * u[5], 0.78 + 0.2 * u[6]),
        accent=_rgb(hue + 0.35 + 0.3 * u[7], 0.25, 1.0),
    )


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _clutter(uniform) -> np.ndarray:
    """float32 [96, 96, 3]: a mottled meadow, crossed by blades of grass."""
    canvas = np.empty((SIDE, SIDE, 3), np.float32)
    canvas[:] = MEADOW
    for cells, strength in ((3, 22.0), (8, 36.0), (24, 30.0)):
        light, tint = uniform((cells, cells, 1)) - 0.5, uniform((cells, cells, 3)) - 0.5
        noise = ((light + 0.35 * tint) * strength).astype(np.float32)
        canvas += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    u = uniform((BLADES, 7))
    angles, lengths = 2 * np.pi * u[:, 2], 3 + 9 * u[:, 3]
    starts = u[:, :2] * SIDE
    ends = starts + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    corners = np.rint(np.concatenate([starts, ends], 1) * 2**BLADE_BITS).astype(int).tolist()
    x, y = starts.astype(int).T
    tones = canvas[y, x] + (u[:, 4:5] - 0.5) * 90 + (u[:, 5:6] - 0.5) * TINT
    widths = (1 + u[:, 6] * 2).astype(int)
    for (x0, y0, x1, y1), tone, width in zip(corners, tones.tolist(), widths.tolist(), strict=True):
        cv2.line(canvas, (x0, y0), (x1, y1), tone, width, cv2.LINE_8, BLADE_BITS)
    return canvas


def _place(canvas: np.ndarray, sticker: Sticker) -> None:
    """Paints over `canvas`: a soft shadow, a white border, the body lit from above, its second colour."""
    half = int(np.ceil(sticker.radius * EXTENT * 1.45)) + 1
    left, top = int(sticker.x) - half, int(sticker.y) - half
    c0, c1, r0, r1 = max(left, 0), min(left + 2 * half, SIDE), max(top, 0), min(top + 2 * half, SIDE)
    alpha = _warp(sticker, c0, r0, (c1 - c0, r1 - r0))
    region = canvas[r0:r1, c0:c1]
    height = (np.arange(r0, r1, dtype=np.float32) - np.float32(sticker.y)) / np.float32(sticker.radius)
    light = (1.04 - 0.16 * height)[:, None, None]
    region *= 1 - 0.55 * alpha[..., 0:1]
    for layer, colour in ((1, np.float32(248)), (2, sticker.colour * light), (3, sticker.accent * light)):
        weight = alpha[..., layer : layer + 1]
        region += weight * (colour - region)


def _warp(sticker: Sticker, left: int, top: int, size: tuple[int, int]) -> np.ndarray:
    """The layers turned, scaled and moved to where a window of the picture has them: float32 [h, w, 4]."""
    scale = RESOLUTION / (2 * EXTENT * sticker.radius)  # layer pixels for one of the picture
    cos, sin = scale * np.cos(sticker.turn), scale * np.sin(sticker.turn)
    turn = np.array([[cos, sin], [-sin, cos]])
    move = (RESOLUTION - 1) / 2 - turn @ (np.array([sticker.x, sticker.y]) - (left, top))
    inverse = np.concatenate([turn, move[:, None]], axis=1)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(layers(sticker.kind), inverse, size, flags=flags, borderMode=cv2.BORDER_CONSTANT)
