"""Figures of a report and how they are drawn: inline SVG whose colours are the page's, with the numbers behind it.

Text stays text, a dark page gets a dark chart, and curves are labelled at their ends instead of in a legend.
"""

from __future__ import annotations

import csv
import io
import re
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from itertools import pairwise
from typing import Any

import matplotlib
import matplotlib.figure
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqjepa.report.groups import Mean

Datum = str | int | float | None
CAPTIONS: Mapping[str, Mapping[str, Any]] = tomllib.loads(
    (files("seqjepa.report.figures") / "captions.toml").read_text(encoding="utf-8")
)
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
DASHES = ("-", "--", ":", "-.")
MOST_LINES = len(SERIES)
"""Curves of ours that one chart can tell apart."""


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure: HTML (an <svg>, a table, pictures), whose numbers are `rows`.

    wide  needs the width of the page; what is wider than a phone scrolls in a box of its own (macros.html)
    """

    title: str
    drawing: Markup
    wide: bool = False


@dataclass(frozen=True)
class Figure:
    """Panels under one title, or the reason why there are none.

    key      "figure-3"; unique on a page
    caption  what is drawn, from which runs, and how it compares with the paper's
    columns  names of what each of `rows` holds: every number that is drawn, ours and the paper's
    missing  why nothing of ours is drawn; "" if something is
    """

    key: str
    title: str
    caption: str
    panels: Sequence[Panel] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[Datum, ...]] = ()
    missing: str = ""

    @property
    def of_ours(self) -> bool:
        """Whether anything of ours is drawn."""
        if "whose" not in self.columns:
            return bool(self.panels)
        return any(row[self.columns.index("whose")] != "paper" for row in self.rows)

    def csv(self) -> str:
        """`rows` under `columns`, as CSV text; "" for a figure without numbers."""
        if not self.rows:
            return ""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


@dataclass(frozen=True)
class Line:
    """One named curve: x and y of equal length.

    spread     of each y (a standard deviation over seeds), drawn as bars; () for none
    published  whether it is the paper's: drawn in grey, hollow
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    spread: Sequence[float] = ()
    published: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves in one panel."""

    title: str
    lines: Sequence[Line]
    x_label: str
    y_label: str


def figure_of(
    name: str,
    panels: Sequence[Panel],
    rows: Sequence[tuple[Datum, ...]] = (),
    *,
    missing: bool,
    key: str = "",
    **values: Any,
) -> Figure:
    """A figure with its texts of captions.toml.

    missing  whether nothing of ours is drawn
    key      of the figure, where several share one entry
    values   what stands in the texts for {…}
    """
    texts = CAPTIONS[name]
    title, caption = texts["title"].format(**values), texts["caption"].format(**values) if panels else ""
    why = texts["missing"].format(**values) if missing else ""
    return Figure(key or name, title, caption, tuple(panels), tuple(texts.get("columns", ())), rows, why)


def figure_of_charts(
    name: str, charts: Iterable[Chart], *, missing: bool, digits: str = ".3g", **values: Any
) -> Figure:
    """A panel for each chart, with a dot at every point and all points as numbers below.

    digits: format of the values at the ends of curves, in the alternative text.
    """
    drawn, title = list(charts), CAPTIONS[name]["title"]
    panels = []
    for chart in drawn:
        alt = f"{title}, {chart.title}: {ends(chart.lines, digits)}."
        svg = line_chart(chart.lines, x_label=chart.x_label, y_label=chart.y_label, alt=alt, markers=True)
        panels.append(Panel(chart.title, svg))
    rows = [row for chart in drawn for row in _line_rows(chart)]
    return figure_of(name, panels, rows, missing=missing, **values)


def line_of(name: str, means: Mapping[int, Mean]) -> Line:
    """Means by size, in the order in which they come, with bars where there are several seeds."""
    spread = [mean.std or 0.0 for mean in means.values()] if any(mean.std for mean in means.values()) else ()
    return Line(name, [float(size) for size in means], [mean.value for mean in means.values()], spread)


def _line_rows(chart: Chart) -> Iterator[tuple[Datum, ...]]:
    for line in chart.lines:
        whose, spread = "paper" if line.published else "ours", line.spread or [None] * len(line.x)
        yield from ((chart.title, whose, line.name, x, y, s) for x, y, s in zip(line.x, line.y, spread, strict=True))


def draw(paint: Callable[[Axes], object], alt: str, *, size: tuple[float, float] = (5, 3)) -> Markup:
    """An <svg> of `size` (inches at 72 px) that `paint` drew on, with `alt` as its accessible name.

    Drawings that share a page need different `alt`s: ids inside are derived from it. Same input, same bytes.
    """
    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": alt}):
        figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
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


def _inline(figure: matplotlib.figure.Figure, alt: str) -> Markup:
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
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1).strip())


def line_chart(
    lines: Sequence[Line], *, x_label: str, y_label: str, alt: str, markers: bool = False, percent: bool = False
) -> Markup:
    """An <svg> of 5:3, with `alt` as its accessible name.

    percent: y is a fraction, shown as a percentage from 0. markers: a dot at every point, for few points.
    """

    def paint(axes: Axes) -> None:
        scale = 100 if percent else 1
        styles = _styles(lines)
        for line, (colour, dash) in zip(lines, styles, strict=True):
            _curve(axes, line, colour, dash, scale, markers)
        axes.margins(x=0.02)
        if len({x for line in lines for x in line.x}) == 1:
            axes.set_xlim(lines[0].x[0] - 1, lines[0].x[0] + 1)  # else ticks are at fractions of an epoch
        if percent:
            axes.set_ylim(bottom=0)
        _label_ends(axes, lines, [colour for colour, _ in styles], scale)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))

    return draw(paint, alt)


def curve(epochs: Sequence[Mapping[str, Any]], key: str, name: str) -> Line | None:
    """One column of metrics.jsonl over epochs, without epochs that lack it; None if all do."""
    points = [(e["epoch"], e[key]) for e in epochs if isinstance(e.get(key), (int, float))]
    return Line(name, [float(x) for x, _ in points], [float(y) for _, y in points]) if points else None


def ends(lines: Sequence[Line], form: str = ".3g") -> str:
    """Where each curve begins and ends, for an alternative text."""
    return "; ".join(f"{line.name} from {line.y[0]:{form}} to {line.y[-1]:{form}}" for line in lines)


def _styles(lines: Sequence[Line]) -> list[tuple[str, str]]:
    """Colour and dash of each; the paper's curves are grey and do not use up a colour."""
    styles, ours, theirs = [], 0, 0
    for line in lines:
        k = theirs if line.published else ours
        styles.append((PUBLISHED if line.published else SERIES[k % len(SERIES)], DASHES[k % len(DASHES)]))
        theirs, ours = theirs + line.published, ours + (not line.published)
    return styles


def _curve(axes: Axes, line: Line, colour: str, dash: str, scale: float, markers: bool) -> None:
    axes.errorbar(
        line.x,
        [scale * y for y in line.y],
        yerr=[scale * s for s in line.spread] if line.spread else None,
        linestyle=dash,
        color=colour,
        linewidth=1.3 if line.published else 2,
        marker="o" if markers else None,
        markersize=5,
        markerfacecolor="none" if line.published else colour,
        elinewidth=1,
        capsize=2,
    )


def _label_ends(axes: Axes, lines: Sequence[Line], colours: Sequence[str], scale: float) -> None:
    """Names beside the last points, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    names, counts = wrapped([line.name for line in lines])
    heights = spread_apart([scale * line.y[-1] for line in lines], (high - low) * 0.09, high, counts)
    right = max((line.x[-1] for line in lines), default=0.0)
    for name, colour, y in zip(names, colours, heights, strict=True):
        axes.annotate(
            name,
            (right, y),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )
