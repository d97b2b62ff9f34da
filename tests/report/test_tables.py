from __future__ import annotations

import statistics
from typing import Any

import pytest
from report_runs import protocol_of, write_run

from seqjepa.paper.measures import measure_of
from seqjepa.paper.published import published
from seqjepa.paper.tables import recipe_of
from seqjepa.recipes import load_recipe
from seqjepa.report.runs import read_records
from seqjepa.report.tables import Table, build_tables

SCORES = {
    "top1_z": 0.82,
    "top1_agg": {"1": 0.81, "3": 0.855, "5": 0.87},
    "r2_rel_rot_avg": 0.70,
    "r2_rel_rot_pool": 0.9,
    "r2_indiv_rot_avg": 0.73,
    "intervals": {"top1_agg": {"3": [0.85, 0.86]}},
}


def tables_of(folder) -> dict[str, Table]:
    return {table.key: table for table in build_tables(read_records([folder]))}


def cell(table: Table, *labels: str, column: int = 0):
    """The cell of the one row that has all these labels."""
    (found,) = [cells for row, cells in table.rows if set(labels) <= set(row)]
    return found[column]


def measured(tables: dict[str, Table]) -> set[str]:
    return {key for key, table in tables.items() if any(c.ours is not None for c in table.cells)}


def test_without_runs_every_published_value_is_there_once_and_nothing_is_ours():
    tables = build_tables([])
    cells = [c for table in tables for c in table.cells]
    of_tables = [r.value for r in published() if r.source.startswith(("Table", "Poster"))]
    maps = [r.value for r in published() if r.source in {f"Figure {n}" for n in (8, 9, 10, 11)}]
    assert sorted(c.published for c in cells if c.published is not None) == sorted(of_tables + maps)
    assert len(of_tables) == 531
    assert all(c.ours is None and c.seeds == 0 and not c.protocol for c in cells)
    assert len({table.key for table in tables}) == len(tables)


def test_a_run_stands_in_its_rows_and_in_no_others(tmp_path):
    write_run(tmp_path / "one", scores=SCORES)
    tables = tables_of(tmp_path)
    assert measured(tables) == {"table-1", "table-4", "table-12", "figure-8"}
    full = cell(tables["table-1"], "seq-JEPA", "rotation", "3", "5")
    assert (full.published, full.ours, full.seeds, full.mark) == (87.41, 87.0, 1, "")
    assert full.difference == pytest.approx(-0.41)
    at_3 = next(cells for row, cells in tables["table-1"].rows if row[1:] == ("rotation", "3", "3"))
    assert (at_3[0].ours, at_3[1].ours, at_3[2].ours) == (85.5, 0.70, 0.73)
    assert (at_3[0].low, at_3[0].high) == pytest.approx((85.0, 86.0))
    assert at_3[1].low is None
    by_lengths = {row[1:]: cells[0].ours for row, cells in tables["table-1"].rows if row[0] == "seq-JEPA"}
    assert [ours for lengths, ours in by_lengths.items() if lengths[1] == "1"] == [None, None]
    assert by_lengths["nothing", "3", "3"] is None
    assert cell(tables["table-4"], "action_embedding_dim=128").ours == 87.0
    assert sum(c.ours is not None for c in tables["table-4"].cells) == 2
    assert cell(tables["figure-8"], "3", column=2).ours == 85.5


def test_the_protocol_says_everything(tmp_path):
    write_run(tmp_path / "one", scores=SCORES)
    top1, r2, _ = next(cells for row, cells in tables_of(tmp_path)["table-1"].rows if row[1:] == ("rotation", "3", "5"))
    for part in ("3DIEBench", "128 px", "M_val 5", "M_tr 3", "1000 epochs", "fidelity paper", "rotation", "run one"):
        assert part in top1.protocol
    assert "R² mean over dimensions" in r2.protocol
    assert "M_val" not in r2.features
    assert "\n" not in top1.protocol


