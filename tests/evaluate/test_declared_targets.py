"""What probes read of declared actions, against scipy, scikit-learn and cases by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import mean_squared_error, r2_score

from seqjepa.config import EvalConfig
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import Resampling
from seqjepa.evaluate.probe_training import score_tasks
from seqjepa.evaluate.probes import TOP1, Bench
from seqjepa.evaluate.studies import Capabilities
from seqjepa.evaluate.targets import DeclaredTargets, Target, TargetPart, declared_targets, unread, way_target
from seqjepa.evaluate.tasks import angle_errors, matrices, mean_rotation, metrics_of, rotation_errors, tasks_for
from seqjepa.paper.metrics import columns_text, declared_metric
from shards.schema import ActionSpec, ActionTerm, ParamField

CPU = torch.device("cpu")
FIELDS = (
    *(ParamField(name, "m") for name in ("x", "y", "z")),
    *(ParamField(name, "1") for name in ("qx", "qy", "qz", "qw")),
    ParamField("yaw", "rad"),
    ParamField("light", "1"),
    *(ParamField(f"state.{k}", unit) for k, unit in enumerate(("rad", "m/s", "m/s"))),
    ParamField("camera.fx", "px"),
)
NAMES = tuple(field.name for field in FIELDS)
POSE = ActionTerm("relative_pose", NAMES[:7], form="quaternion_xyzw")
TERMS = ActionSpec(
    (
        ActionTerm("difference", ("x", "y")),
        ActionTerm("angle_difference", ("yaw",)),
        POSE,
        ActionTerm("categorical", ("light",), values=(1, 2, 5)),
    )
)


def features_of(samples: int, seed: int, views: int = 4) -> Features:
    """z holds the parameters, angles by sine and cosine, in units that a head has to find out."""
    rng = np.random.default_rng(seed)
    place, yaw = rng.normal(0, 300, (samples, views, 3)), rng.uniform(-np.pi, np.pi, (samples, views, 1))
    turn = Rotation.random(samples * views, rng=rng).as_quat().reshape(samples, views, 4)
    light = rng.choice([1, 2, 5], (samples, views, 1))
    state = np.concatenate([rng.uniform(-9, 9, (samples, views, 1)), rng.normal(0, 0.01, (samples, views, 2))], -1)
    params = np.concatenate([place, turn, yaw, light, state, np.full((samples, views, 1), 32.0)], -1)
    one_hot = (light == np.array([1, 2, 5])).astype(float)
    shown = [place, np.sin(yaw), np.cos(yaw), one_hot, np.sin(state[..., :1]), np.cos(state[..., :1]), state[..., 1:]]
    z = torch.from_numpy(np.concatenate(shown, -1)).float()
    counts, labels = np.full(samples, views), torch.zeros(samples, dtype=torch.int64)
    return Features(z, counts, params.astype(np.float32), NAMES, labels)


def by_key(targets: list[Target]) -> dict[str, Target]:
    return {target.key: target for target in targets}


def test_every_term_and_every_other_column_is_read() -> None:
    targets = by_key(declared_targets(TERMS, FIELDS, constant=("camera.fx",)))
    numbered = [f"{of}_term{k}" for k in (1, 2, 3, 4) for of in ("rel", "indiv")]
    assert [key for key in targets if not key.endswith("_mlp")] == [*numbered, "indiv_state"]
    assert [key for key in targets if key.endswith("_mlp")] == ["indiv_term2_mlp", "indiv_state_mlp"]  # angles alone
    assert targets["indiv_state"].names == ("state.0", "state.1", "state.2")
    deep = {key for key, target in targets.items() if target.deep and not target.mlp}
    assert deep == {"rel_term2", "rel_term3", "indiv_term3"}  # sin(b − a) is no linear function of sines and cosines
    assert unread(TERMS, FIELDS, ("camera.fx", "state.2")) == {
        "r2_indiv_state, state.2": "constant: the same in all views",
        "r2_indiv_camera_fx": "constant: the same in all views",
    }
    assert unread(ActionSpec((ActionTerm("difference", ("gone",)),)), (), ()) == {
        "r2_rel_term1": "the shards have no gone"
    }


def test_a_column_that_is_called_as_a_term_has_another_key() -> None:
    fields = (ParamField("term1", "1"), ParamField("a b", "1"), ParamField("a.b", "1"))
    keys = [target.key for target in declared_targets(ActionSpec(), fields)]
    assert keys == ["indiv_term1_2", "indiv_a_b", "indiv_a_b_2"]


@pytest.mark.usefixtures("wide_mlps")
def test_an_mlp_reads_angles_that_count_from_a_place_of_each_object() -> None:
    """z shows the angle from each object's own zero, and the object: a product of the two, which no line has."""
    fields, action = (ParamField("angle", "rad"),), ActionSpec((ActionTerm("angle_difference", ("angle",)),))

    def shown(seed: int) -> Features:
        rng = np.random.default_rng(seed)
        objects, angle = np.arange(100) % 4, rng.uniform(-np.pi, np.pi, (100, 4))
        seen = angle + (objects * np.pi / 2)[:, None]
        which = np.broadcast_to(np.eye(4)[objects][:, None], (100, 4, 4))
        z = np.concatenate([np.stack([np.sin(seen), np.cos(seen)], -1), which], -1)
        labels, params = torch.from_numpy(objects), angle[..., None].astype(np.float32)
        return Features(torch.from_numpy(z).float(), np.full(100, 4), params, ("angle",), labels)

    train, val = shown(0), shown(1)
    declared = DeclaredTargets.of(action, action, fields, train)
    can = Capabilities(torch.nn.Module(), action, 1, ("angle",), 4, labelled=False, declared=declared)  # type: ignore[arg-type]
    tasks, _ = tasks_for(can, EvalConfig(m_val=(1,), probe_epochs=40))
    found = score_tasks([task for task in tasks if "indiv" in task.name], Bench(train, val, CPU, 0), progress=False)
    assert found.last["r2_indiv_term1_avg"] < 0.1
    assert found.last["r2_indiv_term1_mlp_avg"] > 0.95
    assert found.last["indiv_term1_mlp_deg"] < 5
    assert declared.as_json()["indiv_term1_mlp"] == {
        "columns": ["angle"], "units": ["rad"], "op": "angle_difference", "head": "mlp",
            "r2_of": "whole angles and rotations",
    }  # fmt: skip


