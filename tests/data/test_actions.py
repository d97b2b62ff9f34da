from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seqjepa.data.actions import (
    AUGMENTATION_COLUMNS,
    PRESETS,
    absolute_rotations,
    actions_between,
    canonical,
    implied_action,
    multiply,
    path_of,
    preset,
    probe_targets,
    quaternion,
    relative_quaternion,
    with_constants,
)
from shards.errors import ConfigError
from shards.schema import ActionSpec, ActionTerm, RotationForm

NAMES = ("rot_x", "rot_y", "rot_z", "floor_hue", "light_theta", "light_phi", "light_hue")
RESULTS = ("quaternion", "canonical")
STORED = json.loads((Path(__file__).parent / "preset_actions.json").read_text())


def angles_in_distribution(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (n, 3))


def angles_out_of_distribution(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(np.pi / 2, np.pi, (n, 3)) * rng.choice([-1, 1], (n, 3))


def between(views: np.ndarray, term: ActionTerm, stride: int = 1) -> np.ndarray:
    """Actions of one term, whose columns are the last axis of `views` [B, T, n]."""
    return actions_between(views, term.columns, ActionSpec((term,)), stride)


def columns(n: int) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in range(n))


@pytest.mark.parametrize("kind", ["rotation", "rotation_colour", "position"])
def test_presets_give_what_the_kinds_gave_before_they_were_declared(kind):
    found = actions_between(np.array(STORED["views"], np.float32), STORED["names"], kind)
    assert found.tolist() == STORED["actions"][kind]


@pytest.mark.parametrize("kind", ["crop", "jitter", "blur", "augmentation"])
def test_presets_of_augmentations_give_what_they_gave(kind):
    params, (term,) = np.array(STORED["augmentations"], np.float32), PRESETS[kind].terms
    of = [AUGMENTATION_COLUMNS.index(name) for name in term.columns]
    constants = {name: tuple(STORED[name][k] for k in of) for name in ("mean", "std")}
    scaled = actions_between(params, AUGMENTATION_COLUMNS, ActionSpec((replace(term, **constants),)))
    assert scaled.tolist() == STORED["actions"][kind]
    released = actions_between(params, AUGMENTATION_COLUMNS, ActionSpec((replace(term, normalise="norm"),)))
    # torch's square root, and so the last bit, depends on the processor
    assert np.abs(released - np.array(STORED["released"][kind])).max() < 1e-6


@pytest.mark.parametrize(
    "angles", [angles_in_distribution(100_000), angles_out_of_distribution(100_000)], ids=["id", "ood"]
)
def test_quaternions_equal_scipy_including_sign(angles):
    expected = Rotation.from_euler("xyz", angles).as_quat()
    assert np.abs(quaternion(angles) - expected).max() < 1e-12
    single = quaternion(angles.astype(np.float32))
    assert single.dtype == np.float32
    assert np.abs(single - Rotation.from_euler("xyz", angles.astype(np.float32)).as_quat()).max() < 1e-6


@pytest.mark.parametrize(
    "angles", [angles_in_distribution(100_000), angles_out_of_distribution(100_000)], ids=["id", "ood"]
)
def test_relative_quaternions_equal_scipy_including_sign(angles):
    first, second = angles[0::2], angles[1::2]
    expected = (Rotation.from_euler("xyz", first).inv() * Rotation.from_euler("xyz", second)).as_quat()
    assert np.abs(relative_quaternion(quaternion(first), quaternion(second)) - expected).max() < 1e-12
    params = np.zeros((len(first), 2, 7), np.float32)
    params[:, 0, :3], params[:, 1, :3] = first, second
    actions = actions_between(params, NAMES, "rotation")
    assert actions.shape == (len(first), 1, 4)
    assert actions.dtype == np.float32
    assert np.abs(actions[:, 0] - expected).max() < 1e-6


def turned(n: int = 500) -> tuple[Rotation, Rotation]:
    rng = np.random.default_rng(2)
    return Rotation.random(n, rng), Rotation.random(n, rng)


def written(rotation: Rotation, form: str) -> np.ndarray:
    """As the columns of a form: [n, 3, 4 or 9]."""
    if form == "euler_xyz":
        return rotation.as_euler("xyz")
    return rotation.as_quat() if form == "quaternion_xyzw" else rotation.as_matrix().reshape(-1, 9)


