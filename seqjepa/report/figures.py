"""Charts as inline SVG whose colours are the page's: text stays text, and a dark page gets a dark chart."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Drawn in these stand-ins, which no chart uses otherwise, then swapped for what the style sheet defines.
INK, FAINT = "#010203", "#010204"
SERIES = ("#010205", "#010206", "#010207")
CSS_COLOURS = {
    INK: "currentColor",
    FAINT: "var(--rule)",
    SERIES[0]: "var(--series-1)",
    SERIES[1]: "var(--series-2)",
    SERIES[2]: "var(--series-3)",
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
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Line:
    """One named curve: x and y of equal length."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def line_chart(
    lines: Sequence[Line], *, x_label: str, y_label: str, alt: str, markers: bool = False, percent: bool = False
) -> str:
    """An <svg> of 5:3, with `alt` as its accessible name; each curve is labelled at its end instead of in a legend.

    percent: y is a fraction, shown as a percentage from 0. markers: a dot at every point, for few points.
    """
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": alt}):
        figure = Figure(figsize=(5, 3), layout="constrained")
        axes = figure.add_subplot()
        for line, colour, dash in zip(lines, SERIES, ("-", "--", ":"), strict=False):
            scaled = [100 * y for y in line.y] if percent else list(line.y)
            axes.plot(line.x, scaled, dash, color=colour, linewidth=2, marker="o" if markers else None)
        _label_ends(axes, lines, 100 if percent else 1)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        if percent:
            axes.set_ylim(bottom=0)
        return _inline(figure, alt)


def curve(epochs: Sequence[Mapping[str, Any]], key: str, name: str) -> Line | None:
    """One column of metrics.jsonl over epochs, without epochs that lack it; None if all do."""
    points = [(e["epoch"], e[key]) for e in epochs if isinstance(e.get(key), (int, float))]
    return Line(name, [float(x) for x, _ in points], [float(y) for _, y in points]) if points else None


def _label_ends(axes: Axes, lines: Sequence[Line], scale: float) -> None:
    """Names beside the last points, pushed apart where they would overlap."""
    axes.margins(x=0.02)
    low, high = axes.get_ylim()
    gap = (high - low) * 0.09
    taken: list[float] = []
    order = sorted(range(len(lines)), key=lambda k: lines[k].y[-1])
    for k in order:
        y = scale * lines[k].y[-1]
        y = max([y, *(other + gap for other in taken)]) if taken else y
        taken.append(y)
        axes.annotate(
            lines[k].name,
            (lines[k].x[-1], y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=SERIES[k],
            annotation_clip=False,
        )


def _inline(figure: Figure, alt: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would apply to the whole page
    svg = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", svg)  # repeated in every chart; clips and markers are not
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    for stand_in, colour in CSS_COLOURS.items():
        svg = svg.replace(stand_in, colour)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1).strip()
