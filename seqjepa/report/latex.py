"""Tables as LaTeX with booktabs: \\input the file where \\usepackage{booktabs,graphicx} is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from seqjepa.report.cell_text import (
    MARK,
    footnotes_of,
    heading,
    interval_text,
    is_measured,
    ours_text,
    published_text,
    run_notes,
)
from seqjepa.report.cells import Cell
from seqjepa.report.table import Table

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$",
    "–": "--", "—": "---", "−": "$-$", "±": r"$\pm$", "×": r"$\times$", "²": "$^2$", "⁹": "$^9$", "†": r"$\dagger$",
    "Δ": r"$\Delta$", "≥": r"$\geq$", "’": "'", "“": "``", "”": "''", "·": r"$\cdot$", "°": r"$^\circ$",
}  # fmt: skip
PACKAGES = r"% \usepackage{booktabs,graphicx} in the preamble"


def document(tables: Sequence[Table]) -> str:
    """All tables, to be put into a document by \\input."""
    return PACKAGES + "\n\n" + "\n".join(map(latex, tables))


def latex(table: Table) -> str:
    """One table environment, as wide as the line."""
    form = "l" * len(table.heads) + "r" * len(table.columns)
    measured = is_measured(table)
    units = zip(table.columns, table.units, strict=True)
    heads = [*table.heads, *(heading(column, unit) for column, unit in units)]
    rows = [_row([*map(escaped, labels), *_cells(table, cells, measured)]) for labels, cells in table.rows]
    what = " Ours / published." if measured and not table.dataset else ""
    lines = [
        r"\begin{table}",
        rf"\caption{{{escaped(table.title + '.' + what)}}}",
        rf"\label{{{table.key}}}",
        r"\resizebox{\linewidth}{!}{%",
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        _row(map(escaped, heads)),
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        *_notes(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def _cells(table: Table, cells: tuple[Cell, ...], measured: bool) -> list[str]:
    letters = {key: note.letter for key, note in run_notes(table).items()}
    return [_cell(cell, unit, letters, measured) for cell, unit in zip(cells, table.units, strict=True)]


def _cell(cell: Cell, unit: str, letters: dict[tuple[str, str], str], measured: bool) -> str:
    """Ours with its interval, a slash, the paper's; the paper's alone in a table in which nothing is ours."""
    paper = escaped(published_text(cell, unit)) + _raised(",".join(map(str, cell.footnotes)))
    if cell.empty or not measured:
        return paper
    ours = escaped(ours_text(cell, unit))
    if cell.ours is not None:
        ours += _raised((MARK if cell.mark else "") + letters[cell.run, cell.mark])
        ours += rf" {{\scriptsize {escaped(interval_text(cell, unit))}}}" if cell.low is not None else ""
    return f"{ours} / {paper}" if paper else ours


def _raised(text: str) -> str:
    return rf"\textsuperscript{{{escaped(text)}}}" if text else ""


def _row(fields: Sequence[str] | map[str]) -> str:
    return " & ".join(fields) + r" \\"


def _notes(table: Table) -> list[str]:
    """Below the table, small: remarks, runs by letter, footnotes by number."""
    lines = [escaped(note) for note in table.notes]
    lines += [f"{_raised(note.letter)}~{escaped(note.text)}" for note in run_notes(table).values()]
    lines += [f"{_raised(str(note.number))}~{escaped(note.text)}" for note in footnotes_of(table)]
    return [r"\par\footnotesize\raggedright", *(rf"{line}\par" for line in lines)] if lines else []
