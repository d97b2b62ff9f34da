from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from report_runs import protocol_of, write_run

from seqjepa.evaluate.results import artefacts_folder, save_arrays
from seqjepa.paper.figures import UMAP_CASES
from seqjepa.paper.sets import IMAGENET_SHA256
from seqjepa.report.figures import build_figures
from seqjepa.report.figures.accuracy import accuracy_vs_r2
from seqjepa.report.figures.drawing import Figure
from seqjepa.report.figures.features import neighbours, umap_figure
from seqjepa.report.figures.runs import run_curves
from seqjepa.report.figures.views import path_figure, scaling, transfer
from seqjepa.report.groups import groups_of
from seqjepa.report.render.html import figure_html
from seqjepa.report.runs import read_records

SYNTH = protocol_of("3die-synth", resolution=48)
PATH = {"both": {"1": 1.0, "2": 0.75}, "no_action": {"1": 0.25, "2": 0.125}, "no_vision": {"1": 1.0, "2": 0.5}}


def scores(m: int) -> dict:
    return {
        "top1_z": 0.5, "r2_rel_rot_avg": m / 8, "top1_agg": {"1": 0.25, "5": 0.5 + m / 16}, "r2_path": PATH,
        "rollout": {"mrr": {"1": 0.5, "2": 0.25}, "mrr_chance": 0.0625},
        "neighbours": {"class": 0.75, "object": 0.5, "angle_deg": 60.0}, "umap": {"trustworthiness_view": 0.9375},
    }  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for m in (1, 2, 3):
        write_run(folder / f"M{m}", f"3die-rot-M{m}", scores=scores(m), protocol=SYNTH, epochs=2)
    write_run(folder / "paper", scores={"top1_agg": {"5": 0.875}, "r2_rel_rot_avg": 0.625}, epochs=2)
    transferred = write_run(folder / "stl", "stl-pls-M4", scores={"top1_agg": {"5": 0.5}}, epochs=2)
    (transferred / "results-other-224-patch84.json").write_text(json.dumps({"trained": {"top1_agg": {"1": 0.25}}}))
    rng = np.random.default_rng(0)
    pictures = {
        "pictures": rng.integers(0, 255, (2, 4, 8, 8, 3), dtype=np.uint8),
        "same_class": np.array([[True, True, False]] * 2),
        "same_object": np.array([[True, False, False]] * 2),
        "angle_deg": np.array([[10, 20, np.nan]] * 2, dtype=np.float32),
    }
    maps = {
        "view_xy": rng.normal(size=(40, 2)).astype(np.float32), "view_class": np.arange(40, dtype=np.int16) % 2,
        "view_angle_deg": np.linspace(0, 180, 40, dtype=np.float32), "class_names": np.array(["car", "mug"]),
        "agg_xy": rng.normal(size=(10, 2)).astype(np.float32), "agg_class": np.arange(10, dtype=np.int16) % 2,
    }  # fmt: skip
    for name, arrays in (("neighbours", pictures), ("umap", maps)):
        save_arrays(artefacts_folder(folder / "M3", "trained"), name, arrays)
    return folder


@pytest.fixture(scope="module")
def figures(runs) -> dict[str, Figure]:
    return {figure.key: figure for figure in build_figures(read_records([runs]))}


@pytest.fixture(scope="module")
def published() -> dict[str, Figure]:
    return {figure.key: figure for figure in build_figures([])}


def column(figure: Figure, name: str, **where: object) -> list:
    """Values of a column in the rows where other columns (by their names, _ for what is no identifier) match."""
    rows = [dict(zip(figure.columns, row, strict=True)) for row in figure.rows]
    return [row[name] for row in rows if all(row[key] == value for key, value in where.items())]


def test_without_runs_the_published_values_are_drawn_and_ours_named_missing(published):
    drawn = {key for key, figure in published.items() if figure.panels}
    assert drawn == {"figure-3", "figure-6", "figure-7", *(f"heat-map-{n}" for n in (8, 9, 10, 11)), "figure-15"}
    assert all(figure.missing for figure in published.values())
    whose = {value for figure in published.values() if "whose" in figure.columns for value in column(figure, "whose")}
    assert whose == {"paper"}


