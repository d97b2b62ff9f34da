"""Parameters of views as lines of text, those that belong together on one line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from shards.schema import ParamField

_BOX: tuple[str, ...] = ("crop_top", "crop_left", "crop_height", "crop_width")
_TOGETHER: tuple[tuple[str, ...], ...] = (_BOX, ("brightness", "contrast"), ("saturation", "hue"), ("x", "y"))
_LABELS: dict[tuple[str, ...], str] = {_BOX: "crop h x w at top, left"}  # the font has no ×


@dataclass(frozen=True)
class Group:
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
        if tuple(field.name for field in self.fields) == _BOX:
            top, left, height, width = (f"{value:g}" for value in own)
            return f"{height} x {width} at {top}, {left}"
        return "  ".join(_number(value, field) for value, field in zip(own, self.fields, strict=True))


def group_params(fields: tuple[ParamField, ...]) -> list[Group]:
    """(rot_x, rot_y, rot_z) → one group "rot x y z"; a parameter of its own keeps its name."""
    groups, start = [], 0
    while start < len(fields):
        members = _companions(fields[start:])
        columns = list(range(start, start + len(members)))
        groups.append(Group(_label(members), members, columns))
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
