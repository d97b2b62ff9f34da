"""Tables as HTML: headers with their scope, a caption, a box that scrolls by itself, notes that cells link to."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from seqjepa.evaluate.direction import Direction
from seqjepa.report.arrows import arrow, coloured
from seqjepa.report.cell_text import (
    LEGEND,
    MARK,
    NOTHING,
    RunNote,
    difference_text,
    floor_text,
    heading,
    interval_text,
    is_measured,
    number,
    ours_text,
    published_text,
    run_notes,
)
from seqjepa.report.cells import Cell
from seqjepa.report.page import folded, scrolling
from seqjepa.report.table import Table

Notes = Mapping[tuple[str, str], RunNote]


def html(table: Table, *, closed: bool = False) -> str:
    """An <article> with the table and its notes; footnotes are links to #footnote-N, which the page has.

    closed: behind its title, for a reader to open.
    """
    notes = run_notes(table)
    heads = _label_cell(table.heads[0], ", ".join(table.heads[1:]), "col")
    heads += "".join(
        f"<th scope=col>{_subscript(heading(column, unit))}{arrow(better)}</th>"
        for column, unit, better in zip(table.columns, table.units, table.directions, strict=True)
    )
    rows = "".join(_row(table, labels, cells, notes) for labels, cells in table.rows)
    title = _subscript(table.title)
    caption = f"<caption class=hidden>{title}</caption>" if closed else f"<caption><h3>{title}</h3></caption>"
    body = f"<table class=results>\n{caption}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    content = f"{scrolling(table.title, body)}\n{_below(table, notes)}"
    if closed:
        values = sum(cell.published is not None for cell in table.cells)
        content = folded(title, f"{values} published values, none of ours", content)
    return f'<article id="{escape(table.key)}">\n{content}</article>\n'


def legend() -> str:
    """What signs in the tables mean."""
    return f"<p class=quiet>{escape(LEGEND)}</p>\n"


def _row(table: Table, labels: tuple[str, ...], cells: tuple[Cell, ...], notes: Notes) -> str:
    others = [
        f"{head}\u00a0{label}" if label.isdecimal() else label
        for head, label in zip(table.heads[1:], labels[1:], strict=True)
        if label != NOTHING
    ]
    names = _label_cell(labels[0], " · ".join(others), "row")
    measured = is_measured(table)
    columns = zip(cells, table.units, table.directions, strict=True)
    values = "".join(_cell(table, *column, notes, measured) for column in columns)
    return f"<tr>{names}{values}</tr>\n"


def _label_cell(name: str, more: str, scope: str) -> str:
    """All labels in one cell, so that a phone has room for numbers."""
    below = f"<small>{_subscript(more)}</small>" if more else ""
    return f"<th scope={scope} class=label>{_subscript(name)}{below}</th>"


def _cell(table: Table, cell: Cell, unit: str, better: Direction, notes: Notes, measured: bool) -> str:
    """Ours above with its interval, the paper's below; the paper's alone in a table in which nothing is ours."""
    if cell.empty:
        return "<td></td>"
    lines = [_ours(table, cell, unit, notes)] if measured else []
    if interval := interval_text(cell, unit):
        lines.append(f"<span class=compared>{interval}</span>")
    if cell.published is not None:
        paper = "paper " if measured else ""
        gap = coloured(difference_text(cell, unit), cell.difference, better)
        gap = f", Δ {gap}" if gap else ""
        lines.append(f"<span class=paper>{paper}{published_text(cell, unit)}{_references(cell)}{gap}</span>")
    if floor := floor_text(cell, unit):
        gain = coloured(number(cell.gain or 0.0, unit, "+"), cell.gain, better)
        lines.append(f"<span class=compared>{floor}, {gain}</span>")
    return f"<td>{''.join(lines)}</td>"


def _ours(table: Table, cell: Cell, unit: str, notes: Notes) -> str:
    if cell.ours is None:
        return f'<span class="ours unmeasured" title="not measured">{ours_text(cell, unit)}</span>'
    letter = notes[cell.run, cell.mark].letter
    link = f'<a href="#{escape(table.key)}-{letter}">{letter}</a>'
    return f"<span class=ours>{ours_text(cell, unit)}<sup>{MARK if cell.mark else ''}{link}</sup></span>"


def _references(cell: Cell) -> str:
    links = ",".join(f'<a href="#footnote-{n}">{n}</a>' for n in cell.footnotes)
    return f"<sup>{links}</sup>" if links else ""


def _below(table: Table, notes: Notes) -> str:
    said = list(table.notes) if notes else ["None of the runs is in this table.", *table.notes]
    paragraphs = "".join(f"<p class=quiet>{_subscript(note)}</p>\n" for note in said)
    items = "".join(
        f'<li id="{escape(table.key)}-{note.letter}"><b>{note.letter}</b> {_subscript(note.text)}</li>\n'
        for note in notes.values()
    )
    return paragraphs + (f"<ul class=runs>\n{items}</ul>\n" if items else "")


def _subscript(text: str) -> str:
    """Escaped, with M_tr, M_val and z_AGG as they are printed."""
    shown = escape(text)
    for letter, below in (("M", "tr"), ("M", "val"), ("z", "AGG")):
        shown = shown.replace(f"{letter}_{below}", f"{letter}<sub>{below}</sub>")
    return shown
