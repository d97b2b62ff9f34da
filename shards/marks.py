"""Fixations on a picture: numbered dots in order of time, joined by a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shards.sheet import font

if TYPE_CHECKING:
    from PIL.Image import Image

FINE = 4  # drawn this much larger and shrunk, for smooth edges
RADIUS = 8  # px
LIGHT, DARK, FIRST = "#ffffff", "#10151c", "#7fdbff"


def draw_fixations(pixels: np.ndarray, fixations: np.ndarray, size: tuple[int, int]) -> Image:
    """uint8 [H, W, 3] at `size` (width, height) px, with fixations int [T, 2] (row, col) of the original's pixels."""
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    layer = Image.new("RGBA", (size[0] * FINE, size[1] * FINE))
    pen = ImageDraw.Draw(layer)
    scale = np.array([size[0] / width, size[1] / height]) * FINE
    dots = [tuple(dot) for dot in (np.asarray(fixations)[:, ::-1] + 0.5) * scale]
    for colour, thickness in ((DARK, 4), (LIGHT, 2)):
        pen.line(dots, fill=colour, width=thickness * FINE, joint="curve")
    for number, (x, y) in reversed(list(enumerate(dots, 1))):
        radius = RADIUS * FINE
        fill = FIRST if number == 1 else LIGHT
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=DARK, width=FINE)
        pen.text((x, y), str(number), DARK, font(11 * FINE), anchor="mm")
    picture.alpha_composite(layer.reduce(FINE))
    return picture.convert("RGB")
