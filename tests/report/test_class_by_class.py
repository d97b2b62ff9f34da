from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import protocol_of, write_run
from test_comparison_page import standing_rows

from seqjepa.evaluate.results import artefacts_folder, precision_of, save_arrays
from seqjepa.report.figures.drawing import Figure
from seqjepa.report.figures.runs import class_by_class
from seqjepa.report.groups import groups_of
from seqjepa.report.overview import standardised
from seqjepa.report.render.html import every_number, numbers_table, overview_html
from seqjepa.report.runs import read_records
from seqjepa.report.tables import build_tables
from shards.errors import FormatError

NAMES = np.array(["chair", "mug", "car"])
COUNTS = np.array([[6, 1, 1], [4, 0, 0], [0, 0, 0]], np.int32)
BEFORE = np.array([[2, 6, 0], [1, 3, 0], [0, 0, 0]], np.int32)
SYNTH = protocol_of("3die-synth", resolution=48)
SCORES = {"top1_z": 0.5, "top1_agg": {"1": 0.25, "5": 0.5}}


def run_of(folder: Path, protocol: dict = SYNTH, untrained: dict | None = None, **arrays: np.ndarray) -> Path:
    """arrays: of confusion.npz beside the trained numbers. untrained: what the protocol of those says otherwise."""
    run = write_run(folder, scores=SCORES, protocol=protocol)
    save_arrays(artefacts_folder(run, "trained"), "confusion", {"class_names": NAMES, **arrays})
    if untrained is not None:
        results = json.loads((run / "results.json").read_text())
        results["untrained"] = {**SCORES, "protocol": results["trained"]["protocol"] | untrained}
        (run / "results.json").write_text(json.dumps(results))
        before = {"class_names": NAMES, "top1_agg.5": BEFORE}
        save_arrays(artefacts_folder(run, "untrained"), "confusion", before)
    return run


def figure_of(folder: Path) -> Figure:
    return class_by_class(groups_of(read_records([folder])))


def test_accuracies_and_confusions_are_those_of_the_matrix_of_the_number_in_the_overview(tmp_path):
    run_of(tmp_path / "a", untrained={}, **{"top1_z": BEFORE, "top1_agg.1": BEFORE, "top1_agg.5": COUNTS})
    figure = figure_of(tmp_path)
    said = "top-1, z_AGG, M_val = 5"
    assert list(figure.rows) == [
        ("a", said, "chair", 8, 75.0, 25.0, "mug", 12.5),
        ("a", said, "mug", 4, 0.0, 75.0, "chair", 100.0),
    ]
    bars, matrix = figure.panels
    assert bars.title == f"seq-JEPA, M_tr 3 on 3die-synth, 48 px (a), {said}"
    assert "mug 0 %; chair 75 %" in bars.drawing
    assert bars.drawing.index(">mug<") < bars.drawing.index(">chair<")
    assert ">car<" not in bars.drawing + matrix.drawing
    assert "confusion matrix of 2 classes" in matrix.drawing
    assert "<image" in matrix.drawing


def test_of_several_kinds_of_run_each_is_closed_behind_its_name(tmp_path):
    run_of(tmp_path / "a", **{"top1_agg.5": COUNTS})
    run = write_run(tmp_path / "b", "simclr-3die", scores=SCORES, protocol=SYNTH)
    save_arrays(artefacts_folder(run, "trained"), "confusion", {"class_names": NAMES, "top1_z": COUNTS})
    write_run(tmp_path / "c", "sie-3die-rot", scores=SCORES, protocol=SYNTH)
    figure = figure_of(tmp_path)
    said = [panel.drawing.partition("</summary>")[0] for panel in figure.panels]
    assert ["(a), top-1, z_AGG, M_val = 5" in text for text in said] == [True, False]
    assert said[1] == "<details>\n<summary>SimCLR on 3die-synth, 48 px (b), top-1, z"
    assert [panel.drawing.count("<svg ") for panel in figure.panels] == [2, 2]


def test_untrained_classes_that_were_measured_otherwise_stand_nowhere(tmp_path):
    run_of(tmp_path / "a", untrained={"val_draws": 16}, **{"top1_agg.5": COUNTS})
    assert [row[5] for row in figure_of(tmp_path).rows] == [None, None]