@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_xyzw", "matrix"])
def test_rotations_of_every_form_equal_scipy(form):
    first, second = turned()
    views = np.stack([written(first, form), written(second, form)], axis=1)
    relative, names = first.inv() * second, columns(views.shape[-1])
    q = between(views, ActionTerm("relative_rotation", names, form))[:, 0]
    assert np.abs(Rotation.from_quat(q).as_matrix() - relative.as_matrix()).max() < 1e-6
    six = between(views, ActionTerm("relative_rotation", names, form, result="6d"))[:, 0]
    assert np.abs(six.reshape(-1, 2, 3).swapaxes(1, 2) - relative.as_matrix()[..., :2]).max() < 1e-6


@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_xyzw", "matrix"])
def test_canonical_quaternions_equal_scipy(form):
    """Full circles, so that quaternions of both signs fall out."""
    rng = np.random.default_rng(0)
    first, second = (Rotation.from_euler("xyz", rng.uniform(-np.pi, np.pi, (500, 3))) for _ in range(2))
    views = np.stack([written(first, form), written(second, form)], axis=1)
    terms = [ActionTerm("relative_rotation", columns(views.shape[-1]), form, result) for result in RESULTS]
    released, signed = (between(views, term)[:, 0] for term in terms)
    expected = (first.inv() * second).as_quat(canonical=True)
    assert np.abs(signed - expected).max() < 1e-6
    assert (signed[:, 3] >= 0).all()
    flipped = released[:, 3] < 0
    assert 0 < flipped.mean() < 1
    assert np.array_equal(signed, np.where(flipped[:, None], -released, released))


def test_half_turns_have_the_sign_that_scipy_gives_them():
    q = np.array([[-1, 0, 0, 0], [0, -0.6, 0.8, 0], [0, 0, -1, 0], [-0.6, 0.8, 0, 0], [0.6, 0, -0.8, 0], [0, 0, 0, -1]])
    assert np.array_equal(canonical(q), Rotation.from_quat(q).as_quat(canonical=True))


@pytest.mark.parametrize("name", ["rotation_canonical", "rotation_6d"])
def test_other_forms_of_the_papers_rotation_change_what_a_method_is_told_and_not_what_is_asked(name):
    views = np.random.default_rng(0).uniform(-np.pi, np.pi, (50, 3, 3))
    found, paper = (actions_between(views, NAMES[:3], kind) for kind in (name, "rotation"))
    turns = Rotation.from_quat(paper.reshape(-1, 4))
    six = turns.as_matrix()[..., :2].swapaxes(1, 2).reshape(-1, 6)
    expected = turns.as_quat(canonical=True) if name == "rotation_canonical" else six
    assert np.abs(found.reshape(len(expected), -1) - expected).max() < 1e-6
    assert path_of(PRESETS[name]) == PRESETS["rotation"]
    assert probe_targets(PRESETS[name], NAMES) == probe_targets(PRESETS["rotation"], NAMES)
    assert ActionSpec.from_json(PRESETS[name].to_json()) == PRESETS[name]


def test_the_sign_of_a_quaternion_is_that_of_its_inputs():
    first, second = turned()
    q = np.stack([first.as_quat(), -3 * second.as_quat()], axis=1)
    found = between(q, ActionTerm("relative_rotation", columns(4), "quaternion_xyzw"))[:, 0]
    assert np.abs(found + (first.inv() * second).as_quat()).max() < 1e-6


@pytest.mark.parametrize("form", ["euler_xyz", "quaternion_xyzw", "matrix", "4x4"])
@pytest.mark.parametrize("result", ["quaternion", "canonical", "6d"])
def test_relative_poses_are_those_of_multiplied_matrices(form, result):
    (first, second), rng = turned(), np.random.default_rng(3)
    translations = rng.normal(size=(2, 500, 3))
    poses = np.tile(np.eye(4), (2, 500, 1, 1))
    poses[0, :, :3, :3], poses[1, :, :3, :3] = first.as_matrix(), second.as_matrix()
    poses[..., :3, 3] = translations
    expected = np.linalg.inv(poses[0]) @ poses[1]
    if form in ("matrix", "4x4"):
        views, form = poses[..., : 3 if form == "matrix" else 4, :].reshape(2, 500, -1), "matrix"
    else:
        views = np.concatenate([translations, [written(first, form), written(second, form)]], axis=-1)
    term = ActionTerm("relative_pose", columns(views.shape[-1]), form, result)
    found = between(views.swapaxes(0, 1), term)[:, 0]
    assert found.shape[-1] == term.size
    if result == "6d":
        assert np.abs(found[:, :6].reshape(-1, 2, 3).swapaxes(1, 2) - expected[:, :3, :2]).max() < 1e-6
    else:
        assert np.abs(Rotation.from_quat(found[:, :4]).as_matrix() - expected[:, :3, :3]).max() < 1e-6
    assert np.abs(found[:, -3:] - expected[:, :3, 3]).max() < 1e-6
    turns = absolute_rotations(views[1], term)
    assert np.abs(Rotation.from_quat(turns).as_matrix() - second.as_matrix()).max() < 1e-9


