"""Views on a sheet: one row a sample, its views side by side, under each view its parameters."""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from shards.schema import DatasetInfo, ParamField, ViewSpec
from shards.sheet import FAINT, FRAME, GAP, HEAD, INK, LINE, MARGIN, Sheet, font
from shards.view_index import SplitIndex

TILE = 128  # px, the least side of a drawn view
LABELS = 170  # px, for the text left of a row


@dataclass(frozen=True)
class _Group:
    """Parameters that share a line: neighbours with one unit and one prefix, as rot_x, rot_y, rot_z."""

    label: str
    columns: list[int]
    unit: str

    @property
    def is_hue(self) -> bool:
        return self.label.endswith("hue") and self.unit == "1"

    def text(self, values: np.ndarray) -> str:
        if self.unit == "rad":
            return "  ".join(f"{math.degrees(values[c]):+.0f}°" for c in self.columns)
        return "  ".join(f"{values[c]:.2f}" for c in self.columns)


def draw_views(info: DatasetInfo, spec: ViewSpec, index: SplitIndex, chosen: np.ndarray, views: int) -> Sheet:
    """A row for each of the samples `chosen`, with up to `views` distinct views."""
    rows = _Rows(info, spec, index, min(views, int(index.n_views[chosen].max())), len(chosen))
    for row, sample in enumerate(chosen):
        rows.draw_sample(row, int(sample))
    return rows.sheet


def group_params(fields: tuple[ParamField, ...]) -> list[_Group]:
    """(rot_x, rot_y, rot_z) → one group "rot x y z"; a parameter of its own keeps its name."""
    named = [(f.name.rpartition("_")[0] or f.name, f.unit, f.name, column) for column, f in enumerate(fields)]
    groups = []
    for (prefix, unit), same in groupby(named, key=lambda item: item[:2]):
        members = list(same)
        ends = " ".join(name.removeprefix(f"{prefix}_") for _, _, name, _ in members)
        label = f"{prefix} {ends}" if ends != prefix else prefix
        groups.append(_Group(label, [column for *_, column in members], unit))
    return groups


class _Rows:
    """The rows of one sheet. Text that names lines stands left, in the row's height."""

    def __init__(self, info: DatasetInfo, spec: ViewSpec, index: SplitIndex, columns: int, rows: int) -> None:
        scale = max(1.0, TILE / min(index.height, index.width))
        self.index, self.columns, self.classes = index, columns, info.classes
        self.tile = (round(index.width * scale), round(index.height * scale))
        self.groups = group_params(spec.params)
        self.step = (self.tile[0] + GAP, self.tile[1] + LINE * len(self.groups) + 2 * GAP + 4)
        self.top = MARGIN + HEAD
        size = (2 * MARGIN + LABELS + columns * self.step[0] - GAP, self.top + rows * self.step[1] + MARGIN - GAP)
        about = f"{len(index):,} samples, {index.height} x {index.width} px, {index.encoding}"  # the font has no ×
        self.sheet = Sheet(size, f"{info.name} · {index.name}", about)

    def draw_sample(self, row: int, sample: int) -> None:
        y, index, sheet = self.top + row * self.step[1], self.index, self.sheet
        label = int(index.labels[sample])
        name = self.classes[label] if label >= 0 else "no class"
        lines = (name, index.keys[sample], f"{index.n_views[sample]} views")
        faces = ((0, INK, font(14)), (20, FAINT, sheet.small), (38, FAINT, sheet.small))
        for text, (down, colour, face) in zip(lines, faces, strict=True):
            sheet.clipped((MARGIN, y + down), text, LABELS - 2 * GAP, colour, face)
        for line, group in enumerate(self.groups):
            at = (MARGIN + LABELS - 2 * GAP, y + self.tile[1] + 5 + LINE * line)
            sheet.pen.text(at, group.label, FAINT, sheet.small, anchor="ra")
        for column in range(min(self.columns, int(index.n_views[sample]))):
            self._draw_view((MARGIN + LABELS + column * self.step[0], y), sample, column)

    def _draw_view(self, at: tuple[int, int], sample: int, view: int) -> None:
        x, y = at
        self.sheet.picture(at, self.index.read_view(sample, view), self.tile)
        values = self.index.params[sample, view]
        for line, group in enumerate(self.groups):
            top, left = y + self.tile[1] + 5 + LINE * line, x
            if group.is_hue:
                colour = colorsys.hsv_to_rgb(float(values[group.columns[0]]) % 1, 0.6, 0.9)
                box = (x, top + 2, x + 10, top + 12)
                self.sheet.pen.rectangle(box, fill=tuple(round(255 * c) for c in colour), outline=FRAME)
                left = x + 16
            self.sheet.pen.text((left, top), group.text(values), INK, self.sheet.small)