def test_values_between_views_by_hand_and_by_scipy() -> None:
    features, targets = features_of(5, 0), by_key(declared_targets(TERMS, FIELDS))
    places = features.draw(0, 0, Purpose.PROBE, 2)
    first, second = (features.params_of(places)[:, k].astype(float) for k in (0, 1))
    np.testing.assert_allclose(targets["rel_term1"].raw(features, places), (second - first)[:, :2], rtol=1e-6)
    turned = second[:, 7] - first[:, 7]
    encoded = targets["rel_term2"].encoded(features, places).numpy()
    np.testing.assert_allclose(encoded, np.stack([np.sin(turned), np.cos(turned)], 1), atol=1e-5)
    a, b = (Rotation.from_quat(params[:, 3:7]) for params in (first, second))
    pose = targets["rel_term3"].raw(features, places)
    np.testing.assert_allclose(Rotation.from_quat(pose[:, :4]).as_matrix(), (a.inv() * b).as_matrix(), atol=1e-5)
    np.testing.assert_allclose(pose[:, 4:], a.inv().apply((second - first)[:, :3]), rtol=1e-4, atol=1e-2)
    assert targets["rel_term4"].encoded(features, places).tolist() == [[1, 2, 5].index(x) for x in second[:, 8]]


def test_values_of_one_view_by_hand() -> None:
    features, targets = features_of(5, 0), by_key(declared_targets(TERMS, FIELDS))
    places = features.draw(0, 0, Purpose.PROBE, 1)
    params = features.params_of(places)[:, 0]
    np.testing.assert_array_equal(targets["indiv_term3"].raw(features, places)[:, 4:], params[:, :3])
    state = targets["indiv_state"].encoded(features, places).numpy()  # numbers first, then angles
    np.testing.assert_allclose(state[:, :2], params[:, 10:12], rtol=1e-6)
    np.testing.assert_allclose(state[:, 2:], np.stack([np.sin(params[:, 9]), np.cos(params[:, 9])], 1), atol=1e-6)
    assert targets["indiv_term4"].encoded(features, places).tolist() == [[1, 2, 5].index(x) for x in params[:, 8]]


