from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.metrics import r2_score

from seqjepa.evaluate.metrics import geodesic_deg, r2_avg, r2_pool, top1


@pytest.fixture
def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(500, 4, generator=generator) * torch.tensor([1.0, 0.1, 5.0, 2.0]) + 3
    return target, target + torch.randn(500, 4, generator=generator)


def test_r2_avg_is_scikit_learns_uniform_average(noisy):
    target, predicted = noisy
    assert r2_avg(target, predicted) == pytest.approx(r2_score(target, predicted, multioutput="uniform_average"))


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_r2_avg_of_a_target_that_does_not_vary_is_scikit_learns(noisy, error):
    target, predicted = (tensor.clone() for tensor in noisy)
    target[:, 1], predicted[:, 1] = 2.0, 2.0 + error
    assert r2_avg(target, predicted) == pytest.approx(r2_score(target, predicted))


def test_r2_pool_is_scikit_learns_score_of_the_flattened_arrays(noisy):
    target, predicted = noisy
    assert r2_pool(target, predicted) == pytest.approx(r2_score(target.ravel(), predicted.ravel()))


def test_mean_predictor_on_3diebench_quaternions():
    """The mean predictor's: 0 averaged, 0.229 (relative) and 0.461 (individual) by the pooled definition; via scipy."""
    angles = np.random.default_rng(1).uniform(-np.pi / 2, np.pi / 2, (2, 100_000, 3))
    first, second = (Rotation.from_euler("xyz", a) for a in angles)
    relative = (first.inv() * second).as_quat(canonical=False)
    # scipy composes with an arbitrary overall sign kept; the closed form's sign makes w's mean 0.533.
    assert relative[:, 3].mean() == pytest.approx(0.533, abs=0.005)
    for quaternions, pooled in ((relative, 0.229), (first.as_quat(), 0.461)):
        target = torch.from_numpy(quaternions)
        constant = target.mean(dim=0).expand_as(target)
        assert r2_pool(target, constant) == pytest.approx(pooled, abs=0.005)
        assert r2_avg(target, constant) == pytest.approx(0, abs=1e-9)


def test_top1_counts_rows():
    logits = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    assert top1(logits, torch.tensor([1, 0, 0, 1])) == 0.75


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\[n, D\]"):
        r2_avg(torch.zeros(5, 1), torch.zeros(5))


def test_geodesic_error_is_scipys_magnitude_whatever_the_sign_and_length():
    rng = np.random.default_rng(0)
    wanted, found = rng.normal(size=(2, 500, 4))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    oracle = np.degrees((Rotation.from_quat(wanted).inv() * Rotation.from_quat(found)).magnitude())
    ours = geodesic_deg(torch.from_numpy(wanted), torch.from_numpy(found * rng.uniform(0.1, 9, (500, 1))))
    np.testing.assert_allclose(ours.numpy(), oracle, atol=1e-6)
    np.testing.assert_allclose(geodesic_deg(torch.from_numpy(-wanted), torch.from_numpy(found)), oracle, atol=1e-6)


def test_geodesic_error_of_small_and_of_half_turns():
    none = torch.tensor([[0.0, 0, 0, 1]] * 3)
    small = math.radians(1e-4) / 2
    turned = torch.tensor([[math.sin(small), 0, 0, math.cos(small)], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.float64)
    assert geodesic_deg(none, turned).tolist() == pytest.approx([1e-4, 180, 180], rel=1e-6)
