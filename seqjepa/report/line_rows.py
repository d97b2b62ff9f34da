"""The numbers behind a chart of curves, as rows of its figure's table."""

from __future__ import annotations

from collections.abc import Iterable

from seqjepa.report.figure import Datum
from seqjepa.report.figures import Line

COLUMNS = ("panel", "whose", "curve", "x", "y", "±")


def line_rows(panel: str, lines: Iterable[Line]) -> list[tuple[Datum, ...]]:
    """One row a point."""
    rows: list[tuple[Datum, ...]] = []
    for line in lines:
        whose, spread = "paper" if line.published else "ours", line.spread or [None] * len(line.x)
        rows += [(panel, whose, line.name, x, y, s) for x, y, s in zip(line.x, line.y, spread, strict=True)]
    return rows
