"""Drawings as inline SVG whose colours are the page's: text stays text, and a dark page gets a dark chart."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Drawn in these stand-ins, which no chart uses otherwise, then swapped for what the style sheet defines.
INK, FAINT, PUBLISHED = "#010203", "#010204", "#01020b"
SERIES = tuple(f"#0102{5 + k:02x}" for k in range(6))
LONGEST_LINE = 28
"""Letters of a name in one line."""
RASTER_DPI = 160
"""Of clouds of points, which would be megabytes as shapes."""
CSS_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--rule)",
    PUBLISHED: "var(--published)",
    **{stand_in: f"var(--series-{k})" for k, stand_in in enumerate(SERIES, start=1)},
}
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def draw(paint: Callable[[Axes], object], alt: str, *, size: tuple[float, float] = (5, 3)) -> str:
    """An <svg> of `size` (inches at 72 px) that `paint` drew on, with `alt` as its accessible name.

    Drawings that share a page need different `alt`s: ids inside are derived from it. Same input, same bytes.
    """
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": alt}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure.add_subplot())
        return _inline(figure, alt)


def wrapped(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Names that stand beside a chart, in lines short enough to leave the axes room; and how many lines each has."""
    texts = ["\n".join(textwrap.wrap(name, LONGEST_LINE)) for name in names]
    return texts, [text.count("\n") + 1 for text in texts]


def spread_apart(wanted: list[float], gap: float, high: float, lines: Sequence[int] = ()) -> list[float]:
    """Heights near those `wanted`, at least `gap` apart, and not above `high` unless there are too many for that.

    lines: of text at each height, where some have more than one; they keep so many gaps between their middles.
    """
    placed = dict.fromkeys(range(len(wanted)), 0.0)
    order = sorted(placed, key=lambda k: wanted[k])
    count = lines or [1] * len(wanted)
    gaps = [gap * (count[below] + count[above]) / 2 for below, above in pairwise(order)]
    floor = float("-inf")
    for k, room in zip(order, [*gaps, gap], strict=False):
        placed[k] = max(wanted[k], floor)
        floor = placed[k] + room
    ceiling = high
    for k, room in zip(reversed(order), [*reversed(gaps), gap], strict=False):
        placed[k] = min(placed[k], ceiling)
        ceiling = placed[k] - room
    return list(placed.values())


def _inline(figure: Figure, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", dpi=RASTER_DPI, transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    svg = re.sub(r' id="(?![mp][0-9a-f]{10})[^"]*"', "", svg)  # repeated in every chart; clips and markers are not
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for stand_in, colour in CSS_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1).strip()
