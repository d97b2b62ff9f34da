"""Views on a sheet: one row a sample, its views side by side, under each view its parameters."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shards.preview_params import group_params
from shards.schema import DatasetInfo, ParamField, ViewSpec
from shards.sheet import FAINT, FRAME, GAP, HEAD, INK, LINE, MARGIN, Sheet, font
from shards.view_index import SplitIndex

if TYPE_CHECKING:
    from PIL.Image import Image

TILE = 128  # px, the least side of a drawn view
LABELS = 170  # px, for the text left of a row
_APART = 2 * GAP  # px, besides the usual, between a sequence and the next


@dataclass(frozen=True)
class Row:
    """A sample: lines of text about it, and pictures with what is under each: [P] parameters, or a line of text."""

    about: tuple[str, str, str]
    pictures: Sequence[tuple[np.ndarray | Image, np.ndarray | str]]


def draw_views(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`, with up to `views` distinct views; stored sequences stand apart."""
    columns = min(views, int(index.n_views[chosen].max()))
    about = f"{len(index):,} samples, {index.height} x {index.width} px, {index.encoding}"  # the font has no ×
    page = Rows(f"{info.name} · {index.name}", about, (index.width, index.height), spec.params, len(chosen))
    page.open(columns, apart=spec.sequence)
    for number, sample in enumerate(chosen.tolist()):
        label, held = int(index.labels[sample]), int(index.n_views[sample])
        count = f"{held // spec.sequence} sequences of {spec.sequence}" if spec.sequence else f"{held} views"
        shown = range(min(columns, held))
        pictures = [(index.read_view(sample, view), index.params[sample, view]) for view in shown]
        page.draw(number, Row((class_of(info, label), index.keys[sample], count), pictures))
    return page.sheet


def class_of(info: DatasetInfo, label: int) -> str:
    return info.classes[label] if label >= 0 and info.classes else "no class"


class Rows:
    """The rows of one sheet, of pictures `size` (width, height) px. Text that names lines stands left of them."""

    sheet: Sheet

    def __init__(
        self, title: str, about: str, size: tuple[int, int], params: tuple[ParamField, ...], rows: int
    ) -> None:
        scale = max(1.0, TILE / min(size))
        self.title, self.about, self.rows = title, about, rows
        self.tile = (round(size[0] * scale), round(size[1] * scale))
        self.groups = group_params(params)
        self.height = self.tile[1] + LINE * len(self.groups) + 2 * GAP + 4
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
        for line, group in enumerate(self.groups):
            sheet.pen.text((MARGIN + LABELS - 2 * GAP, self._y(y, line)), group.label, FAINT, sheet.small, anchor="ra")
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
