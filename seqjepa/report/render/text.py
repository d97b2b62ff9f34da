"""Tables as text: Markdown with pipes (footnotes as GitHub and Pandoc have them), CSV, LaTeX with booktabs.

The CSV has all cells of all tables, a line a cell, and rounds nothing. LaTeX is for \\input, where
\\usepackage{booktabs,graphicx} is loaded.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from seqjepa.paper.published import FOOTNOTES
from seqjepa.report.cells import Cell, CellText
from seqjepa.report.fill_template import SIGN
from seqjepa.report.tables import MARK, Table, legend_of

MARKDOWN_SPECIAL = re.compile(r"([\\`*_|<>\[\]])")
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
LATEX_LETTERS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    "–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "²": "$^2$", "⁹": "$^9$", "†": r"$\dagger$",
    "Δ": r"$\Delta$", "≥": r"$\geq$", "’": "'", "“": "``", "”": "''", "·": r"$\cdot$", "°": r"$^\circ$",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$",
}  # fmt: skip
SUBSCRIPTS = {"M_tr": r"$M_\mathrm{tr}$", "M_val": r"$M_\mathrm{val}$", "z_AGG": r"$z_\mathrm{AGG}$"}
SYMBOLS = re.compile("|".join(SUBSCRIPTS))
PACKAGES = r"% \usepackage{booktabs,graphicx} in the preamble"
NO_WIDER_THAN_THE_LINE = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
NUMBERED = re.compile(r"(Table \d+): (.*)", flags=re.DOTALL)


def markdown_document(title: str, tables: Sequence[Table]) -> str:
    """All tables under one title, with the footnotes that they refer to; signed in a comment."""
    used = {note.number for table in tables for note in table.footnotes}
    notes = "".join(f"[^{note.number}]: {_in_markdown(note.text)}\n" for note in FOOTNOTES if note.number in used)
    return (
        f"<!-- {SIGN} -->\n\n# {_in_markdown(title)}\n\n{_in_markdown(legend_of(tables))}\n\n"
        + "\n".join(map(markdown, tables))
        + f"\n{notes}"
    )


def markdown(table: Table) -> str:
    """One table under a heading of the second level, with its notes."""
    heads = [*table.heads, *(column.marked_heading for column in table.columns)]
    rule = ["---"] * len(table.heads) + ["---:"] * len(table.columns)
    rows = [map(_in_markdown, heads), rule, *_fields(table, _in_markdown, _cell_in_markdown)]
    notes = [*table.notes, *(f"({note.letter}) {note.text}" for note in table.run_notes.values())]
    below = "".join(f"- {_in_markdown(note)}\n" for note in notes)
    lines = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"## {_in_markdown(table.title)}\n\n" + lines + "\n" + below


def _cell_in_markdown(cell: Cell, text: CellText, letter: str, measured: bool) -> str:
    """ "**84.21** † (a) [83.90, 84.60]; paper 86.14; Δ −1.93; untrained 40.25"."""
    paper = text.published + "".join(f"[^{n}]" for n in cell.footnotes)
    if cell.empty or not measured:
        return paper
    ours = text.ours
    if cell.ours is not None:
        mark, interval = f" {MARK}" if cell.mark else "", f" {_in_markdown(text.interval)}" if text.interval else ""
        ours = f"**{ours}**{mark} ({letter}){interval}"
    parts = (ours, f"paper {paper}" if paper else "", f"Δ {text.difference}" if text.difference else "", text.floor)
    return "; ".join(part for part in parts if part)


def _fields(
    table: Table, escape: Callable[[str], str], write: Callable[[Cell, CellText, str, bool], str]
) -> Iterator[list[str]]:
    """Labels and cells of each row. write: of a cell, its numbers as text, its note's letter, whether any is ours."""
    letters = {key: note.letter for key, note in table.run_notes.items()}
    for labels, cells in table.rows:
        found = [(cell, cell.text(column.unit)) for column, cell in zip(table.columns, cells, strict=True)]
        shown = [write(cell, text, letters.get((cell.run, cell.mark), ""), table.is_measured) for cell, text in found]
        yield [*map(escape, labels), *shown]


def _in_markdown(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\1", text.replace("\n", " "))


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


def latex_document(tables: Sequence[Table]) -> str:
    """All tables, to be put into a document by \\input; signed in a comment."""
    return f"% {SIGN}\n{PACKAGES}" + "\n\n" + "\n".join(map(latex, tables))


def latex(table: Table) -> str:
    """One table environment, made smaller where it would be wider than the line."""
    form = "l" * len(table.heads) + "r" * len(table.columns)
    what = " Ours / published." if table.is_measured and not table.dataset else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{in_latex(_caption(table.title) + '.' + what)}}}",
        rf"\label{{{table.key}}}",
        NO_WIDER_THAN_THE_LINE,
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        _latex_line([*map(in_latex, table.heads), *(_stacked(column.marked_heading) for column in table.columns)]),
        r"\midrule",
        *map(_latex_line, _fields(table, in_latex, _cell_in_latex)),
        r"\bottomrule",
        r"\end{tabular}}",
        *_notes_below(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def in_latex(text: str) -> str:
    """Text that LaTeX sets as it is, but M_tr, M_val and z_AGG with subscripts."""
    plain, symbols = SYMBOLS.split(text), [*SYMBOLS.findall(text), ""]
    return "".join(
        "".join(LATEX_LETTERS.get(letter, letter) for letter in part) + SUBSCRIPTS.get(symbol, "")
        for part, symbol in zip(plain, symbols, strict=True)
    )


def _caption(title: str) -> str:
    """LaTeX counts tables by itself, so the paper's number goes to the end."""
    numbered = NUMBERED.fullmatch(title)
    return title if numbered is None else f"{numbered[2]} ({numbered[1]} of the paper)"


def _stacked(head: str) -> str:
    """A heading of several parts, part below part, so that columns are as narrow as their numbers."""
    parts = [in_latex(part) for part in head.split(", ")]
    below_each_other = r" \\ ".join(parts)
    return parts[0] if len(parts) == 1 else rf"\shortstack[r]{{{below_each_other}}}"


def _cell_in_latex(cell: Cell, text: CellText, letter: str, measured: bool) -> str:
    """Ours with its interval, a slash, the paper's; the paper's alone in a table in which nothing is ours."""
    paper = in_latex(text.published) + _raised(",".join(map(str, cell.footnotes)))
    if cell.empty or not measured:
        return paper
    ours = in_latex(text.ours)
    if cell.ours is not None:
        ours += _raised((MARK if cell.mark else "") + letter)
        ours += _small(text.interval)
    return (f"{ours} / {paper}" if paper else ours) + _small(text.floor)


def _small(text: str) -> str:
    return rf" {{\scriptsize {in_latex(text)}}}" if text else ""


def _raised(text: str) -> str:
    return rf"\textsuperscript{{{in_latex(text)}}}" if text else ""


def _latex_line(fields: Sequence[str]) -> str:
    return " & ".join(fields) + r" \\"


def _notes_below(table: Table) -> list[str]:
    """Small: remarks, runs by letter, footnotes by number."""
    lines = [in_latex(note) for note in table.notes]
    lines += [f"{_raised(note.letter)}~{in_latex(note.text)}" for note in table.run_notes.values()]
    lines += [f"{_raised(str(note.number))}~{in_latex(note.text)}" for note in table.footnotes]
    return [r"\par\footnotesize\raggedright", *(rf"{line}\par" for line in lines)] if lines else []
