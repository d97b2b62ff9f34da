from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from report_runs import protocol_of, write_run
from test_comparison_page import page_of, standing_rows
from typer.testing import CliRunner

from cli import seqjepa_app
from seqjepa.paper.metrics import ROWS, better, judged
from seqjepa.paper.published import published
from seqjepa.report.groups import groups_of
from seqjepa.report.overview import clearly_lost, lost_to_untrained
from seqjepa.report.render import html
from seqjepa.report.render import text as forms
from seqjepa.report.render.html import numbers_table, overview_html
from seqjepa.report.runs import read_records
from seqjepa.report.tables import Table, build_tables

FULL = "3die-rot-M3"
ERRORS = {"rel_rot_deg", "rel_rot_deg_median", "indiv_rot_deg", "indiv_rot_deg_median"}
SCORES = {"top1_z": 0.5, "top1_agg": {"5": 0.875}, "r2_rel_rot_avg": 0.5, "r2_hue_avg": 0.25, "rel_rot_deg": 30.0}
BEFORE = {"top1_z": 0.25, "top1_agg": {"5": 0.5}, "r2_rel_rot_avg": 0.125, "r2_hue_avg": 0.5, "rel_rot_deg": 50.0}


def run_with_floor(
    folder: Path, protocol: dict | None = None, before: dict | None = None, recipe="3die-rot-M3"
) -> Path:
    """before: what the protocol of the untrained numbers says otherwise."""
    protocol = protocol or protocol_of()
    run = write_run(folder, recipe, scores=SCORES, protocol=protocol)
    results = json.loads((run / "results.json").read_text())
    results["untrained"] = {**BEFORE, "protocol": {**results["trained"]["protocol"], **(before or {})}}
    (run / "results.json").write_text(json.dumps(results))
    return run


def overview(folder: Path) -> str:
    """The first section of the page of the runs in a folder."""
    return overview_html(groups_of(read_records([folder])))


def tables_of(folder: Path) -> dict[str, Table]:
    return {table.key: table for table in build_tables(read_records([folder]))}


def cell(table: Table, m_val: str, column: int):
    return next(cells[column] for labels, cells in table.rows if labels == ("seq-JEPA", "rotation", "3", m_val))


def test_errors_angles_and_costs_are_better_when_lower_and_what_a_guess_reaches_is_neither():
    lower = {key for key in ROWS if better(key) == "lower"}
    neither = {key for key in ROWS if better(key) == ""}
    last = {key.rpartition(".")[2] for key in lower}
    assert last == {*ERRORS, "angle_deg"}
    for end in ("deg", "deg_median", "rmse"):
        assert better(f"rel_term12_{end}") == better(f"indiv_state_{end}") == "lower"
    assert better("r2_rel_term12_avg") == better("top1_indiv_term3") == better("r2_indiv_state_agg.5") == "higher"
    assert all(better(key) == "lower" for key in ROWS if key.rpartition(".")[2] in last)
    assert neither == {key for key in ROWS if key.endswith(("_chance", "_blind"))}
    assert better("in_context.rotation.rel_rot_deg.126") == better(("costs", "macs_g", "3")) == "lower"
    assert better("top1_agg.5") == better("retrieval.mrr") == better("r2_path.both.3") == "higher"


@pytest.mark.parametrize(
    ("difference", "direction", "said"),
    [(-2.7, "lower", "better"), (2.7, "lower", "worse"), (0.1, "higher", "better"), (-0.1, "higher", "worse"),
     (0.0, "lower", ""), (None, "higher", ""), (1.0, "", "")],
)  # fmt: skip
def test_what_a_difference_says(difference, direction, said):
    assert judged(difference, direction) == said


def test_every_published_column_has_a_direction():
    directions = {table.key: {column.better for column in table.columns} for table in build_tables([])}
    assert {key for key, found in directions.items() if found != {"higher"}} == {"table-5", "table-6"}
    assert directions["table-5"] == directions["table-6"] == {"lower"}
    assert len(published()) == 901


def test_every_form_shows_which_way_a_column_is_better(tmp_path):
    write_run(tmp_path / "one", scores={"costs": {"gpu_hours": 12.5}, "top1_agg": {"5": 0.875}})
    tables = tables_of(tmp_path)
    hours, accuracy = tables["table-5"], tables["table-1"]
    assert 'GPU hours (h) <abbr class=arrow title="lower is better">↓</abbr>' in html.table_html(hours)
    assert "<span class=better>−2.6</span>" in html.table_html(hours)
    assert "<span class=better>+0.09</span>" in html.table_html(accuracy)
    assert "GPU hours (h) ↓ |" in forms.markdown(hours)
    assert r"GPU hours (h) $\downarrow$ \\" in forms.latex(hours)
    assert r"Top-1 (\%) $\uparrow$" in forms.latex(accuracy)
    assert {record["better"] for record in forms.table_records([hours])} == {"lower"}


def test_a_table_of_one_run_is_coloured_by_what_is_better(tmp_path):
    (record,) = read_records([run_with_floor(tmp_path / "one")])
    html = numbers_table(record.results)
    rows = dict(re.findall(r"<th scope=row>([^<]+) <abbr.*?class='([^']+)'>", html))
    assert rows["relative rotation, mean error in degrees"] == "gain better"
    assert rows["R² hue difference, avg"] == "gain worse"
    assert rows["top-1, z"] == "gain better"
    assert "−20.000" in html
    assert lost_to_untrained(record.results) == {"r2_hue_avg": "R² hue difference, avg"}


