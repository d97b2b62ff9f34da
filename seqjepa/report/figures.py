"""Charts of named curves, each labelled at its end instead of in a legend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from seqjepa.report.canvas import PUBLISHED, SERIES, draw, spread_apart, wrapped

DASHES = ("-", "--", ":", "-.")
MOST_LINES = len(SERIES)
"""Curves of ours that one chart can tell apart."""


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


def line_chart(
    lines: Sequence[Line], *, x_label: str, y_label: str, alt: str, markers: bool = False, percent: bool = False
) -> str:
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
