"""Reports of runs on own data: columns and units are named, and nothing is said of the paper."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from report_runs import protocol_of, write_run
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.report.figures import build_figures
from seqjepa.report.groups import groups_of, label
from seqjepa.report.render.html import render_report
from seqjepa.report.render.text import csv_text, markdown_document
from seqjepa.report.runs import RunRecord, read_records
from seqjepa.report.tables import build_tables, own_tables

PROTOCOL: dict[str, Any] = protocol_of(
    "walks",
    **{"m_tr": 3, "resolution": 16, "order": "window", "stride": 2, "probe_epochs": {"classification": 300}},
    linear_regressors="standardised",
    targets={
        "rel_term1": {"columns": ["x", "y"], "units": ["m", "m"], "op": "difference", "unit": "m"},
        "rel_term11": {"columns": ["grip"], "units": ["1"], "op": "command", "unit": "1"},
        "indiv_state": {"columns": [f"state.{k}" for k in range(8)], "units": ["1"] * 8, "op": "column", "unit": "1"},
    },
)
SCORES: dict[str, Any] = {
    "r2_rel_term1_avg": 0.75, "rel_term1_rmse": 0.02, "r2_rel_term11_avg": 0.5, "r2_indiv_state_avg": 0.9,
    "r2_indiv_state_agg": {"1": 0.8, "3": 0.95}, "r2_path": {"both": {"1": 0.9, "3": 0.7}},
    "rollout": {"mrr": {"1": 0.6, "3": 0.4}, "mrr_chance": 0.2}, "retrieval": {"mrr": 0.7},
    "blind": {"r2_rel_term1_avg": -0.01, "rel_term1_rmse": 0.04},
    "intervals": {"r2_rel_term1_avg": [0.7, 0.8]},
}  # fmt: skip
TERMS = '[{op = "difference", columns = ["x", "y"]}, {op = "angle_difference", columns = ["yaw"]}]'


@pytest.fixture
def own(tmp_path: Path) -> RunRecord:
    run = write_run(tmp_path / "runs" / "walker", settings=(f"data.action={TERMS}", "optim.epochs=3"),
                    scores=SCORES, protocol=PROTOCOL)  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    before = {**SCORES, "r2_rel_term1_avg": 0.1, "protocol": results["trained"]["protocol"]}
    (run / "results.json").write_text(json.dumps({**results, "untrained": before}))
    (record,) = read_records([run])
    return record


def text_of(html: str) -> str:
    """What a reader of the page sees."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL))


def test_a_page_of_own_data_says_nothing_of_the_paper(own):
    page = text_of(render_report([own], build_tables([own]), build_figures([own])))
    for word in ("paper", "arXiv", "Published", "Δ", "Table 1", "3DIEBench", "rotation"):
        assert word not in page
    for text in ("R² x, y [m] between views", "x, y [m] between views, root mean square error, m", "grip", "state (8)"):
        assert text in page
    assert re.search(r"R² x, y \[m\] between views, avg\s+↑\s+0\.750\s+0\.100\s+\+0\.650\s+−0\.010", page)


def test_one_table_holds_every_number_beside_untrained_and_blind(own):
    (table,) = build_tables([own])
    assert table.title == "Runs on walks, 16 px"
    names = [column.name for column in table.columns]
    assert names[:4] == ["R² x, y [m] between views", "Error of x, y [m] between views, m", "R² grip between views",
                         "R² state (8) of a view"]  # fmt: skip
    assert "R² path, vision and actions, M = 3" in names
    (labels, cells), (blind, without) = table.rows
    assert labels == ("walker", "seq-JEPA, M_tr 3", "declared actions", "3")
    assert (cells[0].ours, cells[0].floor, cells[0].low) == (0.75, 0.1, 0.7)
    assert blind[0] == "blind"
    assert (without[0].ours, without[1].ours, without[2].empty) == (-0.01, 0.04, True)
    assert "paper" not in markdown_document("Runs", [table]).lower()
    assert ",walks," in csv_text([table]).splitlines()[1].replace('"walks, 16 px"', "walks")


def test_figures_are_those_of_own_data_and_of_training(own):
    figures = build_figures([own])
    assert [figure.key for figure in figures][:3] == ["paths", "rollouts", "class-by-class"]
    assert not any("paper" in (figure.title + figure.caption + figure.csv()).lower() for figure in figures)


def test_own_runs_stand_apart_in_a_report_with_others(own, tmp_path):
    write_run(tmp_path / "runs" / "objects", scores={"top1_agg": {"5": 0.5}, "r2_rel_rot_avg": 0.4})
    records = read_records([tmp_path / "runs"])
    groups = groups_of(record for record in records if record.trained)
    (table,) = own_tables([group for group in groups if group.is_own])
    assert table.title == "Runs on walks, 16 px"
    tables = build_tables(records)
    shown = [table for table in tables if table.is_measured]
    assert {"Runs on walks, 16 px"} <= {table.title for table in shown}
    published = next(table for table in tables if table.key == "table-1")
    assert all(cell.ours != 0.75 for cell in published.cells)
    page = text_of(render_report(records, tables, build_figures(records)))
    assert "arXiv" in page


def test_methods_that_are_told_nothing_are_own_by_what_was_measured(tmp_path):
    run = write_run(tmp_path / "simclr", "simclr-3die", scores=SCORES, protocol=PROTOCOL)
    (record,) = read_records([run])
    assert record.is_own
    assert label(record.config) == "SimCLR"
    assert not any(cell.published for table in build_tables([record]) for cell in table.cells)


def test_the_command_writes_all_forms(own, tmp_path):
    out = {name: tmp_path / f"r.{name}" for name in ("html", "md", "csv", "tex")}
    options = ["--out", "html", "--markdown", "md", "--csv", "csv", "--latex", "tex"]
    told = CliRunner().invoke(
        seqjepa_app, ["report", str(own.path), *(str(out.get(option, option)) for option in options)]
    )
    assert told.exit_code == 0, told.output
    assert "Runs on walks, 16 px" in told.output
    assert out["md"].read_text().splitlines()[2] == "# seq-JEPA: runs on own data"
    assert all("paper" not in out[name].read_text().lower() for name in ("md", "tex"))
