"""Many runs beside the paper as one page: standing, tables, figures, training, provenance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from seqjepa.report import figure as figure_html
from seqjepa.report import table_html
from seqjepa.report.cell_text import is_measured
from seqjepa.report.figure import Figure
from seqjepa.report.footnotes import FOOTNOTES
from seqjepa.report.numbers_table import every_number
from seqjepa.report.page import Section, document
from seqjepa.report.provenance import provenance
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import groups_of
from seqjepa.report.standing import standing
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
        Section("standing", "Where each run stands", standing(groups)),
        Section("numbers", "Every number", every_number(groups)),
        Section("tables", "Tables", _tables(tables, bool(records))),
        Section("footnotes", "Where the paper contradicts itself", _footnotes(tables, bool(records))),
        Section("figures", "Figures", _figures(others, bool(records))),
        Section("training", "Training", _figures(of_training, bool(records))),
        Section("missing", "Not measured", _missing(figures)),
        Section("provenance", "Provenance", provenance(groups)),
    ]
    return document(TITLE, header, sections, contents=True)


def _tables(tables: Sequence[Table], fold: bool) -> str:
    if not tables:
        return ""
    ours = [table for table in tables if is_measured(table)]
    alone = [table for table in tables if not is_measured(table)]
    beginning = _beginnings(tables)
    indexes = [
        f"<p>{said}</p>\n{_index([(table.key, table.title) for table in some], beginning)}"
        for said, some in (("With numbers of ours:", ours), ("Published alone:", alone))
        if some
    ]
    shown = [table_html.html(table, closed=fold and not is_measured(table)) for table in [*ours, *alone]]
    return table_html.legend() + "".join(indexes) + "\n".join(shown)


def _figures(figures: Sequence[Figure], fold: bool) -> str:
    """Those with something of ours first."""
    if not figures:
        return ""
    ordered = sorted(figures, key=lambda figure: not figure.of_ours)
    index = _index([(figure.key, figure.title) for figure in ordered], _beginnings(figures))
    return index + "\n".join(figure_html.html(figure, closed=fold and not figure.of_ours) for figure in ordered)


def _beginnings(articles: Sequence[Table] | Sequence[Figure]) -> Counter[str]:
    """How many titles begin with the same words, up to a colon."""
    return Counter(article.title.partition(":")[0] for article in articles)


def _index(articles: Sequence[tuple[str, str]], beginning: Counter[str]) -> str:
    """Links to articles by key, named by what their titles begin with, "Table 1: …" → "Table 1", if no other does."""
    links = ""
    for key, title in articles:
        short = title.partition(":")[0]
        links += f'<li><a href="#{escape(key)}">{escape(short if beginning[short] == 1 else title)}</a></li>\n'
    return f"<ul class=index>\n{links}</ul>\n"


def _footnotes(tables: Sequence[Table], fold: bool) -> str:
    """Numbered as the tables refer to them; closed where no table with numbers of ours does."""
    notes = "\n".join(
        f'<li value={note.number} id="footnote-{note.number}">{escape(note.text)}</li>' for note in FOOTNOTES
    )
    text = f"<ol>\n{notes}\n</ol>"
    if not fold or any(cell.footnotes for table in tables if is_measured(table) for cell in table.cells):
        return text
    said = f"{len(FOOTNOTES)} footnotes on published values, none beside a number of ours"
    return f"<details>\n<summary>{said}</summary>\n{text}\n</details>"


def _missing(figures: Sequence[Figure]) -> str:
    """Figures without numbers of ours, and why."""
    lines = [
        f'<li><a href="#{escape(figure.key)}">{escape(figure.title)}</a>: {escape(figure.missing)}</li>'
        for figure in figures
        if figure.missing
    ]
    return f"<ul>\n{chr(10).join(lines)}\n</ul>" if lines else ""
