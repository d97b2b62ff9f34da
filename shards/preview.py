"""A contact sheet: one row a sample, its views side by side, under each view its parameters."""

from __future__ import annotations

import colorsys
import io
import math
import tempfile
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import UsageError
from shards.files import disk_full_named, write_atomic
from shards.reader import ShardSet, SplitIndex
from shards.schema import ParamField

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

TILE = 128  # px, the least side of a drawn view
GAP, MARGIN, LABELS, LINE = 10, 20, 170, 16
PAPER, INK, FAINT, FRAME = "#ffffff", "#1b1f24", "#6a737d", "#d0d7de"


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


def contact_sheet(
    path: str | Path, split: str, out_png: str | Path, samples: int = 8, views: int = 8, seed: int = 0
) -> Path:
    """Draws `samples` random samples (chosen by `seed`) and up to `views` distinct views of each; returns the file.

    Views smaller than 128 px are drawn at 128; angles are in degrees. ConfigError: no such split.
    UsageError: no sample or view asked for, or the picture's folder does not exist.
    """
    shards, out = ShardSet.open(path), Path(out_png)
    if samples < 1 or views < 1 or not out.parent.is_dir():
        raise UsageError(f"a preview needs a sample, a view and the folder {out.parent}: check --samples and --out")
    index = shards.split(split)
    count = min(samples, len(index))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(index))[:count])
    sheet = _Sheet(shards, index, min(views, int(index.n_views[chosen].max())), count)
    for row, sample in enumerate(chosen):
        sheet.draw_sample(row, int(sample))
    with disk_full_named(out, lambda: "free some"), tempfile.TemporaryDirectory(dir=out.parent) as tmp:
        write_atomic(out, sheet.png(), Path(tmp))
    return out


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


class _Sheet:
    """The picture being drawn. Text that names lines stands left, in the row's height."""

    def __init__(self, shards: ShardSet, index: SplitIndex, columns: int, rows: int) -> None:
        from PIL import Image, ImageDraw

        spec = shards.info.spec
        scale = max(1.0, TILE / min(spec.height, spec.width))
        self.index, self.columns, self.classes = index, columns, shards.info.classes
        self.tile = (round(spec.width * scale), round(spec.height * scale))
        self.groups = group_params(spec.params)
        self.step = (self.tile[0] + GAP, self.tile[1] + LINE * len(self.groups) + 2 * GAP + 4)
        self.top = MARGIN + 44
        size = (2 * MARGIN + LABELS + columns * self.step[0] - GAP, self.top + rows * self.step[1] + MARGIN - GAP)
        self.image = Image.new("RGB", size, PAPER)
        self.pen: ImageDraw = ImageDraw.Draw(self.image)
        self.small, self.large = _font(12), _font(18)
        self.pen.text((MARGIN, MARGIN), f"{shards.info.name} · {index.name}", INK, self.large)
        about = f"{len(index):,} samples, {spec.height} x {spec.width} px, {spec.encoding}"  # the font has no ×
        self.pen.text((size[0] - MARGIN, MARGIN + 5), about, FAINT, self.small, anchor="ra")

    def draw_sample(self, row: int, sample: int) -> None:
        y, index = self.top + row * self.step[1], self.index
        label = int(index.labels[sample])
        self._clipped((MARGIN, y), self.classes[label] if label >= 0 else "no class", INK, _font(14))
        self._clipped((MARGIN, y + 20), index.keys[sample], FAINT, self.small)
        self._clipped((MARGIN, y + 38), f"{index.n_views[sample]} views", FAINT, self.small)
        for line, group in enumerate(self.groups):
            at = (MARGIN + LABELS - 2 * GAP, y + self.tile[1] + 5 + LINE * line)
            self.pen.text(at, group.label, FAINT, self.small, anchor="ra")
        for column in range(min(self.columns, int(index.n_views[sample]))):
            self._draw_view((MARGIN + LABELS + column * self.step[0], y), sample, column)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _draw_view(self, at: tuple[int, int], sample: int, view: int) -> None:
        from PIL import Image

        x, y = at
        picture = Image.fromarray(self.index.read_view(sample, view))
        self.image.paste(picture.resize(self.tile, Image.Resampling.BICUBIC), at)
        self.pen.rectangle((x - 1, y - 1, x + self.tile[0], y + self.tile[1]), outline=FRAME)
        values = self.index.params[sample, view]
        for line, group in enumerate(self.groups):
            top, left = y + self.tile[1] + 5 + LINE * line, x
            if group.is_hue:
                colour = colorsys.hsv_to_rgb(float(values[group.columns[0]]) % 1, 0.6, 0.9)
                box = (x, top + 2, x + 10, top + 12)
                self.pen.rectangle(box, fill=tuple(round(255 * c) for c in colour), outline=FRAME)
                left = x + 16
            self.pen.text((left, top), group.text(values), INK, self.small)

    def _clipped(self, at: tuple[int, int], text: str, colour: str, font: FreeTypeFont | ImageFont) -> None:
        """Draws `text`, cut with an ellipsis where it would run into the views."""
        while text and self.pen.textlength(text, font) > LABELS - 2 * GAP:
            text = text.rstrip("…")[:-1] + "…"
        self.pen.text(at, text, colour, font)


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size)