def test_of_very_many_classes_hits_alone_are_kept_and_the_lowest_shown(tmp_path):
    names = np.array([f"class{k}" for k in range(80)])
    counts = np.stack([np.full(80, 4), np.arange(80) % 4]).astype(np.int32)
    run_of(tmp_path / "a", class_names=names, **{"top1_agg.5": counts})
    figure = figure_of(tmp_path)
    (bars,) = figure.panels
    assert bars.title.endswith("the 60 lowest of 80 classes")
    assert [row[4] for row in figure.rows][:4] == [0.0, 25.0, 50.0, 75.0]
    assert {row[6:] for row in figure.rows} == {(None, None)}


@pytest.mark.parametrize("counts", [np.ones((3, 2), np.int32), np.ones((3, 3)), -np.ones((3, 3), np.int32),
                                    np.ones(3, np.int32)])  # fmt: skip
def test_what_is_no_confusion_matrix_is_one_line(tmp_path, counts):
    run_of(tmp_path / "a", **{"top1_agg.5": counts})
    with pytest.raises(FormatError, match=r"confusion.npz: top1_agg.5 is no confusion matrix .* evaluate again"):
        figure_of(tmp_path)


def test_runs_without_one_are_missing(tmp_path):
    write_run(tmp_path / "a", scores=SCORES, protocol=SYNTH)
    assert figure_of(tmp_path).missing


def test_few_objects_and_precision_are_said_under_the_cells_and_in_the_overview(tmp_path):
    precision = {"training": "bf16 autocast, TF32", "encoder": "fp32", "probes": "fp32"}
    protocol = protocol_of("3die-synth", resolution=48, val_samples=16, val_draws=1, precision=precision)
    write_run(tmp_path / "a", scores=SCORES, protocol=protocol)
    records = read_records([tmp_path])
    cell = next(c for table in build_tables(records) for c in table.cells if c.ours is not None)
    few = "few: numbers and their intervals come from one draw of 16 validation objects; --val-draws"
    assert few in cell.protocol
    assert "training in bf16 autocast, TF32, encoder and probes in fp32" in cell.protocol
    assert few in next(iter(standing_rows(overview_html(groups_of(records))).values()))[-1]
    assert precision_of({"precision": dict.fromkeys(precision, "fp32")}) == "all in fp32"
    assert precision_of({}) == ""


def test_numbers_of_the_standardised_regressor_are_marked_and_so_are_those_of_before_it_was_noted(tmp_path):
    scores = {**SCORES, "r2_hue_avg": 0.5, "r2_rel_rot_avg": 0.25, "r2_path": {"both": {"2": 0.5}}}
    for name in ("plain", "standardised"):
        write_run(tmp_path / name, scores=scores, protocol=SYNTH | {"linear_regressors": name}, settings=["seed=1"])
    old = {key: value for key, value in SYNTH.items() if key != "linear_regressors"}
    write_run(tmp_path / "old", "3die-rot-M2", scores=scores, protocol=old)
    records = {record.name: record for record in read_records([tmp_path])}
    assert standardised(records["plain"].trained) == []
    assert standardised(records["standardised"].trained) == standardised(records["old"].trained) == ["r2_hue_avg"]
    assert "R² hue difference, avg <abbr" in numbers_table(records["old"].results)
    assert numbers_table(records["old"].results).count("standardised regressor") == 1
    said = "R² by linear regressors on standardised features, which the paper’s are not (§A.2)"
    trust = [cells[-1] for cells in standing_rows(overview_html(groups_of(records.values()))).values()]
    assert [said in words for words in trust] == [name != "plain" for name in sorted(records, key=list(records).index)]
    paths = {**SYNTH, "probe_epochs": {"classification": 300, "position": 50}, "linear_regressors": "standardised"}
    assert standardised({"r2_path": {"both": {"2": 0.5}}, "protocol": paths}) == ["r2_path.both.2"]


def test_results_that_lack_parts_of_their_protocol_or_costs_still_make_a_page(tmp_path):
    scores = {"top1_z": 0.5, "costs": {"macs_g": {"1": 0.5}}}
    run = write_run(tmp_path / "a", scores=scores, protocol=SYNTH)
    (run / "results.json").write_text(json.dumps({"trained": {**scores, "protocol": {"dataset": "mine"}}}))
    page = every_number(groups_of(read_records([tmp_path])))
    assert "mine at ? px, ? training and ? validation samples" in page
    assert "costs: 0.5 GMAC a sample (M = 1)" in page