def test_published_points_are_the_papers(published):
    figure3, figure8 = published["figure-3"], published["heat-map-8"]
    assert column(figure3, "top-1, %", method="SIE") == [77.49]
    assert column(figure3, "R²", method="seq-JEPA (3,5)") == [0.71]
    assert column(figure8, "top-1, %", M_tr=5, M_val=8) == [87.7]
    assert len(figure8.rows) == 40
    assert column(published["figure-15"], "y", curve="paper: 84 px")[-1] == 22.98


def test_ours_have_a_panel_of_their_own_unless_the_data_are_the_papers(figures):
    figure = figures["figure-3"]
    ours = dict(zip(column(figure, "method", whose="ours"), column(figure, "panel", whose="ours"), strict=True))
    assert ours == {
        "seq-JEPA (3,5), 2 epochs": "3DIEBench, published and ours",
        **{f"seq-JEPA ({m},5)": "ours on 3die-synth, 48 px" for m in (1, 2, 3)},
    }


def test_heat_maps_stand_side_by_side_and_say_what_ours_are(figures):
    figure = figures["heat-map-8"]
    titles = [panel.title for panel in figure.panels]
    assert titles == [
        "published, 3DIEBench",
        "ours, 3die-synth, 48 px, 2 of 1000 epochs",
        "ours, 3DIEBench, 128 px, 2 of 1000 epochs",
    ]
    assert column(figure, "top-1, %", whose="ours", panel=titles[1], M_val=5) == [56.25, 62.5, 68.75]
    assert figures["heat-map-10"].missing


def test_scaling_has_a_point_for_each_m_tr(figures):
    figure = figures["figure-7"]
    assert column(figure, "y", curve="rotation, 3die-synth, 48 px") == [0.125, 0.25, 0.375]
    assert column(
        figure, "x", curve="3die-synth, 48 px, M_val 5", panel="top-1 over M_tr, ours on 3die-synth, 48 px"
    ) == [1, 2, 3]
    assert column(figure, "y", curve="3die-synth, 48 px, M_tr 3") == [25.0, 68.75]


@pytest.mark.parametrize("key", ["figure-3", "figure-6", "figure-7", "figure-15"])
def test_other_data_never_stand_on_the_papers_axes(figures, key):
    figure = figures[key]
    whose: dict[str, set] = {}
    for row in figure.rows:
        whose.setdefault(str(row[0]), set()).add(row[1])
    both = {panel for panel, of in whose.items() if len(of) > 1}
    named = {row[2] for row in figure.rows if row[0] in both and row[1] == "ours"}
    assert not [name for name in named if "synth" in str(name)]
    assert all("synth" not in panel for panel in both)
    assert [panel for panel, of in whose.items() if of == {"ours"}]
    assert len(figure.panels) == len(whose)


def test_ours_stand_among_the_papers_curves_on_the_same_data_and_resolution(tmp_path):
    for name, pixels in (("same", 128), ("smaller", 64)):
        protocol = protocol_of(resolution=pixels)
        write_run(
            tmp_path / name, scores=scores(3), protocol=protocol, settings=[f"data.image_size={pixels}"], epochs=2
        )
    groups = groups_of(read_records([tmp_path]))
    found = {figure.key: figure for figure in (path_figure(groups), scaling(groups))}
    for key, panel, alone in (
        ("figure-7", "top-1 over M_val", "top-1 over M_val, ours on 3DIEBench, 64 px"),
        ("figure-6", "angular: seq-JEPA, M_tr 3 on 3DIEBench, 128 px; grey: paper, 3DIEBench",
         "angular: seq-JEPA, M_tr 3 on 3DIEBench, 64 px"),
    ):  # fmt: skip
        assert set(column(found[key], "whose", panel=panel)) == {"paper", "ours"}
        assert set(column(found[key], "whose", panel=alone)) == {"ours"}


