"""`seqjepa report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shards.console import AsJson, print_json
from shards.errors import counted

if TYPE_CHECKING:
    from seqjepa.report.runs import RunRecord
    from seqjepa.report.tables import Table
    from shards.machine.files import OwnFile

OutFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The tables alone, in this form too.")]


def report_command(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run directories, folders that hold some, or addresses, hf://USER/REPO or s3://bucket/run.",
            metavar="[RUN…]",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page, HTML. Default: report.html.")] = None,
    markdown: OutFile = None,
    csv: OutFile = None,
    latex: OutFile = None,
    as_json: AsJson = False,
) -> None:
    """Write a page of runs beside the paper. Tables 1-12 and the poster's, figures, training, provenance.

    Without runs: what the paper published. A report of before is replaced, any other file is left alone. With one of
    --markdown, --csv and --latex alone, or --json, the page is written only if --out asks for it.

    \b
    Examples:
      seqjepa report runs/3die-rot-M3 runs/sie-3die-rot -o report.html
      seqjepa report runs -o report.html --markdown tables.md --csv tables.csv --latex tables.tex
      seqjepa report runs --json
      seqjepa report -o paper.html
    """
    from seqjepa.hub import run_folder
    from seqjepa.report.figures import build_figures
    from seqjepa.report.render import text as forms
    from seqjepa.report.render.html import render_report, title_of
    from seqjepa.report.runs import read_records
    from seqjepa.report.tables import build_tables
    from shards.machine.files import write_own

    if out is None and not (as_json or markdown or csv or latex):
        out = Path("report.html")
    _check_places({"--out": out, "--markdown": markdown, "--csv": csv, "--latex": latex})
    found = read_records([run_folder(run) for run in runs or []])
    tables = build_tables(found)
    files = []
    if markdown:
        files.append(_signed(markdown, forms.markdown_document(title_of(found), tables)))
    if csv:
        files.append(_signed(csv, forms.csv_text(tables), forms.CSV_SIGN))
    if latex:
        files.append(_signed(latex, forms.latex_document(tables)))
    if out:
        files.append(_signed(out, render_report(found, tables, build_figures(found))))
    write_own(files)
    if as_json:
        print_json({"runs": [_run(record) for record in found], "cells": list(forms.table_records(tables))})
        return
    for line in [*_summary(found, tables), *(f"written: {file.path}" for file in files)]:
        typer.echo(line)


def _check_places(places: Mapping[str, Path | None]) -> None:
    """UsageError before runs are read: an address, or no place for a file of ours."""
    from seqjepa.report.fill_template import MAKER, SIGN
    from seqjepa.report.render.text import CSV_SIGN
    from shards.machine.files import refuse_foreign
    from shards.stores.store import require_no_address

    for option, path in places.items():
        if path is not None:
            require_no_address(path, option)
            refuse_foreign(path, (CSV_SIGN if option == "--csv" else SIGN).encode(), MAKER)


def _signed(path: Path, text: str, sign: str = "") -> OwnFile:
    """The file in UTF-8; a byte of a run's path that is none is spelled \\xff. sign: in it, if not the usual."""
    from seqjepa.report.fill_template import MAKER, SIGN
    from shards.machine.files import OwnFile
    from shards.machine.terminal import HANDLER

    return OwnFile(path, text.encode("utf-8", HANDLER), (sign or SIGN).encode(), MAKER)


def _run(record: RunRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "path": str(record.path),
        "method": record.config.method,
        "dataset": record.dataset,
        "paper_set": record.paper_set,
        "evaluated": bool(record.trained),
    }


def _summary(records: Sequence[RunRecord], tables: Sequence[Table]) -> list[str]:
    """How many runs there are, and where they are found."""
    unread = [record.name for record in records if not record.trained]
    lines = [f"{counted(len(records), 'run')}, {len(records) - len(unread)} of them evaluated"]
    if not records:
        lines = ["no runs: what the paper published"]
    if unread:
        lines.append(f"not evaluated, so in no table: {', '.join(unread)}; see `seqjepa evaluate`")
    for table in tables:
        count = sum(cell.ours is not None for cell in table.cells)
        beside = sum(cell.difference is not None for cell in table.cells)
        if count:
            lines.append(f"{table.title}: {count} measured" + (f", {beside} beside published values" if beside else ""))
    return lines