def test_angles_are_wrapped():
    degrees = np.array([[170.0], [-170.0], [11.0], [-170.0], [350.0], [-10.0]])
    found = np.degrees(between(np.radians(degrees)[None], ActionTerm("angle_difference", ("yaw",))))
    assert np.allclose(found[0, :, 0], [20, -179, 179, 160, 0], atol=1e-4)
    half = between(np.array([0.0, np.pi])[None, :, None], ActionTerm("angle_difference", ("yaw",)))
    assert half.item() == np.float32(-np.pi)  # ±π is one angle: the lower end belongs to the range


@pytest.mark.parametrize(("over", "expected"), [("last", [2, 4]), ("sum", [3, 7]), ("mean", [1.5, 3.5])])
def test_commands_are_those_on_the_way_to_the_next_view(over, expected):
    recorded = np.array([1.0, 2, 3, 4, 99])[None, :, None]  # beside five steps; views are steps 0, 2 and 4
    term = ActionTerm("command", ("a",), over=over)
    assert between(recorded, term, stride=2)[0, :, 0].tolist() == expected
    assert between(recorded, term)[0, :, 0].tolist() == [1, 2, 3, 4]


def test_other_terms_look_at_the_views_alone():
    steps = np.array([0.0, 5, 1, 7, 3])[None, :, None]
    assert between(steps, ActionTerm("difference", ("x",)), stride=2)[0, :, 0].tolist() == [1, 2]


def test_categories_are_one_hot_of_the_second_view():
    lights = np.array([2.0, 0.5, 7, 2], np.float32)[None, :, None]
    found = between(lights, ActionTerm("categorical", ("light",), values=(0.5, 2, 7)))
    assert found[0].tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(ConfigError, match=r"light is 7 in a view; the action is declared for \(0.5, 2\)"):
        between(lights, ActionTerm("categorical", ("light",), values=(0.5, 2)))


def test_no_terms_are_an_action_of_size_zero():
    found = actions_between(np.zeros((3, 5, 0)), (), "none")
    assert (found.shape, found.dtype) == ((3, 4, 0), np.float32)
    assert actions_between(np.zeros((3, 5, 2)), ("x", "y"), "none", stride=2).shape == (3, 2, 0)


def test_terms_stand_one_after_the_other():
    spec = ActionSpec((ActionTerm("difference", ("b",)), ActionTerm("angle_difference", ("a",))))
    params = np.array([[[3.0, 1.0], [-3.0, 5.0]]])
    assert np.allclose(actions_between(params, ("a", "b"), spec)[0, 0], [4, 2 * np.pi - 6], atol=1e-6)


def test_zscores_are_measured_where_they_have_no_constants():
    params = np.random.default_rng(4).normal(5, 3, (1000, 2)).astype(np.float32)
    params[:, 1] = 2
    spec = ActionSpec((ActionTerm("command", ("a", "b"), normalise="zscore"),))
    with pytest.raises(ConfigError, match="actions of a, b need the constants of their z-scores"):
        actions_between(params[None], ("a", "b"), spec)
    measured = with_constants(spec, params, ("a", "b"))
    found = actions_between(params[None], ("a", "b"), measured)[0]
    expected = (params[:-1, 0] - params[:, 0].mean()) / params[:, 0].std()
    assert np.abs(found[:, 0] - expected).max() < 1e-5
    assert (found[:, 1] == 0).all()
    assert with_constants(measured, params + 1, ("a", "b")) == measured


def test_what_is_no_rotation_is_refused():
    forms: list[tuple[RotationForm, int]] = [("quaternion_xyzw", 4), ("matrix", 9)]
    for form, n in forms:
        with pytest.raises(ConfigError, match=r"c0, c1.* are no rotation: a (quaternion of zeros|matrix that is not)"):
            between(np.zeros((1, 2, n)), ActionTerm("relative_rotation", columns(n), form))
    mirrored = np.tile(np.diag([1.0, 1, -1]).ravel(), (1, 2, 1))
    with pytest.raises(ConfigError, match="a matrix that is not orthogonal"):
        between(mirrored, ActionTerm("relative_rotation", columns(9), "matrix"))


