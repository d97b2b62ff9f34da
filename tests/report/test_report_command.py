from __future__ import annotations

import csv
import json

import pytest
from report_runs import write_run
from typer.testing import CliRunner

from cli import seqjepa_app

SCORES = {"top1_z": 0.82, "top1_agg": {"3": 0.855, "5": 0.87}, "r2_rel_rot_avg": 0.7}


def report(*args: object) -> str:
    outcome = CliRunner().invoke(seqjepa_app, ["report", *map(str, args)], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def refused(*args: object) -> str:
    """What is said, on one line."""
    outcome = CliRunner().invoke(seqjepa_app, ["report", *map(str, args)])
    assert outcome.exit_code == 2
    assert outcome.output.count("\n") == 1
    return outcome.output


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "runs" / "one", scores=SCORES, settings=["optim.epochs=3"])
    write_run(tmp_path / "runs" / "bare", settings=["optim.epochs=3"])
    return tmp_path / "runs"


def test_every_form_is_written_and_written_again(tmp_path, runs):
    files = {form: tmp_path / f"tables.{form}" for form in ("html", "markdown", "csv", "latex")}
    options = [word for form, path in files.items() for word in ("-o" if form == "html" else f"--{form}", path)]
    said = report(runs, *options)
    assert "2 runs, 1 of them evaluated" in said
    assert "not evaluated, so in no table: bare" in said
    assert "Table 1: 3DIEBench, conditioned on rotation: 4 measured, 4 beside published values" in said
    first = {form: path.read_bytes() for form, path in files.items()}
    assert "87.00" in files["html"].read_text()
    with files["csv"].open() as opened:
        assert any(row["ours"] == "87.0" for row in csv.DictReader(opened))
    report(runs, *options)
    assert {form: path.read_bytes() for form, path in files.items()} == first


def test_tables_alone_need_no_page(tmp_path, runs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report(runs, "--csv", "t.csv")
    assert not (tmp_path / "report.html").exists()
    found = json.loads(report(runs, "--json"))
    assert [run["name"] for run in found["runs"]] == ["bare", "one"]
    assert {cell["ours"] for cell in found["cells"] if cell["column"] == "Top-1" and cell["ours"]} >= {85.5, 87.0}
    assert not (tmp_path / "report.html").exists()


def test_without_runs_what_the_paper_published(tmp_path):
    assert "no runs: what the paper published" in report("-o", tmp_path / "paper.html")
    text = (tmp_path / "paper.html").read_text()
    assert "87.41" in text
    assert "None of the runs is in this table" in text


@pytest.mark.parametrize("option", ["-o", "--markdown", "--csv", "--latex"])
def test_a_file_of_someone_else_is_left_alone(tmp_path, option):
    theirs = tmp_path / "mine.txt"
    theirs.write_text("table,of,mine\n")
    said = refused("--csv", tmp_path / "other.csv", option, theirs) if option != "--csv" else refused(option, theirs)
    assert "was not made by seqjepa report" in said
    assert theirs.read_text() == "table,of,mine\n"
    assert not (tmp_path / "other.csv").exists()


def test_mistakes_are_one_line(tmp_path, runs):
    assert "is not a folder" in refused(runs, "-o", tmp_path / "missing" / "report.html")
    assert "missing is not a folder" in refused(tmp_path / "no-runs", "-o", tmp_path / "missing" / "report.html")
    assert "two of the files" in refused(runs, "-o", tmp_path / "a", "--csv", tmp_path / "a")
    for option in ("-o", "--markdown", "--csv", "--latex"):
        said = refused(runs, option, "s3://bucket/x")
        assert "s3://bucket/x: this command writes to a folder on this machine" in said
    (tmp_path / "empty").mkdir()
    assert "holds no run directories" in refused(tmp_path / "empty")
