from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from seqjepa.report.cells import Cell
from seqjepa.report.render import html
from seqjepa.report.render import text as forms
from seqjepa.report.tables import Table, TableColumn, build_tables

FULL = Cell(86.14, 0.5, 84.213, 0.3, None, None, 3, "z_AGG, M_val 3", "3DIEBench; 100%; run a_b & c", "", (1, 4))
SMALL = Cell(0.65, None, -0.0456, None, -0.0501, 0.04, 1, "z", "3DIEBench; run <b>", "epochs 30 (paper 1000)")
MISSING = Cell(0.7, footnotes=(12,))
TABLE = Table(
    "table-x", "Form & <shape>: M_tr", ("Method", "M_tr"), (TableColumn("Top-1", "%"), TableColumn("R² rot", "R²")),
    ((("seq|JEPA", "3"), (FULL, SMALL)), (("A_B", "–"), (Cell(), MISSING))), ("50 % of {it} $x$ #1 ~ ^ \\",),
)  # fmt: skip


class Outline(HTMLParser):
    """Start tags with attributes, text of each cell, and whether tags are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def whole() -> list[Table]:
    return [*build_tables([]), TABLE]


def test_html_has_headers_caption_and_a_box_that_a_keyboard_reaches():
    outline = Outline(html.table_html(TABLE))
    assert outline.open == []
    assert [h["scope"] for h in outline.all("th")] == ["col"] * 3 + ["row"] * 2
    assert len(outline.all("caption")) == 1
    (box,) = [attrs for attrs in outline.all("div") if attrs.get("class") == "scroll"]
    assert (box["tabindex"], box["role"], box["aria-label"]) == ("0", "region", "Form & <shape>: M_tr")


def test_html_shows_ours_the_papers_difference_and_interval():
    assert Outline(html.table_html(TABLE)).cells == [
        *("MethodMtr", "Top-1 (%)", "R² rot"),
        *("seq|JEPAMtr\u00a03", "84.21 ± 0.30apaper 86.14 ± 0.51,4, Δ −1.93"),
        "−0.046†b[−0.050, 0.040]paper 0.65, Δ −0.696",
        *("A_B", "", "–paper 0.7012"),
    ]


def test_html_links_lead_to_notes(whole):
    for table in whole:
        outline = Outline(html.table_html(table))
        anchors = {attrs["id"] for _, attrs in outline.tags if "id" in attrs}
        links = {(attrs["href"] or "").removeprefix("#") for attrs in outline.all("a")}
        assert {link for link in links if not re.fullmatch(r"footnote-\d+", link)} <= anchors
    assert "&lt;b&gt;" in html.table_html(TABLE)


def test_a_table_without_ours_says_so_and_shows_the_papers_alone(whole):
    text = html.table_html(whole[0])
    assert "None of the runs is in this table." in text
    assert "unmeasured" not in text
    assert "None of the runs" not in html.table_html(TABLE)


def test_markdown_has_as_many_fields_in_every_line_and_escapes():
    lines = [line for line in forms.markdown(TABLE).splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert lines[2] == (
        r"| seq\|JEPA | 3 | **84.21 ± 0.30** (a); paper 86.14 ± 0.5[^1][^4]; Δ −1.93 "
        r"| **−0.046** † (b) \[−0.050, 0.040\]; paper 0.65; Δ −0.696 |"
    )
    assert lines[3] == r"| A\_B | – |  | –; paper 0.70[^12] |"


def test_markdown_defines_each_footnote_that_it_uses_once(whole):
    text = forms.markdown_document("A title", whole)
    used = set(re.findall(r"\[\^(\d+)\](?!:)", text))
    defined = re.findall(r"^\[\^(\d+)\]:", text, flags=re.MULTILINE)
    assert used == set(defined)
    assert len(defined) == len(set(defined)) == 12


def test_latex_is_balanced_and_escaped(whole):
    text = forms.latex_document(whole)
    bare = re.sub(r"\\[\\{}$&%#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert all(line.count("$") % 2 == 0 for line in bare.splitlines())
    body = "\n".join(line for line in bare.splitlines() if not line.startswith("%"))
    assert not re.search(r"[_#^]", re.sub(r"\\label\{[^}]*\}|\$[^$]*\$|%$", "", body, flags=re.MULTILINE))
    assert text.isascii() or not re.search(r"[^\x00-\x7f]", body)
    assert [text.count(rf"\begin{{{name}}}") for name in ("table", "tabular")] == [len(whole)] * 2
    assert [text.count(rf"\end{{{name}}}") for name in ("table", "tabular")] == [len(whole)] * 2


def test_latex_rows_have_as_many_fields_as_columns(whole):
    for table in whole:
        text = forms.latex(table)
        (form,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(form)}
        assert len(rows) == len(table.rows) + 1


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_is_set_by_latex(whole, tmp_path):
    (tmp_path / "tables.tex").write_text(forms.latex_document(whole), encoding="utf-8")
    packages = forms.PACKAGES.removeprefix("% ").removesuffix(" in the preamble")
    text = rf"\documentclass{{article}}{packages}\begin{{document}}\input{{tables.tex}}\end{{document}}"
    (tmp_path / "main.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, re.findall(r"Overfull.*", done.stdout)


def test_latex_counts_tables_itself_and_sets_symbols_and_headings_of_several_parts():
    cells = (Cell(published=60.1),)
    table = Table(
        "t", "Table 2: M_tr of z_AGG", ("M_val",), (TableColumn("CIFAR-100, Top-1", "%"),), ((("r",), cells),)
    )
    text = forms.latex(table)
    assert r"\caption{$M_\mathrm{tr}$ of $z_\mathrm{AGG}$ (Table 2 of the paper).}" in text
    assert r"$M_\mathrm{val}$ & \shortstack[r]{CIFAR-100 \\ Top-1 (\%)} \\" in text


def test_latex_of_a_cell():
    row = next(line for line in forms.latex(TABLE).splitlines() if line.startswith("seq"))
    assert row == (
        r"seq$|$JEPA & 3 & 84.21 $\pm$ 0.30\textsuperscript{a} / 86.14 $\pm$ 0.5\textsuperscript{1,4} & "
        r"$-$0.046\textsuperscript{$\dagger$b} {\scriptsize [$-$0.050, 0.040]} / 0.65 \\"
    )


def test_csv_has_every_cell_unrounded(whole):
    rows = list(csv.DictReader(io.StringIO(forms.csv_text(whole))))
    assert len(rows) == 771 + 3
    ours = rows[-3]
    assert (ours["table"], ours["row"], ours["column"]) == ("table-x", "Method: seq|JEPA; M_tr: 3", "Top-1")
    assert float(ours["ours"]) == 84.213
    assert float(ours["difference"]) == pytest.approx(84.213 - 86.14)
    assert (ours["low"], ours["footnotes"], ours["seeds"]) == ("", "1 4", "3")
    assert ours["protocol"] == "z_AGG, M_val 3; 3DIEBench; 100%; run a_b & c"
    assert rows[-2]["protocol"].endswith("not at the paper's scale: epochs 30 (paper 1000)")
    assert rows[-1]["ours"] == rows[-1]["difference"] == ""


def test_letters_go_on_after_z():
    cells = tuple(Cell(ours=1.0, run=f"run {k}", features="z") for k in range(54))
    table = Table("t", "t", ("x",), tuple(TableColumn(str(k), "%") for k in range(54)), ((("r",), cells),))
    letters = [note.letter for note in table.run_notes.values()]
    assert letters[:2] + letters[25:28] + letters[51:] == ["a", "b", "z", "aa", "ab", "az", "ba", "bb"]
