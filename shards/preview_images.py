"""Images and saliency maps on a sheet: a grid of samples, each with its class and key underneath.

A sample of an `image` set is its image; of a `saliency` set, its image and beside it the same under its map, with
the fixations, if there are any, as numbered dots; of a `maps` set, its map.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from shards.image_index import ImageIndex
from shards.marks import draw_fixations
from shards.ramp import colours_of, overlay
from shards.schema import DatasetInfo
from shards.sheet import FAINT, GAP, HEAD, INK, MARGIN, Sheet, font

TILE = 176  # px, the longer side of a drawn image
WIDE = 1500  # px, which a sheet does not exceed
CAPTION = 44  # px, for the text under a sample

Fixations = Callable[[np.ndarray], np.ndarray]
"""float32 [n, H, W], the maps on the sheet, each of sum 1 → int [n, T, 2], (row, col) in order of time."""


def draw_images(info: DatasetInfo, index: ImageIndex, chosen: np.ndarray, fixations: Fixations | None) -> Sheet:
    """A cell for each of the samples `chosen`. Fixations are drawn in `saliency` sets."""
    points: np.ndarray | list[None] = [None] * len(chosen)
    if fixations and info.kind == "saliency":
        points = fixations(np.stack([index.read_map(int(sample)) for sample in chosen]))
    tiles = 2 if info.kind == "saliency" else 1
    cell = (tiles * (TILE + GAP // 2) - GAP // 2, _tallest(index, chosen) + CAPTION)
    columns = min(len(chosen), max(1, (WIDE - 2 * MARGIN) // (cell[0] + 2 * GAP)))
    columns = -(-len(chosen) // -(-len(chosen) // columns))  # as few rows, but even ones
    sheet = _blank(info, index, cell, columns, -(-len(chosen) // columns))
    for place, (sample, dots) in enumerate(zip(chosen, points, strict=True)):
        row, column = divmod(place, columns)
        at = (MARGIN + column * (cell[0] + 2 * GAP), MARGIN + HEAD + row * (cell[1] + GAP))
        _draw_cell(sheet, at, cell, info, index, int(sample), dots)
    return sheet


def _tallest(index: ImageIndex, chosen: np.ndarray) -> int:
    return max(_fitted(height, width)[1] for height, width in index.sizes[chosen])


def _fitted(height: int, width: int) -> tuple[int, int]:
    """(width, height) on the sheet: the longer side is TILE px."""
    scale = TILE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _blank(info: DatasetInfo, index: ImageIndex, cell: tuple[int, int], columns: int, rows: int) -> Sheet:
    heights, widths = index.sizes.min(0), index.sizes.max(0)
    size = f"{heights[0]} x {heights[1]}"  # the font has no ×
    size += f" to {widths[0]} x {widths[1]}" if (heights != widths).any() else ""
    stored = [index.encoding] * (index.encoding != "none") + [f"maps {index.saliency}"] * (index.saliency != "none")
    width = max(2 * MARGIN + columns * (cell[0] + 2 * GAP) - 2 * GAP, 560)
    sheet_size = (width, MARGIN + HEAD + rows * (cell[1] + GAP) - GAP + MARGIN)
    about = f"{len(index):,} samples, {size} px, {', '.join(stored)}"
    sheet = Sheet(sheet_size, f"{info.name} · {index.name}", about)
    if index.saliency != "none":
        _legend(sheet, width)
    return sheet


def _legend(sheet: Sheet, width: int) -> None:
    """A strip of the ramp under the heading."""
    strip, top = (96, 8), MARGIN + 25
    left = width - MARGIN - strip[0]
    ramp = np.tile(np.linspace(0, 1, strip[0]) ** 2, (strip[1], 1))
    sheet.picture((left, top), colours_of(ramp), strip)
    sheet.pen.text((left - 6, top - 4), "saliency, none to peak", FAINT, sheet.small, anchor="ra")


def _draw_cell(
    sheet: Sheet,
    at: tuple[int, int],
    cell: tuple[int, int],
    info: DatasetInfo,
    index: ImageIndex,
    sample: int,
    fixations: np.ndarray | None,
) -> None:
    (x, y), size = at, _fitted(*index.sizes[sample])
    for number, picture in enumerate(_pictures(index, sample, fixations)):
        sheet.picture((x + number * (TILE + GAP // 2), y), picture, size)
    label, key = int(index.labels[sample]), index.keys[sample]
    lines = [(info.classes[label] if label >= 0 else "no class", INK, font(14))] if info.classes else []
    lines.append((f"{key}, {index.sizes[sample, 0]} x {index.sizes[sample, 1]}", FAINT, sheet.small))
    if info.kind != "maps":
        lines[-1] = (key, FAINT, sheet.small)
    for line, (text, colour, face) in enumerate(lines):
        sheet.clipped((x, y + size[1] + 5 + 19 * line), text, cell[0], colour, face)


def _pictures(index: ImageIndex, sample: int, fixations: np.ndarray | None) -> list:
    if index.encoding == "none":
        return [colours_of(index.read_map(sample))]
    image = index.read_image(sample)
    if index.saliency == "none":
        return [image]
    covered = overlay(image, index.read_map(sample))
    size = _fitted(index.height, index.width)
    return [image, covered if fixations is None else draw_fixations(covered, fixations, size)]
