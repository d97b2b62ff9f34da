"""Tables as Markdown with pipes; footnotes as GitHub and Pandoc have them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from seqjepa.paper.footnotes import FOOTNOTES
from seqjepa.report.cells import Cell
from seqjepa.report.render import SIGN
from seqjepa.report.tables import LEGEND, MARK, Table, TableColumn

SPECIAL = re.compile(r"([\\`*_|<>\[\]])")


def markdown_document(title: str, tables: Sequence[Table]) -> str:
    """All tables under one title, with the footnotes that they refer to; signed in a comment."""
    used = {note.number for table in tables for note in table.footnotes}
    notes = "".join(f"[^{note.number}]: {_escaped(note.text)}\n" for note in FOOTNOTES if note.number in used)
    return (
        f"<!-- {SIGN} -->\n\n# {_escaped(title)}\n\n{_escaped(LEGEND)}\n\n"
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
