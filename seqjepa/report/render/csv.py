"""All cells of all tables as CSV, a line a cell; nothing is rounded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from seqjepa.report.tables import Table

COLUMNS = (
    *("table", "dataset", "row", "column", "unit", "published", "published_std", "ours", "std", "seeds", "low", "high"),
    *("difference", "mark", "footnotes", "protocol", "better", "untrained"),
)
"""New ones come last. better: "higher", "lower" or "". dataset: what tables without published values are about.
row: "Method: seq-JEPA; M_tr: 3 …"."""
SIGN = ",".join(COLUMNS[:16])
"""How a file of ours begins, also one from before there were more columns. A comment would be a row to its readers."""
FIELDS = ("published", "published_std", "ours", "std", "seeds", "low", "high", "difference", "mark")
"""Of a cell, under their own names."""


def csv_text(tables: Sequence[Table]) -> str:
    """With a line of names first; what was not published or not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records(tables))
    return text.getvalue()


def records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """The same as JSON values, None where there is nothing; cells in which there is nothing are left out."""
    for table in tables:
        for labels, cells in table.rows:
            row = "; ".join(f"{head}: {label}" for head, label in zip(table.heads, labels, strict=True))
            for column, cell in zip(table.columns, cells, strict=True):
                if not cell.empty:
                    where = {"table": table.key, "dataset": table.dataset, "row": row, "column": column.name}
                    numbers = {name: getattr(cell, name) for name in FIELDS}
                    footnotes = " ".join(map(str, cell.footnotes))
                    yield {
                        **where,
                        "unit": column.unit,
                        **numbers,
                        "footnotes": footnotes,
                        "protocol": cell.protocol,
                        "untrained": cell.floor,
                        "better": column.better,
                    }
