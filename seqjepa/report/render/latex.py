"""Tables as LaTeX with booktabs: \\input the file where \\usepackage{booktabs,graphicx} is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence

from seqjepa.report.cells import Cell
from seqjepa.report.render import SIGN
from seqjepa.report.tables import MARK, Table, TableColumn

SPECIAL = {
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
        rf"\caption{{{escaped(_caption(table.title) + '.' + what)}}}",
        rf"\label{{{table.key}}}",
        NO_WIDER_THAN_THE_LINE,
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        _line([*map(escaped, table.heads), *(_stacked(column.marked_heading) for column in table.columns)]),
        r"\midrule",
        *_body(table),
        r"\bottomrule",
        r"\end{tabular}}",
        *_notes_below(table),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is, but M_tr, M_val and z_AGG with subscripts."""
    plain, symbols = SYMBOLS.split(text), [*SYMBOLS.findall(text), ""]
    return "".join(
        "".join(SPECIAL.get(letter, letter) for letter in part) + SUBSCRIPTS.get(symbol, "")
        for part, symbol in zip(plain, symbols, strict=True)
    )


def _caption(title: str) -> str:
    """LaTeX counts tables by itself, so the paper's number goes to the end."""
    numbered = NUMBERED.fullmatch(title)
    return title if numbered is None else f"{numbered[2]} ({numbered[1]} of the paper)"


def _stacked(head: str) -> str:
    """A heading of several parts, part below part, so that columns are as narrow as their numbers."""
    parts = [escaped(part) for part in head.split(", ")]
    below_each_other = r" \\ ".join(parts)
    return parts[0] if len(parts) == 1 else rf"\shortstack[r]{{{below_each_other}}}"


def _body(table: Table) -> list[str]:
    letters = {key: note.letter for key, note in table.run_notes.items()}
    lines = []
    for labels, cells in table.rows:
        found = zip(table.columns, cells, strict=True)
        shown = [_cell_latex(cell, column, letters, table.is_measured) for column, cell in found]
        lines.append(_line([*map(escaped, labels), *shown]))
    return lines


def _cell_latex(cell: Cell, column: TableColumn, letters: dict[tuple[str, str], str], measured: bool) -> str:
    """Ours with its interval, a slash, the paper's; the paper's alone in a table in which nothing is ours."""
    text = cell.text(column.unit)
    paper = escaped(text.published) + _raised(",".join(map(str, cell.footnotes)))
    if cell.empty or not measured:
        return paper
    ours = escaped(text.ours)
    if cell.ours is not None:
        ours += _raised((MARK if cell.mark else "") + letters[cell.run, cell.mark])
        ours += _small(text.interval)
    return (f"{ours} / {paper}" if paper else ours) + _small(text.floor)


def _small(text: str) -> str:
    return rf" {{\scriptsize {escaped(text)}}}" if text else ""


def _raised(text: str) -> str:
    return rf"\textsuperscript{{{escaped(text)}}}" if text else ""


def _line(fields: Sequence[str]) -> str:
    return " & ".join(fields) + r" \\"


def _notes_below(table: Table) -> list[str]:
    """Small: remarks, runs by letter, footnotes by number."""
    lines = [escaped(note) for note in table.notes]
    lines += [f"{_raised(note.letter)}~{escaped(note.text)}" for note in table.run_notes.values()]
    lines += [f"{_raised(str(note.number))}~{escaped(note.text)}" for note in table.footnotes]
    return [r"\par\footnotesize\raggedright", *(rf"{line}\par" for line in lines)] if lines else []