def test_z_scores_of_a_term_are_read_in_the_unit_of_their_columns() -> None:
    scored = ActionTerm("difference", ("x", "y"), normalise="zscore", mean=(1.0, 2.0), std=(100.0, 50.0))
    features = features_of(5, 0)
    places = features.draw(0, 0, Purpose.PROBE, 2)
    raw, plain = (declared_targets(ActionSpec((t,)), FIELDS)[0].raw(features, places) for t in (scored, TERMS.terms[0]))
    np.testing.assert_array_equal(raw, plain)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_numbers_of_predictions_are_those_of_scikit_learn_in_the_unit_of_the_column(scale: float) -> None:
    rng = np.random.default_rng(0)
    true, said = rng.normal(0, scale, (50, 2)), rng.normal(0, scale, (50, 2))
    mean, std = (0.3 * scale, -scale), (scale, 2 * scale)
    (target,) = declared_targets(ActionSpec(), (ParamField("x.0", "m"), ParamField("x.1", "m")))
    target = Target(**{**vars(target), "mean": mean, "std": std})
    y, p = (torch.from_numpy((values - mean) / std) for values in (true, said))
    found = {metric.key: metric.value(p, y) for metric in metrics_of(target)}
    assert found["{name}_avg"] == pytest.approx(r2_score(true, said))
    assert found["{target}_rmse"] == pytest.approx(mean_squared_error(true, said) ** 0.5)


def test_r2_of_an_angle_and_of_a_rotation_is_of_all_its_numbers_together() -> None:
    """Of small ones the cosine hardly varies: of it alone every head has a large negative R²."""
    rng = np.random.default_rng(0)
    true, noise = rng.normal(0, 0.1, (200, 2)), rng.normal(0, 0.03, (200, 7))
    turns = Rotation.from_rotvec(rng.normal(0, 0.1, (200, 3))).as_quat()
    place = rng.normal(0, 1, (200, 1))
    encoded = np.concatenate([place, np.sin(true), np.cos(true), turns], 1)
    parts = (TargetPart("numbers", (0,), ("m",)), TargetPart("angles", (1, 2)), TargetPart("quaternion", (3, 4, 5, 6)))
    target = Target("rel_term1", (), "", parts, std=(1.0,) * 7)
    assert target.whole == (0, 1, 2, 1, 2, 3, 3, 3, 3)
    said = encoded + np.concatenate([noise, noise[:, :2]], 1)
    y, p = torch.from_numpy(encoded), torch.from_numpy(said)
    quantities = [[0], [1, 3], [2, 4], [5, 6, 7, 8]]
    expected = [r2_score(encoded[:, own], said[:, own], multioutput="variance_weighted") for own in quantities]
    r2 = metrics_of(target)[0]
    assert r2.key == "{name}_avg"
    assert r2.value(p, y) == pytest.approx(np.mean(expected))
    assert r2.value(p, y) > 0.7 > 0 > r2_score(encoded, said)
    assert r2.averaged is not None
    rows, number = r2.averaged(p, y)
    assert number(rows.mean(0, keepdim=True)).item() == pytest.approx(np.mean(expected))


def test_an_interval_of_a_root_mean_square_error_holds_it() -> None:
    (target,) = declared_targets(ActionSpec(), (ParamField("x", "m"),))
    target = Target(**{**vars(target), "mean": (0.0,), "std": (2.0,)})
    rng = torch.Generator().manual_seed(0)
    y, p = torch.randn(300, 1, generator=rng), torch.randn(300, 1, generator=rng)
    rmse = next(metric for metric in metrics_of(target) if metric.key == "{target}_rmse")
    assert rmse.averaged is not None
    low, high = Resampling.of(300, 0, CPU).interval(rmse.averaged(p, y))
    assert low < rmse.value(p, y) < high < 1.2 * low


