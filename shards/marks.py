"""Marks on a picture: fixations as numbered dots, joined by a line in order of time; crops as numbered boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shards.sheet import font

if TYPE_CHECKING:
    from PIL.Image import Image

FINE = 4  # drawn this much larger and shrunk, for smooth edges
RADIUS = 8  # px
LIGHT, DARK, FIRST = "#ffffff", "#10151c", "#7fdbff"
BOXES = ("#ffb000", "#4cc9f0", "#f15bb5", "#80ed99", "#fee440", "#9b9bff", "#ff6b35", "#d0d7de")


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


def draw_boxes(pixels: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Image:
    """uint8 [H, W, 3] at `size` (width, height) px, with boxes [T, 4] (top, left, height, width) of its pixels.

    Each in a colour of its own (of eight), with its number in a corner, so that boxes with common edges can be told.
    """
    from PIL import Image, ImageDraw

    height, width = pixels.shape[:2]
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 2, 2)
    corners = np.stack([corners[:, 0], corners.sum(1)], axis=1) * [size[1] / height, size[0] / width]
    for number, ((top, left), (bottom, right)) in enumerate(np.round(corners).astype(int).tolist()):
        pen.rectangle((left, top, right - 1, bottom - 1), outline=BOXES[number % len(BOXES)], width=2)
    for number, ((top, left), (bottom, right)) in enumerate(np.round(corners).astype(int).tolist()):
        x = right - 14 if number % 4 in (1, 2) else left + 2  # a corner of its own: boxes often share one
        y = bottom - 15 if number % 4 in (1, 3) else top + 2
        pen.rectangle((x, y, x + 11, y + 12), fill=BOXES[number % len(BOXES)])
        pen.text((x + 6, y + 6), str(number + 1), DARK, font(10), anchor="mm")
    return picture