def test_a_transfer_between_the_papers_sets_stands_among_its_curves(tmp_path):
    stl = protocol_of("STL-10", resolution=96)
    run = write_run(tmp_path / "stl", "stl-pls-M4", scores={"top1_agg": {"5": 0.5}}, protocol=stl, epochs=2)
    imagenet = {
        "classes_sha256": IMAGENET_SHA256, "val_samples": 50_000, "resolution": 224, "fixating": {"patch": 84},
    }  # fmt: skip
    for name, changed in (("in", {}), ("sketch", {"val_samples": 50_889}), ("tiles", {"fixating": {"patch": 48}})):
        results = {"trained": {"top1_agg": {"1": 0.25}, "protocol": imagenet | changed}}
        (run / f"results-{name}.json").write_text(json.dumps(results))
    figure = transfer(groups_of(read_records([tmp_path])))
    beside, alone = (panel.title for panel in figure.panels)
    assert column(figure, "curve", whose="ours", panel=beside) == ["seq-JEPA, M_tr 4, in"]
    assert column(figure, "curve", panel=alone) == ["sketch", "tiles"]


def test_online_probes_and_the_learning_rate_are_drawn_as_logged(tmp_path):
    run = write_run(tmp_path / "one", scores=scores(3), protocol=SYNTH, epochs=2)
    lines = [
        {"epoch": e, "loss": 0.5, "lr": 0.001 * e, "probe_r2": e / 4, **({"probe_top1": 0.75} if e > 1 else {})}
        for e in (1, 2)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_run(tmp_path / "bare", "simclr-3die", scores={"top1_z": 0.5}, protocol=SYNTH, epochs=2)
    found = {figure.key: figure for figure in run_curves(groups_of(read_records([tmp_path])))}
    top1, r2 = found["online-probes"].panels
    assert (top1.title, r2.title) == (
        "top-1 of the probe, 0 to 1, 3die-synth, 48 px",
        "R² of the probe, 3die-synth, 48 px",
    )
    assert "seq-JEPA, M_tr 3 from 0.75 to 0.75" in top1.drawing
    assert "seq-JEPA, M_tr 3 from 0.25 to 0.5" in r2.drawing
    (rate,) = found["learning-rate"].panels
    assert "seq-JEPA, M_tr 3 from 0.001 to 0.002" in rate.drawing


def test_paths_rollouts_and_transfers_are_those_of_results(figures):
    path = figures["figure-6"]
    assert column(path, "y", whose="ours", curve="actions alone")[:2] == [1.0, 0.5]
    assert "no visual run" in path.missing
    assert column(figures["rollouts"], "y", curve="chance") == [0.0625, 0.0625]
    assert column(figures["figure-15"], "y", whose="ours", curve="other-224-patch84") == [25.0]


def test_rows_of_pictures_say_what_they_share(figures):
    (panel,) = figures["figure-4"].panels
    assert re.findall(r"<small>([^<]*)</small>", panel.drawing)[:3] == [
        "same object, 10°",
        "same class, 20°",
        "another class",
    ]
    assert panel.drawing.count("<img ") == panel.drawing.count("alt=") == 8
    assert "75% the same class, 50% the same object, 60° apart" in panel.title


def test_maps_name_their_classes_and_cases_without_a_map_are_missing(figures):
    with_map, without = figures["umap-a"], figures["umap-b"]
    titles = [panel.title for panel in with_map.panels]
    assert titles == ["views by class", "views by angle of rotation, degrees", "z_AGG by class"]
    assert {">car<", ">mug<"} <= set(re.findall(r">(?:car|mug)<", with_map.panels[0].drawing))
    assert column(with_map, "trustworthiness of the map of z") == [0.9375]
    assert (without.panels, bool(without.missing)) == ((), True)


def test_a_map_of_an_ablation_stands_for_neither_case(tmp_path):
    run = write_run(tmp_path / "ablated", "3die-nopred-M3", scores=scores(3), protocol=SYNTH, epochs=2)
    maps = {
        "view_xy": np.zeros((4, 2), np.float32),
        "view_class": np.zeros(4, np.int16),
        "class_names": np.array(["a"]),
    }
    save_arrays(artefacts_folder(run, "trained"), "umap", maps)
    found = {case.key: umap_figure(case, groups_of(read_records([tmp_path]))) for case in UMAP_CASES}
    assert found["umap-a"].missing
    assert found["umap-b"].missing


def test_whole_images_of_a_set_of_saccades_are_on_a_plane_of_their_own(tmp_path):
    stl = protocol_of("STL-10", resolution=96)
    write_run(tmp_path / "p", "stl-pls-M4", scores={"top1_agg": {"5": 0.8}, "r2_position_avg": 0.7}, protocol=stl)
    write_run(tmp_path / "s", "simclr-stl", scores={"top1_z_image": 0.7, "r2_crop_avg": 0.9}, protocol=stl)
    figure = accuracy_vs_r2(groups_of(read_records([tmp_path])))
    ours = {row[0]: (row[2], row[4]) for row in figure.rows if row[1] == "ours"}
    assert ours == {"STL-10, published and ours": ("seq-JEPA (4,5)", 0.7), "ours on STL-10, 96 px": ("SimCLR", 0.9)}
    assert "R² of the crop" in next(panel.drawing for panel in figure.panels if panel.title.startswith("ours"))


def test_stored_views_that_are_augmented_without_an_action_stand_among_stored_views(tmp_path):
    """The same settings make views of whole images, of which the figure shows R² of the crop: run.json says what the
    shards held."""
    settings = ["data.augment=simclr", "data.action=none"]
    run = write_run(tmp_path / "s", "simclr-3die", settings=settings, scores={"top1_z": 0.7, "r2_rel_rot_avg": 0.25})
    identity = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(identity | {"data": {"kind": "views"}}))
    figure = accuracy_vs_r2(groups_of(read_records([tmp_path])))
    assert [(row[0], row[4]) for row in figure.rows if row[1] == "ours"] == [("3DIEBench, published and ours", 0.25)]


