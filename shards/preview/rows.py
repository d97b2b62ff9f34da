"""Rows of pictures on a sheet, the parameters of each view underneath: what previews of views are drawn with."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from shards.preview.sheet import FAINT, FRAME, GAP, HEAD, INK, LINE, MARGIN, Sheet, font
from shards.schema import ActionTerm, DatasetInfo, ParamField

if TYPE_CHECKING:
    from PIL.Image import Image

VIEW_TILE = 128  # px, the least side of a drawn view
LABELS = 170  # px, for the text left of a row
_APART = 2 * GAP  # px, besides the usual, between a sequence and the next


def class_of(info: DatasetInfo, label: int) -> str:
    return info.classes[label] if label >= 0 and info.classes else "no class"


NUMBERS = 3  # of an action's term that are written


def label_of_term(term: ActionTerm) -> str:
    named = term.columns[0] if len(term.columns) == 1 else f"{term.columns[0]} …"
    return f"to next: {named}"


def words_of_terms(terms: Sequence[ActionTerm], actions: np.ndarray) -> list[list[str]]:
    """Actions float [n, numbers of all terms] → of each a line for each term."""
    ends = np.cumsum([term.size for term in terms])[:-1]
    pairs = list(zip(terms, np.split(actions.astype(np.float64), ends, axis=1), strict=False))
    return [[_words_of_term(term, part[i]) for term, part in pairs] for i in range(len(actions))]


def _words_of_term(term: ActionTerm, numbers: np.ndarray) -> str:
    """An action's numbers float [size of the term]: angles in degrees; of a rotation how far it turns."""
    if term.op == "angle_difference":
        return " ".join(f"{np.degrees(value):.1f}°" for value in numbers[:NUMBERS])
    if term.op == "categorical":
        return f"{term.values[int(numbers.argmax())]:g}"
    if term.op in ("relative_rotation", "relative_pose") and term.result != "6d":
        turn = np.degrees(2 * np.arctan2(np.linalg.norm(numbers[:3]), abs(numbers[3])))
        return " ".join([f"{turn:.1f}°", *(f"{value:.3g}" for value in numbers[4:])])
    return " ".join(f"{value:.3g}" for value in numbers[:NUMBERS]) + (" …" if len(numbers) > NUMBERS else "")


class Rows:
    """A sheet of rows × columns pictures of `size` (width, height) px. Text that names lines stands left of them.

    more: names of further lines below those of the parameters
    apart: with more room after each so many pictures of a row; 0: nowhere
    """

    def __init__(
        self,
        title: str,
        about: str,
        size: tuple[int, int],
        params: tuple[ParamField, ...],
        rows: int,
        columns: int,
        more: Sequence[str] = (),
        apart: int = 0,
    ) -> None:
        scale = max(1.0, VIEW_TILE / min(size))
        self.tile = (round(size[0] * scale), round(size[1] * scale))
        self.groups, self.more, self.apart = group_params(params), more, apart
        self.height = self.tile[1] + LINE * (len(self.groups) + len(more)) + 2 * GAP + 4
        self.top = MARGIN + HEAD
        whole = (self._x(columns - 1) + self.tile[0] + MARGIN, self.top + rows * self.height + MARGIN - GAP)
        self.sheet = Sheet(whole, title, about)

    def draw(
        self,
        number: int,
        about: tuple[str, str, str],
        pictures: Sequence[tuple[np.ndarray | Image, np.ndarray | str]],
        more: Sequence[Sequence[str]] = (),
    ) -> None:
        """A sample: lines of text about it, and pictures with what is under each: [P] parameters, or a line of text.

        more: further lines under the first pictures, under their parameters
        """
        y, sheet = self.top + number * self.height, self.sheet
        faces = ((0, INK, font(14)), (20, FAINT, sheet.small), (38, FAINT, sheet.small))
        for text, (down, colour, face) in zip(about, faces, strict=True):
            sheet.clipped((MARGIN, y + down), text, LABELS - 2 * GAP, colour, face)
        for line, label in enumerate([*(group.label for group in self.groups), *self.more]):
            sheet.pen.text((MARGIN + LABELS - 2 * GAP, self._y(y, line)), label, FAINT, sheet.small, anchor="ra")
        for column, lines in enumerate(more):
            for line, text in enumerate(lines, len(self.groups)):
                sheet.clipped((self._x(column), self._y(y, line)), text, self.tile[0] + GAP, INK, sheet.small)
        for column, (picture, under) in enumerate(pictures):
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


CROP: tuple[str, ...] = ("crop_top", "crop_left", "crop_height", "crop_width")
_TOGETHER: tuple[tuple[str, ...], ...] = (CROP, ("brightness", "contrast"), ("saturation", "hue"), ("x", "y"))
_LABELS: dict[tuple[str, ...], str] = {CROP: "crop h x w at top, left"}  # the font has no ×


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
        if tuple(field.name for field in self.fields) == CROP:
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
