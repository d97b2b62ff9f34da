from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from seqjepa.data.actions import PRESETS
from seqjepa.evaluate import inputs
from seqjepa.evaluate.features import Features
from shards.schema import ActionSpec

NAMES = ("rot_x", "rot_y", "rot_z", "floor_hue", "light_theta", "light_phi", "light_hue")
S, N, D = 5, 4, 3


@pytest.fixture
def bank() -> Features:
    rng = np.random.default_rng(0)
    params = rng.uniform(-1.5, 1.5, (S, N, 7)).astype(np.float32)
    # z says which view it is, so that a gathered row can be recognised: [sample, view, 1].
    z = torch.stack([*torch.meshgrid(torch.arange(S), torch.arange(N), indexing="ij"), torch.ones(S, N)], -1).float()
    return Features(z, np.full(S, N), params, NAMES, torch.arange(S) % 2)


@pytest.fixture
def views() -> np.ndarray:
    """Places: sample · N + slot."""
    return np.arange(S)[:, None] * N + np.array([[3, 0, 1], [0, 1, 2], [1, 3, 0], [2, 1, 3], [0, 2, 1]])


ROWS = torch.tensor([4, 0])


def rotations(bank: Features, views: np.ndarray) -> Rotation:
    angles = bank.params.reshape(S * N, -1)[views[ROWS.numpy()], :3]
    return Rotation.from_euler("xyz", angles.astype(np.float64))


def test_label_of_view(bank, views):
    z, labels = inputs.label_of_view(bank, views)(ROWS)
    assert z.tolist() == [[4, 0, 1], [0, 3, 1]]
    assert labels.tolist() == [0, 0]


def test_rotation_between_is_scipys_and_in_order(bank, views):
    z, target = inputs.action_between(PRESETS["rotation"])(bank, views)(ROWS)
    assert z.tolist() == [[4, 0, 1, 4, 2, 1], [0, 3, 1, 0, 0, 1]]
    first, second = rotations(bank, views[:, 0]), rotations(bank, views[:, 1])
    relative = (first.inv() * second).as_matrix()
    np.testing.assert_allclose(Rotation.from_quat(target.numpy()).as_matrix(), relative, atol=1e-6)


def test_rotation_of_view_has_scipys_sign(bank, views):
    _, target = inputs.rotation_of_view(PRESETS["rotation"].terms[0])(bank, views)(ROWS)
    np.testing.assert_allclose(target.numpy(), rotations(bank, views[:, 0]).as_quat(), atol=1e-6)


def test_hue_between_is_a_plain_difference(bank, views):
    _, target = inputs.action_between(ActionSpec(PRESETS["rotation_colour"].terms[1:]))(bank, views)(ROWS)
    expected = bank.params[4, 2, [3, 6]] - bank.params[4, 0, [3, 6]]
    np.testing.assert_allclose(target[0].numpy(), expected, atol=1e-6)


class Recorder:
    """Aggregates to [sum of view numbers, number of views, sum of actions]."""

    def aggregate(self, z: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        assert actions.shape == (z.shape[0], z.shape[1] - 1, 4)
        return torch.stack([z[:, :, 1].sum(1), torch.full((len(z),), z.shape[1]), actions.sum((1, 2))], -1)


def test_prefixes_are_nested_and_carry_the_actions_between_their_views(bank, views):
    out, labels = inputs.label_of_prefixes(Recorder(), "rotation", [1, 3])(bank, views)(ROWS)
    assert out.shape == (2, 2, 3)
    assert out[0, 0].tolist() == [0, 1, 0]
    assert out[0, 1, :2].tolist() == [0 + 2 + 1, 3]
    turns = [rotations(bank, views[:, k]) for k in range(3)]
    actions = sum((a.inv() * b).as_quat(canonical=False) for a, b in pairwise(turns))
    np.testing.assert_allclose(out[:, 1, 2].numpy(), actions.sum(-1), atol=1e-5)
    assert labels.tolist() == [0, 0]
