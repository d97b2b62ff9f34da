"""The contact sheet of a set, `seqjepa-data preview`: random samples of one split.

views            a row a sample: its views side by side, their parameters underneath; of features, how alike the views
                 are, and a colour for each
image, saliency  a grid of images, each with its class and key; a saliency set adds the same image under its map,
                 with fixations as numbered dots where they are asked for
maps             a grid of maps
augmented views  a row an image: the image with its crops numbered in view order, then the views. The caller passes
                 the function that makes them, because nothing here augments
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import ConfigError, UsageError
from shards.machine.files import OwnFile, write_own
from shards.preview.rows import CROP, Rows, class_of
from shards.preview.sheet import (
    FAINT,
    GAP,
    HEAD,
    INK,
    MAKER,
    MARGIN,
    SIGN,
    Sheet,
    check_sheet,
    colours_of,
    draw_boxes,
    draw_fixations,
    font,
    overlay,
)
from shards.reader import ShardSet
from shards.reading.split_index import ImageIndex, SplitIndex
from shards.schema import DatasetInfo, ParamField, ViewSpec
from shards.vector_reader import VectorReader


def contact_sheet(
    path: str | Path,
    split: str,
    out_png: str | Path,
    samples: int = 8,
    views: int = 8,
    seed: int = 0,
    fixations: Fixations | None = None,
    augmentation: Augmentation | None = None,
) -> Path:
    """Draws `samples` random samples (chosen by `seed`); returns the file.

    views      of a `views` set: up to this many distinct ones of each; angles are in degrees
    fixations  of a `saliency` set: where one looks, from the maps on the sheet: float32 [n, H, W] → int [n, T, 2],
               (row, col)
    augmentation  of a set of images: what makes the views that are drawn, beside each image

    ConfigError: no such split, or augmentations of a set without images. UsageError: no sample or view asked for;
    the picture's folder does not exist, its name is not of a PNG, or something that is no preview has it.
    """
    shards, out = ShardSet.open(path), Path(out_png)
    if samples < 1 or views < 1:
        raise UsageError("a preview needs a sample and a view: check --samples and --views")
    check_sheet(out)  # before anything is drawn
    info = shards.info
    if isinstance(info.spec, ViewSpec):
        if augmentation:
            raise ConfigError(f"{shards.place} holds views that are made already; augmentations are shown of images")
        index = shards.split(split)
        firsts = np.flatnonzero(index.chunk == 0)  # a row for each sequence, whatever samples it takes
        chosen = firsts[_chosen(len(firsts), samples, seed)]
        sheet = (draw_features if info.spec.features else draw_views)(info, info.spec, index, chosen, views)
    else:
        index = shards.images(split)
        chosen = _chosen(len(index), samples, seed)
        if augmentation:
            sheet = draw_augmented(info, index, chosen, augmentation)
        else:
            sheet = draw_images(info, index, chosen, fixations)
    write_own([OwnFile(out, sheet.png(), SIGN, MAKER)])
    return out


def _chosen(total: int, samples: int, seed: int) -> np.ndarray:
    """Some of `total` samples, in stored order."""
    return np.sort(np.random.default_rng(seed).permutation(total)[: min(samples, total)])


def draw_views(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`, with up to `views` distinct views, also of its sequence's other samples;
    stored sequences stand apart."""
    sequences = index.sequences
    columns = min(views, int(sequences.counts[chosen].max()))
    many = f"{len(sequences.bounds) - 1:,} sequences" if spec.chunked else f"{len(index):,} samples"
    about = f"{many}, {index.height} x {index.width} px, {index.encoding}"  # the font has no ×
    title, size = f"{info.name} · {index.name}", (index.width, index.height)
    page = Rows(title, about, size, spec.params, len(chosen), columns, apart=spec.sequence)
    for number, sample in enumerate(chosen.tolist()):
        label, held = class_of(info, int(index.labels[sample])), int(sequences.counts[sample])
        count = f"{held // spec.sequence} sequences of {spec.sequence}" if spec.sequence else f"{held} views"
        shown = sequences.locate(sequences.starts[sample] + np.arange(min(columns, held)))
        places = zip(*(numbers.tolist() for numbers in shown), strict=True)
        pictures = [(index.read_view(row, view), index.params[row, view]) for row, view in places]
        page.draw(number, (label, index.keys[sample], count), pictures)
    return page.sheet


VECTOR_TILE = 128  # px


