"""What `seqjepa report` writes: the page, and the tables in other forms, each with the sign that we know it by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqjepa.report import csv_rows, latex, markdown
from seqjepa.report.comparison import TITLE, render_report
from seqjepa.report.figure_list import build_figures
from seqjepa.report.own_file import SIGN, ReportFile, signed_html
from seqjepa.report.records import RunRecord
from seqjepa.report.table import Table


def page_file(path: Path, records: Sequence[RunRecord], tables: Sequence[Table]) -> ReportFile:
    return ReportFile(path, signed_html(render_report(records, tables, build_figures(records))))


def markdown_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    return ReportFile(path, f"<!-- {SIGN} -->\n\n{markdown.document(TITLE, tables)}")


def latex_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    return ReportFile(path, f"% {SIGN}\n{latex.document(tables)}")


def csv_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    """Signed by its names of columns: a comment would be a row to whoever reads it."""
    return ReportFile(path, csv_rows.csv_text(tables), sign=csv_rows.SIGN)
