"""A table, whatever it is rendered as, and how published values are arranged into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from seqjepa.evaluate.direction import Direction
from seqjepa.report.cells import Cell
from seqjepa.report.layouts import HEADS, METRICS, Layout
from seqjepa.report.measures import measure_of
from seqjepa.report.published import Published

Labels = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """labels of rows are text, one for each of `heads`; cells one for each of `columns`, in its unit.

    key      "table-1" …; unique in a report
    dataset  what ours was measured on, in a table without published values; "" beside those
    better   of each column, whether more or less is better; () if that is not said
    """

    key: str
    title: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    units: tuple[str, ...]
    rows: tuple[tuple[Labels, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    dataset: str = ""
    better: tuple[Direction, ...] = ()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """`better` of every column."""
        return self.better or ("",) * len(self.columns)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Of all rows, row by row."""
        return tuple(cell for _, cells in self.rows for cell in cells)


def arrange(
    layout: Layout, values: Iterable[Published], cell_of: Callable[[Published], Cell], *, sparse: bool = False
) -> Table:
    """Values in the form of a table. sparse: without the rows and columns in which nothing was measured."""
    found: dict[Labels, dict[str, Cell]] = {}
    units: dict[str, str] = {}
    directions: dict[str, Direction] = {}
    for value in values:
        cell = cell_of(value)
        if sparse and cell.empty:
            continue
        heading = layout.heading(value)
        units.setdefault(heading, METRICS[value.metric][1])
        directions.setdefault(heading, measure_of(value).better)
        found.setdefault(layout.labels(value), {})[heading] = cell
    rows = tuple((labels, tuple(cells.get(column, Cell()) for column in units)) for labels, cells in found.items())
    heads = tuple(HEADS[field] for field in layout.rows)
    columns, shown = tuple(units), tuple(units.values())
    better = tuple(directions.values())
    return Table(layout.key, layout.title, heads, columns, shown, rows, layout.notes, better=better)