def test_seeds_become_one_row_with_the_sample_deviation(tmp_path):
    accuracies = [0.86, 0.88, 0.87]
    for seed, accuracy in enumerate(accuracies):
        scores = SCORES | {"top1_agg": {"5": accuracy}, "intervals": {"top1_agg": {"5": [0.8, 0.9]}}}
        write_run(tmp_path / f"seed{seed}", settings=[f"seed={seed}"], scores=scores)
    write_run(tmp_path / "twice", settings=["seed=0"], scores=SCORES | {"top1_agg": {"5": 0.1}})
    found = cell(tables_of(tmp_path)["table-4"], "action_embedding_dim=128")
    assert found.ours == pytest.approx(87.0)
    assert found.std == pytest.approx(statistics.stdev(100 * a for a in accuracies))
    assert (found.seeds, found.low, found.high) == (3, None, None)
    assert "seeds 0, 1, 2" in found.protocol


def test_another_scale_is_marked_with_what_differs(tmp_path):
    small = protocol_of(resolution=64, probe_epochs={"classification": 100})
    settings = ["optim.epochs=30", "model.width=0.5", "data.image_size=64"]
    write_run(tmp_path / "small", settings=settings, scores=SCORES, protocol=small, epochs=20)
    found = cell(tables_of(tmp_path)["table-1"], "rotation", "3", "5")
    assert found.ours == 87.0
    for part in (
        "64 px (paper 128)",
        "× 0.5 (paper 1)",
        "epochs 30 (paper 1000)",
        "stopped after 20",
        "probes 100 epochs",
    ):
        assert part in found.mark
    assert "normalisation" not in found.mark


def test_only_settings_that_a_method_looks_at_are_differences(tmp_path):
    unused = ["model.action_dim=32", "model.layers=2", "model.predictor_hidden=64", "optim.ema_tau=0.9"]
    write_run(tmp_path / "simclr", "simclr-3die", settings=unused, scores=SCORES)
    assert cell(tables_of(tmp_path)["table-1"], "SimCLR").mark == ""
    write_run(tmp_path / "byol", "byol-3die", settings=["model.projector=[64, 64]", *unused[2:]], scores=SCORES)
    mark = cell(tables_of(tmp_path)["table-1"], "BYOL").mark
    assert "projector 64, 64 (paper the method's own)" in mark
    assert "predictor hidden 64 (paper the method's own)" in mark
    assert "ema tau 0.9 (paper 0.996)" in mark
    inside = {"rotation": {"top1_z": {"126": 0.8}}}
    write_run(
        tmp_path / "context", "context-ssl-3die", settings=["context_ssl.width=128"], scores={"in_context": inside}
    )
    assert "width 128 (paper 2048)" in cell(tables_of(tmp_path)["table-1"], "ContextSSL").mark


def test_published_values_have_the_papers_digits():
    tables = {table.key: table for table in build_tables([])}
    map_8, ood = tables["figure-8"], tables["table-9"]
    assert map_8.rows[0][1][0].text("%").published == "84.1"
    column = [column.name for column in ood.columns].index("R² individual rotation, OOD")
    assert cell(ood, "SIE", column=column).text("R²").published == "−0.200"


def test_the_run_nearest_to_the_papers_scale_stands_there_and_the_other_is_not_lost(tmp_path):
    write_run(tmp_path / "full", scores=SCORES)
    write_run(tmp_path / "short", settings=["optim.epochs=50"], scores=SCORES | {"top1_agg": {"5": 0.99}})
    tables = tables_of(tmp_path)
    assert cell(tables["table-1"], "rotation", "3", "5").ours == 87.0
    (row,) = tables["3diebench-128-px-other"].rows
    assert row[0][0] == "short"


