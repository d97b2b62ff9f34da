from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from seqjepa.evaluate import results
from seqjepa.evaluate.protocol import differences, measured_as, same_measurement
from seqjepa.evaluate.results import (
    differently_measured,
    few_objects,
    few_steps,
    format_table,
    keyed_rows,
    merge_results,
    read_results,
)
from seqjepa.experiments.compare_table import different_protocols
from shards.errors import FormatError

PROTOCOL = {
    "dataset": "d", "resolution": 48, "train_samples": 900, "val_samples": 400, "fidelity": "paper", "m_tr": 3,
    "epochs": 5, "seed": 0, "val_draws": 1, "train_draws": {"z": 8, "z_agg": 8, "views_per_draw": 9},
    "m_val": [1, 2], "linear_regressors": "plain", "features": "float32", "skipped": {}, "model_sha256": "a",
    "probe_epochs": {"classification": 300, "hue": 50}, "suite": "probes",
    "precision": {"training": "bf16 autocast, TF32", "encoder": "fp32", "probes": "fp32"},
}  # fmt: skip
EVERY = ["top1_z", "top1_agg.2", "rel_rot_deg", "r2_hue_avg", "r2_rel_rot_avg"]


def scores(protocol: dict[str, Any], value: float = 0.5) -> dict[str, Any]:
    numbers = {"top1_z": value, "top1_agg": {"2": value}, "r2_hue_avg": value, "r2_rel_rot_avg": value}
    return {**numbers, "rel_rot_deg": 100 * value, "protocol": protocol}


def other(**changed: Any) -> dict[str, Any]:
    return {**PROTOCOL, **changed}


@pytest.mark.parametrize(
    ("changed", "part", "without_gain"),
    [
        ({"val_draws": 32}, "val_draws", EVERY),
        ({"train_draws": {"z": 1, "z_agg": 8, "views_per_draw": 9}}, "train_draws", EVERY),
        ({"train_draws": {"z": 8, "z_agg": 1, "views_per_draw": 9}}, "train_draws", ["top1_agg.2"]),
        ({"m_val": [1, 2, 3]}, "m_val", ["top1_agg.2"]),
        ({"linear_regressors": "standardised"}, "linear_regressors", ["r2_hue_avg"]),
        ({"probe_epochs": {"classification": 30, "hue": 50}}, "probe_epochs", ["top1_z", "top1_agg.2"]),
        ({"precision": {"encoder": "bf16", "probes": "fp32"}}, "precision", EVERY),
        ({"features": "float16"}, "features", EVERY),
        ({"seed": 1}, "seed", EVERY),
        ({"normalisation": "run"}, "normalisation", EVERY),
        ({"precision": {"training": "fp32", "encoder": "fp32", "probes": "fp32"}}, "", []),
        ({"model_sha256": "b", "trained_epochs": 0, "suite": "all", "skipped": {"r2_path": "x"}}, "", []),
        ({"epochs": 9}, "", []),  # of a run that was extended after its untrained weights were measured
    ],
)
def test_a_gain_is_of_equal_protocols_and_each_number_knows_what_changes_it(changed, part, without_gain):
    results = {"trained": scores(PROTOCOL, 0.75), "untrained": scores(other(**changed), 0.25)}
    missing = [row for _, row, (_, _, gain) in keyed_rows(results) if gain is None]
    assert len(missing) == len(without_gain)
    for key in EVERY:
        assert bool(differences(PROTOCOL, other(**changed), key)) == (key in without_gain)
    assert differently_measured(results) == ([part] if part else [])
    line = next((line for line in format_table(results).splitlines() if line.startswith("no gain")), "")
    assert (f"({part})" in line) if part else not line


DECLARED = ["r2_rel_term0_avg", "rel_term1_deg", "indiv_gain_rmse", "r2_indiv_state_agg.2", "r2_path.both.1"]


@pytest.mark.parametrize("key", ["top1_z", *DECLARED])
def test_heads_of_declared_actions_that_learned_for_less_have_no_gain(key):
    """Their epochs are noted once for all of them (protocol._probe_epochs)."""
    short = other(probe_epochs={"classification": 30})
    assert differences(other(probe_epochs={"classification": 300}), short, key) == ["probe_epochs"]


def test_numbers_of_different_runs_may_differ_in_what_the_runs_are():
    run = other(method="byol", m_tr=1, epochs=9, fidelity="author", trained_epochs=9)
    assert differences(PROTOCOL, run, across_runs=True) == []
    assert set(differences(PROTOCOL, run)) == {"m_tr", "fidelity", "method"}
    assert measured_as(PROTOCOL) == measured_as(other(seed=3, m_tr=1))
    assert measured_as(PROTOCOL) != measured_as(other(val_draws=4))


