"""Many runs beside the paper as one page: standing, tables, figures, training, provenance.

Tables as HTML: headers with their scope, a caption, a box that scrolls by itself, notes that cells link to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

from seqjepa.paper.footnotes import FOOTNOTES
from seqjepa.paper.metrics import Direction
from seqjepa.report.cells import Cell
from seqjepa.report.details import every_number, provenance
from seqjepa.report.figures import figure as figure_html
from seqjepa.report.figures.figure import Figure
from seqjepa.report.groups import groups_of
from seqjepa.report.overview import overview_html
from seqjepa.report.render.page import Section, arrow, coloured, document, folded, scrolling
from seqjepa.report.render.text import (
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
from seqjepa.report.runs import RunRecord
from seqjepa.report.tables import Table

TITLE = "seq-JEPA: our runs beside the paper"
LEAD = (
    "Published numbers are those of arXiv 2505.03176; ours were measured by seqjepa evaluate. What was not measured is "
    "shown as missing."
)
TRAINING = ("loss", "collapse", "online-probes", "learning-rate")
"""Keys of figures that are about training."""


def render_report(records: Sequence[RunRecord], tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """The whole document as HTML text: one file that needs no network and no script.

    It opens on what is of the runs; what holds nothing of ours is closed behind its title. Without runs all is open.
    """
    groups = groups_of(records)
    header = f"<h1>{TITLE}</h1>\n<p class=lead>{LEAD}</p>"
    of_training = [figure for figure in figures if figure.key in TRAINING]
    others = [figure for figure in figures if figure.key not in TRAINING]
    sections = [
        Section("standing", "Where each run stands", overview_html(groups)),
        Section("numbers", "Every number", every_number(groups)),
        Section("tables", "Tables", _tables_section(tables, bool(records))),
        Section("footnotes", "Where the paper contradicts itself", _footnotes_section(tables, bool(records))),
        Section("figures", "Figures", _figures_section(others, bool(records))),
        Section("training", "Training", _figures_section(of_training, bool(records))),
        Section("missing", "Not measured", _missing_section(figures)),
        Section("provenance", "Provenance", provenance(groups)),
    ]
    return document(TITLE, header, sections, contents=True)


def _tables_section(tables: Sequence[Table], fold: bool) -> str:
    if not tables:
        return ""
    ours = [table for table in tables if is_measured(table)]
    alone = [table for table in tables if not is_measured(table)]
    beginning = _beginnings(tables)
    indexes = [
        f"<p>{said}</p>\n{_article_index([(table.key, table.title) for table in some], beginning)}"
        for said, some in (("With numbers of ours:", ours), ("Published alone:", alone))
        if some
    ]
    shown = [table_html(table, closed=fold and not is_measured(table)) for table in [*ours, *alone]]
    return legend() + "".join(indexes) + "\n".join(shown)


def _figures_section(figures: Sequence[Figure], fold: bool) -> str:
    """Those with something of ours first."""
    if not figures:
        return ""
    ordered = sorted(figures, key=lambda figure: not figure.of_ours)
    index = _article_index([(figure.key, figure.title) for figure in ordered], _beginnings(figures))
    return index + "\n".join(figure_html.figure_html(figure, closed=fold and not figure.of_ours) for figure in ordered)


def _beginnings(articles: Sequence[Table] | Sequence[Figure]) -> Counter[str]:
    """How many titles begin with the same words, up to a colon."""
    return Counter(article.title.partition(":")[0] for article in articles)


def _article_index(articles: Sequence[tuple[str, str]], beginning: Counter[str]) -> str:
    """Links to articles by key, named by what their titles begin with, "Table 1: …" → "Table 1", if no other does."""
    links = ""
    for key, title in articles:
        short = title.partition(":")[0]
        links += f'<li><a href="#{escape(key)}">{escape(short if beginning[short] == 1 else title)}</a></li>\n'
    return f"<ul class=index>\n{links}</ul>\n"


def _footnotes_section(tables: Sequence[Table], fold: bool) -> str:
    """Numbered as the tables refer to them; closed where no table with numbers of ours does."""
    notes = "\n".join(
        f'<li value={note.number} id="footnote-{note.number}">{escape(note.text)}</li>' for note in FOOTNOTES
    )
    text = f"<ol>\n{notes}\n</ol>"
    if not fold or any(cell.footnotes for table in tables if is_measured(table) for cell in table.cells):
        return text
    said = f"{len(FOOTNOTES)} footnotes on published values, none beside a number of ours"
    return f"<details>\n<summary>{said}</summary>\n{text}\n</details>"


def _missing_section(figures: Sequence[Figure]) -> str:
    """Figures without numbers of ours, and why."""
    lines = [
        f'<li><a href="#{escape(figure.key)}">{escape(figure.title)}</a>: {escape(figure.missing)}</li>'
        for figure in figures
        if figure.missing
    ]
    return f"<ul>\n{chr(10).join(lines)}\n</ul>" if lines else ""


Notes = Mapping[tuple[str, str], RunNote]


def table_html(table: Table, *, closed: bool = False) -> str:
    """An <article> with the table and its notes; footnotes are links to #footnote-N, which the page has.

    closed: behind its title, for a reader to open.
    """
    notes = run_notes(table)
    heads = _label_cell(table.heads[0], ", ".join(table.heads[1:]), "col")
    heads += "".join(
        f"<th scope=col>{_subscript(heading(column, unit))}{arrow(better)}</th>"
        for column, unit, better in zip(table.columns, table.units, table.directions, strict=True)
    )
    rows = "".join(_table_row(table, labels, cells, notes) for labels, cells in table.rows)
    title = _subscript(table.title)
    caption = f"<caption class=hidden>{title}</caption>" if closed else f"<caption><h3>{title}</h3></caption>"
    body = f"<table class=results>\n{caption}\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    content = f"{scrolling(table.title, body)}\n{_notes_below(table, notes)}"
    if closed:
        values = sum(cell.published is not None for cell in table.cells)
        content = folded(title, f"{values} published values, none of ours", content)
    return f'<article id="{escape(table.key)}">\n{content}</article>\n'


def legend() -> str:
    """What signs in the tables mean."""
    return f"<p class=quiet>{escape(LEGEND)}</p>\n"


def _table_row(table: Table, labels: tuple[str, ...], cells: tuple[Cell, ...], notes: Notes) -> str:
    others = [
        f"{head}\u00a0{label}" if label.isdecimal() else label
        for head, label in zip(table.heads[1:], labels[1:], strict=True)
        if label != NOTHING
    ]
    names = _label_cell(labels[0], " · ".join(others), "row")
    measured = is_measured(table)
    columns = zip(cells, table.units, table.directions, strict=True)
    values = "".join(_table_cell(table, *column, notes, measured) for column in columns)
    return f"<tr>{names}{values}</tr>\n"


def _label_cell(name: str, more: str, scope: str) -> str:
    """All labels in one cell, so that a phone has room for numbers."""
    below = f"<small>{_subscript(more)}</small>" if more else ""
    return f"<th scope={scope} class=label>{_subscript(name)}{below}</th>"


def _table_cell(table: Table, cell: Cell, unit: str, better: Direction, notes: Notes, measured: bool) -> str:
    """Ours above with its interval, the paper's below; the paper's alone in a table in which nothing is ours."""
    if cell.empty:
        return "<td></td>"
    lines = [_our_span(table, cell, unit, notes)] if measured else []
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


def _our_span(table: Table, cell: Cell, unit: str, notes: Notes) -> str:
    if cell.ours is None:
        return f'<span class="ours unmeasured" title="not measured">{ours_text(cell, unit)}</span>'
    letter = notes[cell.run, cell.mark].letter
    link = f'<a href="#{escape(table.key)}-{letter}">{letter}</a>'
    return f"<span class=ours>{ours_text(cell, unit)}<sup>{MARK if cell.mark else ''}{link}</sup></span>"


def _references(cell: Cell) -> str:
    links = ",".join(f'<a href="#footnote-{n}">{n}</a>' for n in cell.footnotes)
    return f"<sup>{links}</sup>" if links else ""


def _notes_below(table: Table, notes: Notes) -> str:
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