def test_weights_on_the_way_say_so_and_are_no_seed_of_finished_runs(tmp_path):
    """However far the run has come since they were evaluated."""
    scores = {"representation": {"knn_z": 0.5}}
    for seed, measured in ((1, 3), (2, 3), (3, 1.5)):
        protocol, settings = protocol_of("mine", trained_epochs=measured), [f"seed={seed}", "optim.epochs=3"]
        write_run(tmp_path / str(seed), settings=settings, scores=scores, protocol=protocol)
    of_runs = next(t for t in tables_of(tmp_path).values() if "Epochs" in t.heads and t.columns and len(t.rows) == 2)
    (finished, stopped) = of_runs.rows
    assert (finished[0][0], finished[0][-1], finished[1][0].seeds) == ("1, 2", "3", 2)
    assert (stopped[0][0], stopped[0][-1], stopped[1][0].seeds) == ("3", "1.5 of 3", 1)
    assert "; 1.5 of 3 epochs, fidelity paper;" in stopped[1][0].protocol


def test_other_data_never_stand_beside_published_values(tmp_path):
    write_run(tmp_path / "synth", scores=SCORES, protocol=protocol_of("3die-synth", resolution=48))
    tables = tables_of(tmp_path)
    assert measured(tables) == {f"3die-synth-48-px-{form}" for form in ("table-1", "table-4", "table-12", "figure-8")}
    own = tables["3die-synth-48-px-table-1"]
    assert own.dataset == "3die-synth, 48 px"
    assert all(c.published is None and not c.footnotes and not c.mark for c in own.cells)
    assert "48 px (paper 128)" in own.cells[0].protocol
    assert "3DIEBench" not in str(tables["3die-synth-48-px-table-12"].rows)


def test_a_run_that_is_no_row_is_in_a_table_of_its_own(tmp_path):
    write_run(tmp_path / "two", "3die-rot-M2", scores=SCORES)
    tables = tables_of(tmp_path)
    assert measured(tables) == {"figure-8", "3diebench-128-px-other"}
    ((labels, cells),) = tables["3diebench-128-px-other"].rows
    assert labels[0] == "two"
    assert cells[0].ours == pytest.approx(82.0)


@pytest.mark.parametrize(
    ("recipe", "settings", "keys"),
    [
        ("sie-3die-rot", [], {"table-1"}),
        ("3die-noact-M3", [], {"table-1", "table-4", "table-12"}),
        ("3die-nopred-M3", [], {"table-4"}),
        ("3die-adim16-M3", [], {"table-4"}),
        ("3die-rot-M3", ["model.action_dim=32"], {"table-1", "table-12", "figure-8"}),
        ("byol-3die-plus", [], {"table-8"}),
        ("simclr-3die", ["data.action=rotation_colour"], {"table-1"}),
        ("3die-hc-M3", [], {"table-11"}),
    ],
)
def test_what_makes_a_row(tmp_path, recipe, settings, keys):
    pixels = 256 if "hc" in recipe else 128
    write_run(tmp_path / "one", recipe, settings=settings, scores=SCORES, protocol=protocol_of(resolution=pixels))
    assert measured(tables_of(tmp_path)) == keys


def test_saccades_and_augmentations_have_rows_of_their_own(tmp_path):
    seen = {"top1_z_image": 0.8, "top1_agg": {"4": 0.82, "5": 0.83}, "r2_position_avg": 0.8, "r2_crop_avg": 0.7}
    stl = protocol_of("STL-10", resolution=96)
    for recipe in ("stl-pls-M4", "stl-pls-noior-M4", "simclr-stl", "stl-fullsize-M4"):
        write_run(tmp_path / recipe, recipe, scores=seen, protocol=stl)
    for recipe, data, pixels in (("c100-all-M2", "CIFAR100", 32), ("tiny-all-M2", "TinyImageNet", 64)):
        write_run(tmp_path / recipe, recipe, scores=seen, protocol=protocol_of(data, resolution=pixels))
    tables = tables_of(tmp_path)
    by_form = {row[:3]: cells for row, cells in tables["table-3"].rows if row[-1] != "6"}
    assert by_form["seq-JEPA", "–", "position"][0].ours == pytest.approx(83.0)
    assert by_form["seq-JEPA", "–", "position"][0].features == "z_AGG, M_val 5"
    assert by_form["seq-JEPA", "w/o saliency & IoR", "position"][0].ours is None
    assert by_form["seq-JEPA", "w/o IoR", "position"][0].ours == pytest.approx(83.0)
    ablations = {row[0]: cells[0].ours for row, cells in tables["poster-ablations"].rows}
    assert ablations["Full-sized aug. imgs"] == pytest.approx(82.0)
    assert ablations["ResNet-18 enc."] is None
    both = next(cells for row, cells in tables["table-2"].rows if row == ("seq-JEPA", "crop+jitter+blur", "2", "5"))
    assert [c.ours for c in both] == [pytest.approx(83.0), 0.7, None, None] * 2
    assert "CIFAR100" in both[0].run
    assert "TinyImageNet" in both[4].run