def test_before_it_was_noted_regressors_were_standardised():
    old = {key: value for key, value in PROTOCOL.items() if key != "linear_regressors"}
    assert differences(old, other(linear_regressors="standardised")) == []
    assert differences(old, PROTOCOL, "r2_position_avg") == ["linear_regressors"]
    assert "standardised" in format_table({"trained": scores(old)})


def test_what_was_measured_otherwise_is_kept_and_the_same_is_replaced(tmp_path: Path):
    one, many = other(), other(val_draws=32)
    merge_results(tmp_path, "trained", scores(one, 0.1))
    merge_results(tmp_path, "untrained", scores(one, 0.2))
    merge_results(tmp_path, "trained", scores(many, 0.3))
    found = read_results(tmp_path)
    assert (found["trained"]["top1_z"], found["untrained"]["top1_z"]) == (0.3, 0.2)
    assert [(e["weights"], e["top1_z"]) for e in found["earlier"]] == [("trained", 0.1)]
    assert "no gain" in format_table(found)
    assert "measured otherwise before: 1" in format_table(found)
    merge_results(tmp_path, "trained", scores({**one, "model_sha256": "z"}, 0.4))
    found = read_results(tmp_path)
    assert found["trained"]["top1_z"] == 0.4
    assert [(e["weights"], e["top1_z"]) for e in found["earlier"]] == [("trained", 0.3)]
    assert same_measurement(one, {**one, "model_sha256": "z", "trained_epochs": 7})
    merge_results(tmp_path, "trained", scores(many, 0.5))
    merge_results(tmp_path, "trained", scores(many, 0.6))
    assert [e["top1_z"] for e in read_results(tmp_path)["earlier"]] == [0.4]