def test_moments_are_those_of_the_specification():
    # In distribution, w < 0 in 4.4 % of the relative quaternions, never in the absolute ones.
    angles = angles_in_distribution(100_000)
    q = quaternion(angles)
    relative = relative_quaternion(q[0::2], q[1::2])
    assert q[:, 3].min() > 0
    assert abs((relative[:, 3] < 0).mean() - 0.044) < 0.004
    assert np.abs(relative.mean(0) - [0, 0, 0, 0.533]).max() < 0.01
    assert np.abs(relative.var(0) - [0.209, 0.209, 0.208, 0.090]).max() < 0.005


def test_actions_compose_by_right_multiplication():
    params = np.zeros((1000, 5, 7))
    params[..., :3] = angles_in_distribution(5000).reshape(1000, 5, 3)
    actions = actions_between(params, NAMES, "rotation")
    path = actions[:, 0]
    for step in range(1, 4):
        path = multiply(path, actions[:, step])
    q = quaternion(params[..., :3])
    assert np.abs(path - relative_quaternion(q[:, 0], q[:, 4])).max() < 1e-6
    rotated = Rotation.from_quat(q[:, 0]) * Rotation.from_quat(path)
    assert np.abs(rotated.as_matrix() - Rotation.from_quat(q[:, 4]).as_matrix()).max() < 1e-5


def test_hue_differences_are_raw_and_columns_go_by_name():
    shuffled = ("light_hue", "rot_z", "floor_hue", "rot_y", "other", "rot_x")
    params = np.zeros((1, 2, 6))
    params[0, 0] = [0.9, 0.1, 0.95, 0.2, 7.0, 0.3]
    params[0, 1] = [0.1, 0.4, 0.05, 0.5, 9.0, 0.6]
    action = actions_between(params, shuffled, "rotation_colour")[0, 0]
    first, second = Rotation.from_euler("xyz", [0.3, 0.2, 0.1]), Rotation.from_euler("xyz", [0.6, 0.5, 0.4])
    assert np.allclose(action[:4], (first.inv() * second).as_quat(), atol=1e-6)
    assert np.allclose(action[4:], [0.05 - 0.95, 0.1 - 0.9], atol=1e-6)


def test_bad_requests_name_what_is_missing():
    with pytest.raises(ConfigError, match="no parameter floor_hue, light_hue; they have: rot_x, rot_y, rot_z"):
        actions_between(np.zeros((1, 2, 3)), NAMES[:3], "rotation_colour")
    with pytest.raises(ConfigError, match="there is no action 'jump'; there are: rotation, rotation_colour"):
        preset("jump")
    assert {name: spec.size for name, spec in PRESETS.items()} == {
        **{"rotation": 4, "rotation_colour": 6, "position": 2, "rotation_canonical": 4, "rotation_6d": 6},
        **{"crop": 4, "jitter": 4, "blur": 1, "augmentation": 9, "none": 0},
    }


def test_augmentations_are_not_subtracted_before_they_are_scaled():
    with pytest.raises(ConfigError, match="actions of blur_sigma need the constants of their z-scores"):
        actions_between(np.zeros((1, 2, 9)), AUGMENTATION_COLUMNS, "blur")


def test_sets_that_declare_nothing_imply_the_preset_of_their_columns():
    assert implied_action(NAMES) == "rotation"
    assert implied_action(("y", "x")) == "position"
    assert implied_action(AUGMENTATION_COLUMNS) == "augmentation"
    assert implied_action(("tx", "ty", "yaw")) == implied_action(()) == "none"


def test_what_adds_up_along_a_path():
    assert path_of(PRESETS["position"]) == PRESETS["position"]
    assert path_of(PRESETS["rotation_colour"]) == path_of(PRESETS["rotation"]) == PRESETS["rotation"]
    assert all(not path_of(PRESETS[kind]).terms for kind in ("crop", "augmentation", "none"))
    steps = (ActionTerm("difference", ("tx",)), ActionTerm("angle_difference", ("yaw",)))
    switch = ActionTerm("categorical", ("light",), values=(0, 1))
    assert path_of(ActionSpec((*steps, switch))).terms == steps
    pushed, held = (ActionTerm("command", ("push",), over=over) for over in ("sum", "last"))
    turned = ActionTerm("relative_rotation", ("rx", "ry", "rz"))
    assert path_of(ActionSpec((*steps, pushed, held, turned))).terms == (*steps, pushed, turned)


def keys(action: str, names: tuple[str, ...]) -> list[str]:
    return [target.key for target in probe_targets(PRESETS[action], names)]


def test_what_probes_read():
    assert keys("rotation", NAMES) == keys("none", NAMES) == ["rel_rot", "indiv_rot", "hue"]
    assert keys("position", ("x", "y")) == keys("none", ("x", "y")) == ["position"]
    assert keys("crop", AUGMENTATION_COLUMNS) == ["crop", "jitter", "blur"]
