"""Tables as text: Markdown with pipes (footnotes as GitHub and Pandoc have them), and CSV.

The CSV has all cells of all tables, a line a cell, and rounds nothing.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from seqjepa.paper.footnotes import FOOTNOTES
from seqjepa.report.cells import Cell
from seqjepa.report.render import SIGN
from seqjepa.report.tables import MARK, Table, TableColumn, legend_of

SPECIAL = re.compile(r"([\\`*_|<>\[\]])")


def markdown_document(title: str, tables: Sequence[Table]) -> str:
    """All tables under one title, with the footnotes that they refer to; signed in a comment."""
    used = {note.number for table in tables for note in table.footnotes}
    notes = "".join(f"[^{note.number}]: {_escaped(note.text)}\n" for note in FOOTNOTES if note.number in used)
    return (
        f"<!-- {SIGN} -->\n\n# {_escaped(title)}\n\n{_escaped(legend_of(tables))}\n\n"
        + "\n".join(map(markdown, tables))
        + f"\n{notes}"
    )


def markdown(table: Table) -> str:
    """One table under a heading of the second level, with its notes."""
    heads = [*table.heads, *(column.marked_heading for column in table.columns)]
    lines = [_line(map(_escaped, heads)), _line(["---"] * len(table.heads) + ["---:"] * len(table.columns))]
    letters = {key: note.letter for key, note in table.run_notes.items()}
    for labels, cells in table.rows:
        found = zip(table.columns, cells, strict=True)
        shown = [_cell_markdown(cell, column, letters, table.is_measured) for column, cell in found]
        lines.append(_line([*map(_escaped, labels), *shown]))
    notes = [*table.notes, *(f"({note.letter}) {note.text}" for note in table.run_notes.values())]
    below = "".join(f"- {_escaped(note)}\n" for note in notes)
    return f"## {_escaped(table.title)}\n\n" + "\n".join(lines) + "\n\n" + below


def _cell_markdown(cell: Cell, column: TableColumn, letters: dict[tuple[str, str], str], measured: bool) -> str:
    """ "**84.21** † (a) [83.90, 84.60]; paper 86.14; Δ −1.93; untrained 40.25"."""
    text = cell.text(column.unit)
    paper = text.published + "".join(f"[^{n}]" for n in cell.footnotes)
    if cell.empty or not measured:
        return paper
    ours = text.ours
    if cell.ours is not None:
        mark, interval = f" {MARK}" if cell.mark else "", f" {_escaped(text.interval)}" if text.interval else ""
        ours = f"**{ours}**{mark} ({letters[cell.run, cell.mark]}){interval}"
    parts = (ours, f"paper {paper}" if paper else "", f"Δ {text.difference}" if text.difference else "", text.floor)
    return "; ".join(part for part in parts if part)


def _line(fields: Iterable[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text.replace("\n", " "))


COLUMNS = (
    *("table", "dataset", "row", "column", "unit", "published", "published_std", "ours", "std", "seeds", "low", "high"),
    *("difference", "mark", "footnotes", "protocol", "better", "untrained"),
)
"""New ones come last. better: "higher", "lower" or "". dataset: what tables without published values are about.
row: "Method: seq-JEPA; M_tr: 3 …"."""
CSV_SIGN = ",".join(COLUMNS[:16])
"""How a file of ours begins, also one from before there were more columns. A comment would be a row to its readers."""
FIELDS = ("published", "published_std", "ours", "std", "seeds", "low", "high", "difference", "mark")
"""Of a cell, under their own names."""


def csv_text(tables: Sequence[Table]) -> str:
    """With a line of names first; what was not published or not measured is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_records(tables))
    return text.getvalue()


def table_records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
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
