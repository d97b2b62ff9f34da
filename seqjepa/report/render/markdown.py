"""Tables as Markdown with pipes; footnotes as GitHub and Pandoc have them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from seqjepa.paper.footnotes import FOOTNOTES
from seqjepa.report.cells import Cell
from seqjepa.report.render.text import (
    LEGEND,
    MARK,
    difference_text,
    floor_text,
    footnotes_of,
    heading,
    interval_text,
    is_measured,
    ours_text,
    published_text,
    run_notes,
)
from seqjepa.report.tables import Table

SPECIAL = re.compile(r"([\\`*_|<>\[\]])")


def document(title: str, tables: Sequence[Table]) -> str:
    """All tables under one title, with the footnotes that they refer to."""
    used = {note.number for table in tables for note in footnotes_of(table)}
    notes = "".join(f"[^{note.number}]: {_escaped(note.text)}\n" for note in FOOTNOTES if note.number in used)
    return f"# {_escaped(title)}\n\n{_escaped(LEGEND)}\n\n" + "\n".join(map(markdown, tables)) + f"\n{notes}"


def markdown(table: Table) -> str:
    """One table under a heading of the second level, with its notes."""
    columns = zip(table.columns, table.units, table.directions, strict=True)
    heads = [*table.heads, *(heading(*column) for column in columns)]
    lines = [_line(map(_escaped, heads)), _line(["---"] * len(table.heads) + ["---:"] * len(table.columns))]
    letters = {key: note.letter for key, note in run_notes(table).items()}
    measured = is_measured(table)
    for labels, cells in table.rows:
        shown = [_cell(cell, unit, letters, measured) for cell, unit in zip(cells, table.units, strict=True)]
        lines.append(_line([*map(_escaped, labels), *shown]))
    return f"## {_escaped(table.title)}\n\n" + "\n".join(lines) + "\n\n" + _notes(table)


def _cell(cell: Cell, unit: str, letters: dict[tuple[str, str], str], measured: bool) -> str:
    """ "**84.21** † (a) [83.90, 84.60]; paper 86.14; Δ −1.93; untrained 40.25"."""
    paper = published_text(cell, unit) + "".join(f"[^{n}]" for n in cell.footnotes)
    if cell.empty or not measured:
        return paper
    parts = [f"paper {paper}" if paper else "", _gap(cell, unit), floor_text(cell, unit)]
    return "; ".join(part for part in (_ours(cell, unit, letters), *parts) if part)


def _gap(cell: Cell, unit: str) -> str:
    return "" if cell.difference is None else f"Δ {difference_text(cell, unit)}"


def _ours(cell: Cell, unit: str, letters: dict[tuple[str, str], str]) -> str:
    if cell.ours is None:
        return ours_text(cell, unit)
    mark = f" {MARK}" if cell.mark else ""
    interval = f" {_escaped(interval_text(cell, unit))}" if cell.low is not None else ""
    return f"**{ours_text(cell, unit)}**{mark} ({letters[cell.run, cell.mark]}){interval}"


def _notes(table: Table) -> str:
    lines = [*table.notes, *(f"({note.letter}) {note.text}" for note in run_notes(table).values())]
    return "".join(f"- {_escaped(line)}\n" for line in lines)


def _line(fields: Sequence[str] | map[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text.replace("\n", " "))
