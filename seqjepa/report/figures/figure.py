"""A figure of the report: what is drawn, what it says in words, and the numbers behind it.

The numbers behind a chart of curves, as rows of its figure's table.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from seqjepa.report.figures.drawing import Line
from seqjepa.report.render.page import folded, scrolling

Datum = str | int | float | None


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure: HTML (an <svg>, a table, pictures), whose numbers are `rows`.

    wide  needs the width of the page; what is wider than a phone scrolls in a box of its own (page.scrolling)
    """

    title: str
    drawing: str
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
    panels: tuple[Panel, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[tuple[Datum, ...]] = field(default_factory=tuple)
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


def figure_html(figure: Figure, *, closed: bool = False) -> str:
    """An <article> with the figure, its caption, and its numbers as a table that can be opened.

    closed: behind its title, for a reader to open; of a figure without panels the title and the reason are all.
    """
    panels = "\n".join(_panel(panel) for panel in figure.panels)
    missing = f"<p class=missing>Not measured: {escape(figure.missing)}.</p>\n" if figure.missing else ""
    drawn = f"<div class=panels>\n{panels}\n</div>\n" if panels else ""
    shown = f"<figure>\n{drawn}<figcaption>{escape(figure.caption)}</figcaption>\n</figure>\n" if drawn else ""
    content = f"<h3>{escape(figure.title)}</h3>\n{missing}{shown}{_numbers(figure)}"
    if closed and drawn:
        content = folded(escape(figure.title), f"Published alone: {escape(figure.missing)}", shown + _numbers(figure))
    elif closed and figure.missing:
        said = f"Not measured: {escape(figure.missing)}"
        content = f"<div class=absent><h3>{escape(figure.title)}</h3> <small>{said}</small></div>\n"
    return f'<article id="{escape(figure.key)}">\n{content}</article>\n'


def _panel(panel: Panel) -> str:
    heading = f"<p class=panel-title>{escape(panel.title)}</p>\n" if panel.title else ""
    return f"<div{' class=wide' if panel.wide else ''}>\n{heading}{panel.drawing}\n</div>"


def _numbers(figure: Figure) -> str:
    if not figure.rows:
        return ""
    heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in figure.columns)
    rows = "\n".join("<tr>" + "".join(f"<td>{_shown(v)}</td>" for v in row) + "</tr>" for row in figure.rows)
    table = f"<table class=data>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"
    summary = f"<summary>Numbers drawn ({len(figure.rows)})</summary>"
    return f"<details>\n{summary}\n{scrolling(f'Numbers of {figure.title}', table)}\n</details>\n"


def _shown(value: Datum) -> str:
    if value is None:
        return "–"
    return escape(f"{value:.4g}".replace("-", "−") if isinstance(value, float) else str(value))


COLUMNS = ("panel", "whose", "curve", "x", "y", "±")


def line_rows(panel: str, lines: Iterable[Line]) -> list[tuple[Datum, ...]]:
    """One row a point."""
    rows: list[tuple[Datum, ...]] = []
    for line in lines:
        whose, spread = "paper" if line.published else "ours", line.spread or [None] * len(line.x)
        rows += [(panel, whose, line.name, x, y, s) for x, y, s in zip(line.x, line.y, spread, strict=True)]
    return rows