def test_errors_of_angles_go_the_short_way_round() -> None:
    true, said = np.radians([[170.0, 10.0], [0.0, 90.0]]), np.radians([[-170.0, -10.0], [5.0, 95.0]])
    p, y = (torch.from_numpy(np.concatenate([3 * np.sin(a), 3 * np.cos(a)], 1)) for a in (said, true))
    np.testing.assert_allclose(angle_errors(p, y, slice(0, 4)), [20, 5], rtol=1e-9)


def test_errors_of_rotations_are_scipys_in_both_forms() -> None:
    a, b = Rotation.random(40, rng=np.random.default_rng(0)), Rotation.random(40, rng=np.random.default_rng(1))
    expected = np.degrees((a.inv() * b).magnitude())
    for form in (Rotation.as_quat, lambda r: r.as_matrix()[..., :2].swapaxes(1, 2).reshape(-1, 6)):
        p, y = (torch.from_numpy(2.5 * form(a)), torch.from_numpy(form(b)))  # of any length
        np.testing.assert_allclose(rotation_errors(p, y, slice(0, p.shape[1])), expected, atol=1e-5)


def test_the_best_constant_rotation_is_scipys_mean() -> None:
    turns = Rotation.from_rotvec(np.random.default_rng(0).normal(0, 0.4, (60, 3))) * Rotation.from_rotvec([1, 2, 0.5])
    signs = np.random.default_rng(1).choice([-1, 1], (60, 1))  # q and −q are one rotation
    mean = turns.mean()
    quaternion = mean_rotation(torch.from_numpy(signs * turns.as_quat()), slice(0, 4))
    six = mean_rotation(torch.from_numpy(turns.as_matrix()[..., :2].swapaxes(1, 2).reshape(-1, 6)), slice(0, 6))
    assert (Rotation.from_quat(quaternion.numpy()).inv() * mean).magnitude() < 1e-6
    np.testing.assert_allclose(matrices(six[None])[0], mean.as_matrix(), atol=1e-6)
    half = Rotation.from_rotvec(np.pi * np.repeat(np.eye(3), [8, 7, 5], axis=0))  # whose matrices' mean is a reflection
    six = mean_rotation(torch.from_numpy(half.as_matrix()[..., :2].swapaxes(1, 2).reshape(-1, 6)), slice(0, 6))
    np.testing.assert_allclose(matrices(six[None])[0], np.diag([1, -1, -1]), atol=1e-6)


def test_the_best_constant_class_is_the_most_frequent_of_training() -> None:
    known, target = torch.tensor([2, 0, 2, 1, 2, 0]), torch.tensor([0, 2, 2, 2])
    assert TOP1.value(TOP1.constant(known).expand(4, -1), target) == 0.75


def test_what_z_holds_is_read_whole_and_better_than_blind() -> None:
    train, val = features_of(200, 0), features_of(150, 1)
    declared = DeclaredTargets.of(TERMS, TERMS, FIELDS, train, constant=("camera.fx",))
    can = Capabilities(torch.nn.Module(), TERMS, 1, NAMES, 4, labelled=False, declared=declared)  # type: ignore[arg-type]
    tasks, skipped = tasks_for(can, EvalConfig(m_val=(1,), probe_epochs=1000))
    wanted = ("r2_rel_term1", "r2_indiv_term2", "r2_indiv_state", "top1_indiv_term4")
    bench = Bench(train, val, CPU, 0, blind=True)
    found = score_tasks([task for task in tasks if task.name in wanted], bench, progress=False)
    for name in wanted[:-1]:
        assert found.last[f"{name}_avg"] > 0.95
        assert abs(found.blind[f"{name}_avg"]) < 0.05
    assert found.last["rel_term1_rmse"] < 0.2 * found.blind["rel_term1_rmse"]
    assert found.blind["rel_term1_rmse"] == pytest.approx(300 * 2**0.5, rel=0.1)
    assert found.last["indiv_term2_deg"] < 12 < 80 < found.blind["indiv_term2_deg"]
    assert found.last["top1_indiv_term4"] > 0.9 > 0.45 > found.blind["top1_indiv_term4"]
    assert found.last["indiv_state_rmse"] < 0.005 < found.blind["indiv_state_rmse"] < 0.02
    assert not found.confusions
    assert "indiv_state_rmse" not in skipped


