"""The files that `seqjepa report` writes, each signed, so that one replaces a report of before and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqjepa.report.figures import build_figures
from seqjepa.report.render import csv, latex, markdown
from seqjepa.report.render.html import TITLE, render_report
from seqjepa.report.runs import RunRecord
from seqjepa.report.tables import Table
from shards.files import OwnFile, write_own
from shards.terminal import HANDLER

MAKER = "seqjepa report"
SIGN = f"made by {MAKER}"


@dataclass(frozen=True)
class ReportFile:
    """path: where; text: what; sign: what a file that it replaces has to hold."""

    path: Path
    text: str
    sign: str = SIGN


def page_file(path: Path, records: Sequence[RunRecord], tables: Sequence[Table]) -> ReportFile:
    """Signed in a comment right after the document type."""
    first, _, rest = render_report(records, tables, build_figures(records)).partition("\n")
    return ReportFile(path, f"{first}\n<!-- {SIGN} -->\n{rest}")


def markdown_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    return ReportFile(path, f"<!-- {SIGN} -->\n\n{markdown.document(TITLE, tables)}")


def latex_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    return ReportFile(path, f"% {SIGN}\n{latex.document(tables)}")


def csv_file(path: Path, tables: Sequence[Table]) -> ReportFile:
    """Signed by its names of columns: a comment would be a row to whoever reads it."""
    return ReportFile(path, csv.csv_text(tables), sign=csv.SIGN)


def write_reports(files: Sequence[ReportFile]) -> None:
    """Write all, or none where a path is refused. Errors as shards.files.write_own.

    UTF-8; a byte of a run's path that is none is spelled \\xff.
    """
    write_own([OwnFile(file.path, file.text.encode("utf-8", HANDLER), file.sign.encode(), MAKER) for file in files])
