"""The contact sheet of a set, `seqjepa-data preview`: random samples of one split.

views            a row a sample: its views side by side, their parameters underneath
image, saliency  a grid of images, each with its class and key; a saliency set adds the same image under its map,
                 with fixations as numbered dots where they are asked for
maps             a grid of maps
augmented views  a row an image: the image with its crops numbered in view order, then the views. The caller passes
                 the function that makes them, because nothing here augments
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import ConfigError, UsageError
from shards.files import OwnFile, refuse_foreign, write_own
from shards.reader import ShardSet
from shards.schema import ActionTerm, DatasetInfo, ParamField, ViewSpec
from shards.sheet import (
    FAINT,
    FRAME,
    GAP,
    HEAD,
    INK,
    LINE,
    MAKER,
    MARGIN,
    SIGN,
    Sheet,
    colours_of,
    draw_boxes,
    draw_fixations,
    font,
    overlay,
)
from shards.split_index import ImageIndex, SplitIndex

if TYPE_CHECKING:
    from PIL.Image import Image


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
    the picture's folder does not exist, or something that is no preview has its name.
    """
    shards, out = ShardSet.open(path), Path(out_png)
    if samples < 1 or views < 1:
        raise UsageError("a preview needs a sample and a view: check --samples and --views")
    refuse_foreign(out, SIGN, MAKER)  # before anything is drawn
    sheet = _sheet(shards, split, (samples, views, seed), fixations, augmentation)
    write_own([OwnFile(out, sheet.png(), SIGN, MAKER)])
    return out


def _sheet(
    shards: ShardSet,
    split: str,
    wanted: tuple[int, int, int],
    fixations: Fixations | None,
    augmentation: Augmentation | None,
) -> Sheet:
    samples, views, seed = wanted
    if isinstance(spec := shards.info.spec, ViewSpec):
        if augmentation:
            raise ConfigError(f"{shards.path} holds views that are made already; augmentations are shown of images")
        index = shards.split(split)
        firsts = np.flatnonzero(index.chunk == 0)  # a row for each sequence, whatever samples it takes
        return draw_views(shards.info, spec, index, firsts[_chosen(len(firsts), samples, seed)], views)
    index = shards.images(split)
    chosen = _chosen(len(index), samples, seed)
    if augmentation:
        return draw_augmented(shards.info, index, chosen, augmentation)
    return draw_images(shards.info, index, chosen, fixations)


def _chosen(total: int, samples: int, seed: int) -> np.ndarray:
    """Some of `total` samples, in stored order."""
    return np.sort(np.random.default_rng(seed).permutation(total)[: min(samples, total)])


VIEW_TILE = 128  # px, the least side of a drawn view
LABELS = 170  # px, for the text left of a row
_APART = 2 * GAP  # px, besides the usual, between a sequence and the next


@dataclass(frozen=True)
class Row:
    """A sample: lines of text about it, and pictures with what is under each: [P] parameters, or a line of text.

    more: further lines under the first pictures, under their parameters
    """

    about: tuple[str, str, str]
    pictures: Sequence[tuple[np.ndarray | Image, np.ndarray | str]]
    more: Sequence[Sequence[str]] = ()