def draw_features(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`: the cosines between up to `views` of its views as a square (the brighter
    the more alike, from the least of the sheet to 1), then each view in the colour of its first three principal
    components over the sheet."""
    assert spec.features is not None, "a set of features"
    reader, sequences = VectorReader(index), index.sequences
    columns = min(views, int(sequences.counts[chosen].max()))
    held = np.minimum(sequences.counts[chosen], columns)
    frames = [sequences.starts[row] + np.arange(count) for row, count in zip(chosen, held, strict=True)]
    places = [sequences.locate(some) for some in frames]
    vectors = [reader.take(*some).astype(np.float64) for some in places]
    colours = np.split(principal_colours(np.concatenate(vectors)), np.cumsum(held)[:-1])
    alike = [cosines(some) for some in vectors]
    least = min(float(square.min()) for square in alike)
    features = spec.features
    about = f"{len(index):,} samples, {features.size} features of {features.backbone}, {features.dtype}"
    size = (VECTOR_TILE, VECTOR_TILE)
    page = Rows(f"{info.name} · {index.name}", about, size, spec.params, len(chosen), 1 + columns)
    for number, sample in enumerate(chosen.tolist()):
        square = colours_of(alike[number] - least + 1e-9)
        places_on_tile = np.arange(VECTOR_TILE) * len(square) // VECTOR_TILE  # blown up without blurring
        pictures = [(square[places_on_tile][:, places_on_tile], f"cosine {least:.2f} to 1")]
        pictures += [
            (np.tile(colour, (VECTOR_TILE, VECTOR_TILE, 1)), index.params[row, slot])
            for colour, row, slot in zip(colours[number], *places[number], strict=True)
        ]
        label = class_of(info, int(index.labels[sample]))
        page.draw(number, (label, index.keys[sample], f"{sequences.counts[sample]} views"), pictures)
    return page.sheet


def cosines(vectors: np.ndarray) -> np.ndarray:
    """float [n, D] → cosine of each two [n, n]; 0 with a vector of zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(length > 0, length, 1)
    return np.clip(unit @ unit.T, -1, 1)


def principal_colours(vectors: np.ndarray) -> np.ndarray:
    """float [n, D] → uint8 [n, 3]: the first three principal components, each from its least (0) to its most (255).

    The sign of a component is the one in which its largest loading is positive; components that do not vary are grey.
    """
    centred = vectors - vectors.mean(0)
    _, strengths, axes = np.linalg.svd(centred, full_matrices=False)
    colours = np.full((len(vectors), 3), 128, np.uint8)
    for channel, (strength, axis) in enumerate(zip(strengths[:3], axes[:3], strict=True)):
        if strength > 1e-9 * max(1.0, float(np.abs(vectors).max())):
            values = centred @ (axis * np.sign(axis[np.abs(axis).argmax()]))
            colours[:, channel] = np.rint(255 * (values - values.min()) / np.ptp(values))
    return colours


IMAGE_TILE = 176  # px, the longer side of a drawn image
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
    tallest = max(_fitted(height, width)[1] for height, width in index.sizes[chosen])
    cell = (tiles * (IMAGE_TILE + GAP // 2) - GAP // 2, tallest + CAPTION)
    columns = min(len(chosen), max(1, (WIDE - 2 * MARGIN) // (cell[0] + 2 * GAP)))
    columns = -(-len(chosen) // -(-len(chosen) // columns))  # as few rows, but even ones
    sheet = _blank(info, index, cell, columns, -(-len(chosen) // columns))
    for place, (sample, dots) in enumerate(zip(chosen, points, strict=True)):
        row, column = divmod(place, columns)
        at = (MARGIN + column * (cell[0] + 2 * GAP), MARGIN + HEAD + row * (cell[1] + GAP))
        _draw_cell(sheet, at, cell, info, index, int(sample), dots)
    return sheet


def _fitted(height: int, width: int) -> tuple[int, int]:
    """(width, height) on the sheet: the longer side is IMAGE_TILE px."""
    scale = IMAGE_TILE / max(height, width)
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
        strip, top = (96, 8), MARGIN + 25  # of the ramp, under the heading
        left = width - MARGIN - strip[0]
        ramp = np.tile(np.linspace(0, 1, strip[0]) ** 2, (strip[1], 1))
        sheet.picture((left, top), colours_of(ramp), strip)
        sheet.pen.text((left - 6, top - 4), "saliency, none to peak", FAINT, sheet.small, anchor="ra")
    return sheet


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
        sheet.picture((x + number * (IMAGE_TILE + GAP // 2), y), picture, size)
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


@dataclass(frozen=True)
class Augmentation:
    """What makes views: images uint8 [n, H, W, 3] and their rows in the split int64 [n] → views, parameters.

    make    gives views uint8 [n, T, h, w, 3] and float32 [n, T, P], the columns being `params`
    params  of which the crop's four, if all are there, are drawn on the image
    """

    make: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    params: tuple[ParamField, ...]


def draw_augmented(info: DatasetInfo, index: ImageIndex, chosen: np.ndarray, augmentation: Augmentation) -> Sheet:
    """A row for each of the samples `chosen`. ConfigError: the set holds maps without images."""
    if index.encoding == "none":
        raise ConfigError(f"{info.name} holds maps without images; augmentations are shown of images")
    images = np.stack([index.read_image(sample) for sample in chosen.tolist()])
    views, params = augmentation.make(images, chosen)
    about = f"{len(index):,} samples, {index.height} x {index.width} px; the last view is the target"
    size = (views.shape[3], views.shape[2])
    page = Rows(f"{info.name} · {index.name}", about, size, augmentation.params, len(chosen), 1 + views.shape[1])
    for number, sample in enumerate(chosen.tolist()):
        image = draw_boxes(images[number], _boxes(params[number], augmentation.params), page.tile)
        pictures = [(image, "image and crops"), *zip(views[number], params[number], strict=True)]
        label = class_of(info, int(index.labels[sample]))
        page.draw(number, (label, index.keys[sample], f"{len(views[number])} views"), pictures)
    return page.sheet


def _boxes(params: np.ndarray, fields: tuple[ParamField, ...]) -> np.ndarray:
    """float32 [T, P] → [T, 4] top, left, height, width; none if there are no crops."""
    names = [field.name for field in fields]
    if not set(CROP) <= set(names):
        return np.empty((0, 4))
    return params[:, [names.index(name) for name in CROP]]