def test_neighbours_are_shown_of_seq_jepa_as_published_first(tmp_path):
    names = ["3die-nopred-M3", "3die-noact-M3", "sie-3die-rot", "3die-rot-M1", "3die-rot-M3"]
    pictures = {
        "pictures": np.zeros((1, 4, 8, 8, 3), np.uint8), "same_class": np.zeros((1, 3), bool),
        "same_object": np.zeros((1, 3), bool), "angle_deg": np.zeros((1, 3), np.float32),
    }  # fmt: skip
    for number, name in enumerate([*names, "3die-rot-M2"]):
        # M2's pictures are of an earlier evaluation: its numbers have no neighbours any more
        measured = {"neighbours": {"class": 0.5}} if name != "3die-rot-M2" else {}
        run = write_run(tmp_path / f"{number}", name, scores={"top1_z": 0.5, **measured}, epochs=1)
        save_arrays(artefacts_folder(run, "trained"), "neighbours", pictures)
    figure = neighbours("figure-4", groups_of(read_records([tmp_path])))
    assert [panel.title.partition(" on ")[0] for panel in figure.panels] == [
        *("seq-JEPA, M_tr 3", "seq-JEPA, M_tr 1", "seq-JEPA, M_tr 3, no predictor conditioning"),
        *("seq-JEPA, M_tr 3, no actions", "SIE"),
    ]


def test_every_drawing_has_a_name_of_its_own(figures):
    text = "".join(figure_html(figure) for figure in figures.values())
    names = re.findall(r'<svg role="img" aria-label="([^"]+)"', text)
    assert len(names) == len(set(names)) == text.count("<svg ")


def test_a_figure_as_csv_and_as_html():
    figure = Figure("k", "A <title>", "why & how", (), ("a, b", "c"), ((1.5, None), ("x<y", -2)), "no <run>")
    assert figure.csv() == '"a, b",c\n1.5,\nx<y,-2\n'
    text = figure_html(figure)
    assert "A &lt;title&gt;" in text
    assert "Not measured: no &lt;run&gt;." in text
    assert re.findall("<td>([^<]*)</td>", text) == ["1.5", "–", "x&lt;y", "-2"]
    assert Figure("k", "t", "c").csv() == ""