def draw_views(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`, with up to `views` distinct views, also of its sequence's other samples;
    stored sequences stand apart."""
    sequences = index.sequences
    columns = min(views, int(sequences.counts[chosen].max()))
    many = f"{len(sequences.bounds) - 1:,} sequences" if spec.chunked else f"{len(index):,} samples"
    about = f"{many}, {index.height} x {index.width} px, {index.encoding}"  # the font has no ×
    page = Rows(f"{info.name} · {index.name}", about, (index.width, index.height), spec.params, len(chosen))
    page.open(columns, apart=spec.sequence)
    for number, sample in enumerate(chosen.tolist()):
        label, held = int(index.labels[sample]), int(sequences.counts[sample])
        count = f"{held // spec.sequence} sequences of {spec.sequence}" if spec.sequence else f"{held} views"
        shown = sequences.locate(sequences.starts[sample] + np.arange(min(columns, held)))
        places = zip(*(numbers.tolist() for numbers in shown), strict=True)
        pictures = [(index.read_view(row, view), index.params[row, view]) for row, view in places]
        page.draw(number, Row((class_of(info, label), index.keys[sample], count), pictures))
    return page.sheet


def class_of(info: DatasetInfo, label: int) -> str:
    return info.classes[label] if label >= 0 and info.classes else "no class"


NUMBERS = 3  # of an action's term that are written


def label_of_term(term: ActionTerm) -> str:
    named = term.columns[0] if len(term.columns) == 1 else f"{term.columns[0]} …"
    return f"to next: {named}"


def words_of_term(term: ActionTerm, numbers: np.ndarray) -> str:
    """An action's numbers float [size of the term]: angles in degrees; of a rotation how far it turns."""
    if term.op == "angle_difference":
        return " ".join(f"{np.degrees(value):.1f}°" for value in numbers[:NUMBERS])
    if term.op == "categorical":
        return f"{term.values[int(numbers.argmax())]:g}"
    if term.op in ("relative_rotation", "relative_pose") and term.result == "quaternion":
        turn = np.degrees(2 * np.arctan2(np.linalg.norm(numbers[:3]), abs(numbers[3])))
        return " ".join([f"{turn:.1f}°", *(f"{value:.3g}" for value in numbers[4:])])
    return " ".join(f"{value:.3g}" for value in numbers[:NUMBERS]) + (" …" if len(numbers) > NUMBERS else "")


class Rows:
    """The rows of one sheet, of pictures `size` (width, height) px. Text that names lines stands left of them.

    more: names of further lines below those of the parameters
    """

    sheet: Sheet

    def __init__(
        self,
        title: str,
        about: str,
        size: tuple[int, int],
        params: tuple[ParamField, ...],
        rows: int,
        more: Sequence[str] = (),
    ) -> None:
        scale = max(1.0, VIEW_TILE / min(size))
        self.title, self.about, self.rows = title, about, rows
        self.tile = (round(size[0] * scale), round(size[1] * scale))
        self.groups, self.more = group_params(params), more
        self.height = self.tile[1] + LINE * (len(self.groups) + len(more)) + 2 * GAP + 4
        self.top = MARGIN + HEAD

    def open(self, columns: int, apart: int = 0) -> None:
        """A blank sheet for rows of so many views, with more room after each `apart` of them."""
        self.apart = apart
        size = (self._x(columns - 1) + self.tile[0] + MARGIN, self.top + self.rows * self.height + MARGIN - GAP)
        self.sheet = Sheet(size, self.title, self.about)

    def draw(self, number: int, row: Row) -> None:
        y, sheet = self.top + number * self.height, self.sheet
        faces = ((0, INK, font(14)), (20, FAINT, sheet.small), (38, FAINT, sheet.small))
        for text, (down, colour, face) in zip(row.about, faces, strict=True):
            sheet.clipped((MARGIN, y + down), text, LABELS - 2 * GAP, colour, face)
        for line, label in enumerate([*(group.label for group in self.groups), *self.more]):
            sheet.pen.text((MARGIN + LABELS - 2 * GAP, self._y(y, line)), label, FAINT, sheet.small, anchor="ra")
        for column, lines in enumerate(row.more):
            for line, text in enumerate(lines, len(self.groups)):
                sheet.clipped((self._x(column), self._y(y, line)), text, self.tile[0] + GAP, INK, sheet.small)
        for column, (picture, under) in enumerate(row.pictures):
            x = self._x(column)
            sheet.picture((x, y), picture, self.tile)
            if isinstance(under, str):
                sheet.pen.text((x, self._y(y, 0)), under, FAINT, sheet.small)
            else:
                self._write((x, y), under)

    def _x(self, column: int) -> int:
        breaks = column // self.apart if self.apart else 0
        return MARGIN + LABELS + column * (self.tile[0] + GAP) + breaks * _APART

    def _y(self, y: int, line: int) -> int:
        return y + self.tile[1] + 5 + LINE * line

    def _write(self, at: tuple[int, int], values: np.ndarray) -> None:
        """The parameters under the view at `at`."""
        for line, group in enumerate(self.groups):
            x, top = at[0], self._y(at[1], line)
            if group.is_hue:
                colour = colorsys.hsv_to_rgb(float(values[group.columns[0]]) % 1, 0.6, 0.9)
                box = (x, top + 2, x + 10, top + 12)
                self.sheet.pen.rectangle(box, fill=tuple(round(255 * c) for c in colour), outline=FRAME)
                x += 16
            self.sheet.pen.text((x, top), group.text(values), INK, self.sheet.small)


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
    cell = (tiles * (IMAGE_TILE + GAP // 2) - GAP // 2, _tallest(index, chosen) + CAPTION)
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


_CROP: tuple[str, ...] = ("crop_top", "crop_left", "crop_height", "crop_width")


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
    page = Rows(f"{info.name} · {index.name}", about, size, augmentation.params, len(chosen))
    page.open(1 + views.shape[1], apart=0)
    for number, sample in enumerate(chosen.tolist()):
        image = draw_boxes(images[number], _boxes(params[number], augmentation.params), page.tile)
        pictures = [(image, "image and crops"), *zip(views[number], params[number], strict=True)]
        label = class_of(info, int(index.labels[sample]))
        page.draw(number, Row((label, index.keys[sample], f"{len(views[number])} views"), pictures))
    return page.sheet


def _boxes(params: np.ndarray, fields: tuple[ParamField, ...]) -> np.ndarray:
    """float32 [T, P] → [T, 4] top, left, height, width; none if there are no crops."""
    names = [field.name for field in fields]
    if not set(_CROP) <= set(names):
        return np.empty((0, 4))
    return params[:, [names.index(name) for name in _CROP]]


_TOGETHER: tuple[tuple[str, ...], ...] = (_CROP, ("brightness", "contrast"), ("saturation", "hue"), ("x", "y"))
_LABELS: dict[tuple[str, ...], str] = {_CROP: "crop h x w at top, left"}  # the font has no ×


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a line: known companions, or neighbours with one unit and one prefix (rot_x, rot_y)."""

    label: str
    fields: tuple[ParamField, ...]
    columns: list[int]

    @property
    def is_hue(self) -> bool:
        """A hue in itself, which a colour can show; not a shift of hues, which is in turns."""
        return self.label.endswith("hue") and self.fields[-1].unit == "1"

    def text(self, values: np.ndarray) -> str:
        """The group's part of the values [P] of one view. Angles are in degrees."""
        own = [float(values[column]) for column in self.columns]
        if tuple(field.name for field in self.fields) == _CROP:
            top, left, height, width = (f"{value:g}" for value in own)
            return f"{height} x {width} at {top}, {left}"
        return "  ".join(_number(value, field) for value, field in zip(own, self.fields, strict=True))


def group_params(fields: tuple[ParamField, ...]) -> list[ParamGroup]:
    """(rot_x, rot_y, rot_z) → one group "rot x y z"; a parameter of its own keeps its name."""
    groups, start = [], 0
    while start < len(fields):
        members = _companions(fields[start:])
        columns = list(range(start, start + len(members)))
        groups.append(ParamGroup(_label(members), members, columns))
        start += len(members)
    return groups


def _companions(fields: tuple[ParamField, ...]) -> tuple[ParamField, ...]:
    """Those at the beginning of `fields` that share a line."""
    names = tuple(field.name for field in fields)
    for known in _TOGETHER:
        if names[: len(known)] == known:
            return fields[: len(known)]
    _, same = next(groupby(fields, key=lambda field: (_prefix(field), field.unit)))
    return tuple(same)


def _prefix(field: ParamField) -> str:
    return field.name.rpartition("_")[0] or field.name


def _label(members: tuple[ParamField, ...]) -> str:
    names = tuple(field.name for field in members)
    if names in _TOGETHER:
        return _LABELS.get(names, ", ".join(names))
    prefix = _prefix(members[0])
    ends = " ".join(name.removeprefix(f"{prefix}_") for name in names)
    return f"{prefix} {ends}" if ends != prefix else prefix


def _number(value: float, field: ParamField) -> str:
    if field.unit == "rad":
        return f"{math.degrees(value):+.0f}°"
    return f"{value:+.2f}" if field.unit == "turn" else f"{value:.2f}"