def test_evaluations_that_end_at_the_same_moment_keep_both(tmp_path: Path, monkeypatch):
    both, read = threading.Barrier(2), results.read_results

    def read_and_wait(*args: Any) -> dict[str, Any]:
        found = read(*args)
        with suppress(threading.BrokenBarrierError):  # where one reads after the other has written, as they should
            both.wait(timeout=0.5)
        return found

    monkeypatch.setattr(results, "read_results", read_and_wait)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda weights: merge_results(tmp_path, weights, scores(other())), ["trained", "untrained"]))
    assert read(tmp_path).keys() == {"trained", "untrained"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


def test_another_suite_does_not_take_the_place_of_more_numbers(tmp_path: Path):
    merge_results(tmp_path, "trained", {**scores(other(suite="all")), "retrieval": {"mrr": 0.3}})
    merge_results(tmp_path, "trained", scores(other()))
    assert read_results(tmp_path)["earlier"][0]["retrieval"] == {"mrr": 0.3}


@pytest.mark.parametrize(
    ("objects", "draws", "said"),
    [(16, 1, "one draw of 16 validation objects; --val-draws 16"), (16, 8, "8 draws of 16 validation objects"),
     (200, 1, ""), (10_552, 1, "")],
)  # fmt: skip
def test_few_validation_objects_are_named(objects, draws, said):
    line = few_objects(other(val_samples=objects, val_draws=draws))
    assert said in line
    assert bool(line) == bool(said)
    assert ("--val-draws" in line) == (bool(said) and draws == 1)
    assert line in format_table({"trained": scores(other(val_samples=objects, val_draws=draws))})


@pytest.mark.parametrize(
    ("samples", "epochs", "said"),
    [
        (500, 200, "400 steps (200 epochs of 500 samples)"),
        (500, 1000, ""),
        (41_920, 300, ""),
        (257, 999, "1,998 steps (999 epochs"),
    ],
)  # fmt: skip
def test_heads_that_learned_in_few_steps_are_named(samples, epochs, said):
    protocol = other(train_samples=samples, probe_epochs={"classification": epochs})
    line = few_steps(protocol)
    assert said in line
    assert bool(line) == bool(said)
    assert ("--probe-epochs 1000 makes 2,000" in line) == bool(said)
    assert line in format_table({"trained": scores(protocol)})


def test_epochs_that_are_no_numbers_say_nothing_of_steps():
    """As a stranger's results.json may have them."""
    for epochs in ({"classification": "300"}, {"classification": 300.5}, {"classification": None}):
        assert few_steps(other(train_samples=500, probe_epochs=epochs)) == ""
    assert "400 steps" in few_steps(other(train_samples=500, probe_epochs={"rotation": [], "classification": 200}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("top1_z", "5.0", r"trained.top1_z is 5; it can be 0 to 1"),
        ("top1_z", "-0.1", r"it can be 0 to 1"),
        ("top1_z", "true", r"trained.top1_z is True, not a number"),
        ("top1_z", '"0.9"', r"trained.top1_z is '0.9', not a number"),
        ("top1_z", "null", r"trained.top1_z is None, not a number"),
        ("top1_z", "NaN", r"trained.top1_z is nan"),
        ("top1_agg", '{"5": 1.5}', r"trained.top1_agg.5 is 1.5"),
        ("r2_hue_avg", "1.01", r"r2_hue_avg is 1.01; it can be at most 1"),
        ("r2_hue_avg", "-Infinity", r"r2_hue_avg is -inf"),
        ("rel_rot_deg", "-3", r"rel_rot_deg is -3; it can be 0 to 180"),
        ("rel_rot_deg_median", "181", r"0 to 180"),
        ("halves", '{"invariant": {"top1_z": 2}}', r"halves.invariant.top1_z is 2"),
        ("in_context", '{"rotation": {"r2_hue_pool": {"126": 7}}}', r"r2_hue_pool.126 is 7"),
        ("retrieval", '{"mrr": 1.2}', r"retrieval.mrr is 1.2"),
        ("neighbours", '{"angle_deg": 200}', r"neighbours.angle_deg is 200"),
        ("costs", '{"parameters": -1}', r"costs.parameters is -1; it is at least 0"),
        ("ood", '{"top1_agg": {"3": "x"}}', r"ood.top1_agg.3 is 'x'"),
        ("best", '{"top1_z": 9}', r"best.top1_z is 9"),
        ("intervals", '{"top1_z": [0.9, 0.1]}', r"intervals.top1_z is \[0.9, 0.1\], whose low end is above"),
        ("intervals", '{"top1_z": [0.9]}', r"not \[low, high\]"),
        ("intervals", '{"top1_z": [0.1, 1.9]}', r"intervals.top1_z is 1.9"),
        ("intervals", "3", r"intervals is not an object"),
    ],
)  # fmt: skip
def test_values_that_no_metric_can_have_are_refused(tmp_path: Path, key, value, said):

    text = json.dumps({"trained": {"protocol": PROTOCOL}})[:-2] + f', "{key}": {value}}}}}'
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(FormatError, match=said) as error:
        read_results(tmp_path)
    assert "\n" not in str(error.value)
    assert "results.json" in str(error.value)


def test_values_at_the_ends_and_numbers_of_later_versions_are_read(tmp_path: Path):
    edge = {"top1_z": 1, "top1_agg": {"1": 0.0}, "r2_hue_avg": -52.3, "r2_hue_pool": 1.0, "rel_rot_deg": 180.0}
    more = {"costs": {"device": "cpu", "hours": 0.0, "macs_g": {"1": 2.5}}, "of_later": {"note": "x", "loss": 7.5}}
    written = {"trained": {**edge, **more, "weights": "trained", "seconds": 3.5, "protocol": PROTOCOL}}
    (tmp_path / "results.json").write_text(json.dumps(written))
    assert read_results(tmp_path) == written


@pytest.mark.parametrize("text", ["[" * 100_000, '{"trained": ' * 5000, '{"earlier": {}}', '{"earlier": [3]}', "[]"])
def test_other_json_is_one_line(tmp_path: Path, text):

    (tmp_path / "results.json").write_text(text)
    with pytest.raises(FormatError) as error:
        read_results(tmp_path)
    assert "\n" not in str(error.value)


def test_counts_beside_shares_are_no_shares(tmp_path: Path) -> None:
    counted = {"neighbours": {"class": 0.5, "queries": 192}, "rollout": {"mrr": {"1": 0.5}, "context": 3},
               "retrieval_3_online": {"mrr": 0.5, "queries": 8192}, "ood": {"objects": 16}}  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps({"trained": counted}))
    assert read_results(tmp_path)["trained"] == counted


def test_a_comparison_names_runs_that_were_measured_otherwise(tmp_path: Path):
    for name, protocol in (("a", PROTOCOL), ("b", other(seed=1, method="byol")), ("c", other(val_draws=2))):
        (tmp_path / name).mkdir()
        merge_results(tmp_path / name, "trained", scores(protocol))
    assert different_protocols(tmp_path / name for name in "abc") == {"c": ["val_draws"]}