def test_untrained_weights_stand_beside_ours_in_every_form(tmp_path):
    run_with_floor(tmp_path / "one")
    table = tables_of(tmp_path)["table-1"]
    found = cell(table, "5", 0)
    assert (found.ours, found.floor, found.gain) == (87.5, 50.0, 37.5)
    assert "untrained 50.00, <span class=better>+37.50</span>" in html.table_html(table)
    assert "Δ +0.09; untrained 50.00 |" in forms.markdown(table)
    assert r"/ 87.41 {\scriptsize untrained 50.00}" in forms.latex(table)
    assert [record["untrained"] for record in forms.table_records([table]) if record["ours"] == 87.5] == [50.0]


def test_untrained_weights_of_some_seeds_say_so_and_give_no_gain(tmp_path):
    """Ours is the mean over both seeds: less the floor of one it would be a gain of nothing that was measured."""
    run_with_floor(tmp_path / "one")
    write_run(tmp_path / "two", settings=["seed=1"], scores=SCORES, protocol=protocol_of())
    table = tables_of(tmp_path)["table-1"]
    found = cell(table, "5", 0)
    assert (found.ours, found.seeds, found.floor, found.gain) == (87.5, 2, 50.0, None)
    for form in (html.table_html, forms.markdown, forms.latex):
        assert "untrained 50.00 (1 of 2 seeds)" in form(table)
    (cells,) = standing_rows(overview(tmp_path)).values()
    assert cells[0].endswith("untrained 50.0 (1 of 2 seeds)")


def test_untrained_weights_that_were_measured_otherwise_stand_nowhere_and_the_note_says_so(tmp_path):
    run_with_floor(tmp_path / "one", before={"train_samples": 100})
    found = cell(tables_of(tmp_path)["table-1"], "5", 0)
    assert (found.ours, found.floor) == (87.5, None)
    assert "untrained weights measured differently (train_samples)" in found.protocol
    html = overview(tmp_path)
    assert "untrained 50" not in html
    assert "worse than untrained" not in html
    assert lost_to_untrained(read_records([tmp_path])[0].results) == {}


def test_the_overview_has_the_untrained_number_and_names_what_training_lost(tmp_path):
    run_with_floor(tmp_path / "home")
    run_with_floor(tmp_path / "away", protocol_of("3die-synth", resolution=48))
    run_with_floor(tmp_path / "norow", protocol_of("3die-synth", resolution=48), recipe="3die-rot-M2")
    rows = standing_rows(overview(tmp_path))
    assert len(rows) == 3
    for cells in rows.values():
        assert cells[0] == "87.5untrained 50.0"
        assert cells[3] == "0.50untrained 0.12"
        assert cells[6].endswith("worse than untrained: R² hue difference, avg")


@pytest.mark.parametrize(("interval", "named"), [([0.125, 0.375], True), ([0.125, 0.625], False)])
def test_a_loss_within_the_interval_is_not_named_in_the_overview(tmp_path, interval, named):
    run = run_with_floor(tmp_path / "one")
    results = json.loads((run / "results.json").read_text())
    results["trained"]["intervals"] = {"r2_hue_avg": interval}
    assert clearly_lost(results) == (["R² hue difference, avg"] if named else [])
    (run / "results.json").write_text(json.dumps(results))
    (cells,) = standing_rows(overview(tmp_path)).values()
    assert cells[6].endswith("worse than untrained: R² hue difference, avg") == named


def test_costs_have_no_floor(tmp_path):
    run = write_run(tmp_path / "one", scores={"costs": {"gpu_hours": 12.5}})
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"untrained": results["trained"]}))
    assert {c.floor for c in tables_of(tmp_path)["table-5"].cells} == {None}


def test_what_holds_nothing_of_ours_is_closed_behind_its_title_and_the_rest_is_open(tmp_path):
    write_run(tmp_path / "one", scores=SCORES)
    html = page_of(read_records([tmp_path]))
    closed = set(re.findall(r'<article id="([^"]+)">\n<details class=folded>', html))
    assert {"table-2", "table-9", "figure-15", "heat-map-9"} <= closed
    assert not {"table-1", "table-4", "heat-map-8"} & closed
    assert "<h3>Table 9: rotations outside the training range (3DIEBench-OOD)</h3> <small>" in html
    assert html.count("<details open>") == 1
    assert html.index('id="numbers"') < html.index('id="tables"')


def test_without_runs_everything_is_open():
    assert "class=folded" not in page_of([])


def test_csv_of_a_version_with_fewer_columns_is_replaced(tmp_path):
    path, first = tmp_path / "tables.csv", ",".join(forms.COLUMNS[:16])
    assert first.endswith("difference,mark,footnotes,protocol")
    path.write_text(first + "\nold\n")
    outcome = CliRunner().invoke(seqjepa_app, ["report", "--csv", str(path)], catch_exceptions=False)
    assert outcome.exit_code == 0
    assert path.read_text().startswith(f"{first},better,untrained\n")
