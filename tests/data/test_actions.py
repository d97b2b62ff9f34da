from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from seqjepa.data.actions import (
    ACTIONS,
    AUGMENTATION_COLUMNS,
    action_size,
    actions_between,
    multiply,
    quaternion,
    relative_quaternion,
)
from shards.errors import ConfigError

NAMES = ("rot_x", "rot_y", "rot_z", "floor_hue", "light_theta", "light_phi", "light_hue")


def angles_in_distribution(n: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (n, 3))


def angles_out_of_distribution(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.uniform(np.pi / 2, np.pi, (n, 3)) * rng.choice([-1, 1], (n, 3))


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
    with pytest.raises(ConfigError, match="unknown action 'jump'; there are: rotation, rotation_colour"):
        action_size("jump")
    assert ACTIONS == {
        **{"rotation": 4, "rotation_colour": 6, "position": 2},
        **{"crop": 4, "jitter": 4, "blur": 1, "augmentation": 9},
    }


def test_augmentations_have_a_function_of_their_own_because_they_are_scaled():
    with pytest.raises(ConfigError, match="'blur' is one of augmented views, and these are not"):
        actions_between(np.zeros((1, 2, 9)), AUGMENTATION_COLUMNS, "blur")