def test_a_run_of_every_recipe_with_every_number_fills_every_value(tmp_path):
    """Each at the paper's scale: nothing is left empty, nothing is marked."""
    rows = [row for row in published() if row.source.startswith(("Table", "Poster", "Figure 8")) and row.dataset]
    for recipe in {recipe_of(row) for row in rows}:
        of_recipe = [row for row in rows if recipe_of(row) == recipe]
        data = of_recipe[0].paper_set
        scores: dict[str, Any] = {"costs": {"macs_g": {"3": 1.836}}}
        for key in {key for row in of_recipe for key in (measure_of(row).key, measure_of(row).minus) if key}:
            put(scores, key, 0.5)
        pixels = load_recipe(recipe).data.image_size
        write_run(tmp_path / recipe, recipe, scores=scores, protocol=protocol_of(data, resolution=pixels), epochs=0)
    tables = [table for key, table in tables_of(tmp_path).items() if key.startswith(("table", "poster", "figure-8"))]
    missing = [
        (t.key, labels) for t in tables for labels, cells in t.rows for c in cells if c.ours is None and not c.empty
    ]
    assert not missing
    assert not [(t.key, c.mark) for t in tables for c in t.cells if c.mark]


def put(scores: dict[str, Any], key: str, value: float) -> None:
    *levels, last = key.split(".")
    for level in levels:
        scores = scores.setdefault(level, {})
    scores[last] = value


def test_costs_stand_beside_table_6_whatever_the_data(tmp_path):
    scores = {"costs": {"macs_g": {"1": 0.625, "3": 1.836}}}
    write_run(tmp_path / "one", scores=scores, protocol=protocol_of("3die-synth"))
    write_run(tmp_path / "half", settings=["model.width=0.5"], scores=scores, protocol=protocol_of("3die-synth"))
    rows = {labels: [c.ours for c in cells] for labels, cells in tables_of(tmp_path)["table-6"].rows}
    assert rows["128", "128"] == pytest.approx([0.592, 0.625, 1.229, 1.836, 2.443, 4.870], abs=6e-4)
    assert rows["84", "84"] == pytest.approx([0.296, 0.326, 0.636, 0.947, 1.258, 2.501], abs=6e-4)
    assert rows["64", "64"] == pytest.approx([0.148, 0.178, 0.340, 0.503, 0.666, 1.317], abs=6e-4)
    assert rows["64", "224"][0] == rows["84", "224"][0] == pytest.approx(1.814, abs=6e-4)
    table = tables_of(tmp_path)["table-6"]
    assert all(abs(c.difference) < 0.035 for c in table.cells if c.difference is not None)
    assert all("run one" in c.protocol for c in table.cells if c.ours is not None)


def test_other_networks_are_not_those_of_table_6_and_an_encoder_has_no_aggregator(tmp_path):
    scores = SCORES | {"costs": {"macs_g": {"2": 0.5}}}
    write_run(tmp_path / "half", settings=["model.width=0.5"], scores=scores)
    assert "table-6" not in measured(tables_of(tmp_path))
    write_run(tmp_path / "simclr", "simclr-3die", scores=scores)
    columns = {k for _, cells in tables_of(tmp_path)["table-6"].rows for k, c in enumerate(cells) if c.ours is not None}
    assert columns == {0}


def test_runs_that_were_not_evaluated_or_only_at_their_initial_weights_are_in_no_table(tmp_path):
    write_run(tmp_path / "bare")
    assert measured(tables_of(tmp_path)) == set()