def test_samples_of_one_view_have_nothing_between_them() -> None:
    one = features_of(20, 0)
    one = replace(one, z=one.z[:, :1], params=one.params[:, :1], n_views=np.ones(20, np.int64))
    declared = DeclaredTargets.of(TERMS, TERMS, FIELDS, one, most_views=1)
    assert declared.targets
    assert not any(target.between for target in declared.targets)
    assert declared.way is None
    assert declared.unread["r2_rel_term1"] == "needs 2 views, a sample has 1"


def test_columns_of_different_units_have_no_common_error() -> None:
    train, fields = features_of(20, 0), tuple(ParamField(name, "s" if name == "x" else "m") for name in NAMES)
    declared = DeclaredTargets.of(ActionSpec((TERMS.terms[0],)), ActionSpec(), fields, train)
    can = Capabilities(torch.nn.Module(), TERMS, 1, NAMES, 4, labelled=False, declared=declared)  # type: ignore[arg-type]
    tasks, skipped = tasks_for(can, EvalConfig(m_val=(1,), probe_epochs=1))
    assert skipped["rel_term1_rmse"] == "its columns have different units: s, m"
    task = next(task for task in tasks if task.name == "r2_rel_term1")
    assert not any("rmse" in metric.key for metric in task.metrics)


def test_ways_hold_all_terms_that_add_up() -> None:
    commands = ActionTerm("command", ("state.1",), over="sum")
    way = way_target(ActionSpec((*TERMS.terms, commands)), FIELDS)
    assert way is not None
    assert [term.op for term in way.terms] == ["difference", "angle_difference", "relative_pose", "command"]
    assert (way.size, [part.kind for part in way.parts]) == (2 + 2 + 7 + 1, [
        "numbers", "angles", "quaternion", "numbers", "numbers",
    ])  # fmt: skip
    assert way_target(ActionSpec((TERMS.terms[3],)), FIELDS) is None


def test_labels_print_columns_and_units() -> None:
    targets = {
        "rel_term12": {"columns": ["x", "y"], "units": ["m", "m"], "op": "difference", "unit": "m"},
        "indiv_state": {"columns": [f"state.{k}" for k in range(9)], "units": ["1"] * 9, "op": "column", "unit": "1"},
        "indiv_mixed": {"columns": ["a", "b"], "units": ["rad", "1"], "op": "column"},
        "indiv_mixed_mlp": {"columns": ["a", "b"], "units": ["rad", "1"], "op": "column", "head": "mlp"},
    }
    labels = {
        "r2_rel_term12_avg": "R² x, y [m] between views, avg",
        "rel_term12_rmse": "x, y [m] between views, root mean square error, m",
        "r2_indiv_state_agg.5": "R² state (9) of the last view, z_AGG, M_val = 5",
        "indiv_mixed_deg": "a, b of a view, mean error in degrees",
        "r2_indiv_mixed_mlp_avg": "R² a [rad], b of a view, by an MLP, avg",
        "top1_rel_term3": "top-1 term 3 between views",
        "halves.invariant.r2_rel_term12_avg": "R² x, y [m] between views, avg, invariant half",
    }
    for key, label in labels.items():
        metric = declared_metric(key, targets)
        assert metric is not None
        assert metric.label == label
    for key in (
        "r2_rel_term1",
        "rel_term1_avg",
        "top1_indiv_x_deg",
        "r2_rel_term1_agg.3",
        "r2_hue_avg",
        "costs.macs_g",
    ):
        assert declared_metric(key, targets) is None
    assert columns_text({"columns": [1], "units": "m"}) == columns_text(None) == ""
