"""All cells of all tables as CSV, a line a cell; nothing is rounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from seqjepa.report.cells import Cell
from seqjepa.report.tables import Table

COLUMNS = (
    *("table", "dataset", "row", "column", "unit", "published", "published_std", "ours", "std", "seeds", "low", "high"),
    *("difference", "mark", "footnotes", "protocol", "better", "untrained"),
)
"""New ones come last. better: "higher", "lower" or "". dataset: what tables without published values are about.
row: "Method: seq-JEPA; M_tr: 3 …"."""

SIGN = ",".join(COLUMNS[:16])
"""How a file of ours begins, also one from before there were the others."""


def csv_text(tables: Sequence[Table]) -> str:
    """With a line of names first; what was not published or not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows(tables))
    return text.getvalue()


def rows(tables: Sequence[Table]) -> Iterator[tuple[Any, ...]]:
    """Values under COLUMNS; cells in which there is nothing are left out."""
    for record in records(tables):
        yield tuple("" if record[name] is None else record[name] for name in COLUMNS)


def records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """The same as JSON values, None where there is nothing."""
    for table in tables:
        for labels, cells in table.rows:
            row = "; ".join(f"{head}: {label}" for head, label in zip(table.heads, labels, strict=True))
            columns = zip(table.columns, table.units, table.directions, cells, strict=True)
            for column, unit, better, cell in columns:
                if not cell.empty:
                    where = {"table": table.key, "dataset": table.dataset, "row": row, "column": column, "unit": unit}
                    yield where | _fields(cell) | {"better": better}


def _fields(cell: Cell) -> dict[str, Any]:
    return {
        "published": cell.published,
        "published_std": cell.published_std,
        "ours": cell.ours,
        "std": cell.std,
        "seeds": cell.seeds,
        "low": cell.low,
        "high": cell.high,
        "difference": cell.difference,
        "mark": cell.mark,
        "footnotes": " ".join(map(str, cell.footnotes)),
        "protocol": cell.protocol,
        "untrained": cell.floor,
    }
