"""Each loss beside numbers worked out by hand and beside slow references in NumPy that loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cosine
from torch import Tensor

from seqjepa.losses import (
    VicWeights,
    cosine_loss,
    covariance_penalty,
    nt_xent,
    sie_loss,
    trajectory_loss,
    variance_hinge,
    vicreg_loss,
)

Array = NDArray[np.float64]


def draw(*shape: int, seed: int = 0) -> Array:
    """Columns of unlike spread, some of them wider than 1 and some narrower."""
    return np.random.default_rng(seed).normal(size=shape) * np.linspace(0.2, 2.0, shape[-1])


def slow_nt_xent(a: Array, b: Array, temperature: float) -> float:
    rows = [*a, *b]
    losses = []
    for k, row in enumerate(rows):
        scores = {j: np.exp((1 - cosine(row, other)) / temperature) for j, other in enumerate(rows) if j != k}
        losses.append(-np.log(scores[(k + len(a)) % len(rows)] / sum(scores.values())))
    return float(np.mean(losses))


def slow_variance(y: Array) -> float:
    total = 0.0
    for column in y.T:
        deviation = np.sqrt(((column - column.mean()) ** 2).sum() / (len(column) - 1) + 1e-4)
        total += max(0.0, 1 - deviation)
    return total / y.shape[1] / 2


def slow_covariance(y: Array) -> float:
    table = np.cov(y, rowvar=False)
    d = len(table)
    return sum(table[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d


def slow_trajectory(left: Array, centre: Array, right: Array, normalised: bool) -> float:
    cosines = []
    for a, b, c in zip(left, centre, right, strict=True):
        if normalised:
            a, b, c = (y / np.linalg.norm(y) for y in (a, b, c))
        first, second = ((b - a) - ((b - a) @ b) * b, (c - b) - ((c - b) @ b) * b)
        cosines.append(1 - cosine(first, second))
    return -float(np.mean(cosines))


def test_equals_scipys_cosine_distance() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7))
    wanted = np.mean([cosine(x, y) for x, y in zip(a, b, strict=True)])
    assert cosine_loss(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 0.0), (-0.2, 2.0)])
def test_ends_of_the_range(factor: float, expected: float) -> None:
    target = torch.rand(4, 9, dtype=torch.float64)
    assert cosine_loss(factor * target, target).item() == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    a, b = torch.randn(2, 16, 512).bfloat16()
    assert torch.equal(cosine_loss(a, b), cosine_loss(a.float(), b.float()))
    assert cosine_loss(a, b.float()).dtype == torch.float32


def test_nt_xent_by_hand() -> None:
    """Two orthogonal pairs: every row scores 1 / τ with its partner and 0 with the two others, whatever its length."""
    a = torch.tensor([[3.0, 0.0], [0.0, 0.1]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.0], [0.0, 7.0]], dtype=torch.float64)
    assert nt_xent(a, b, 0.5).item() == pytest.approx(np.log(1 + 2 * np.exp(-2)), abs=1e-12)
    assert nt_xent(a, b.flip(0), 0.5).item() == pytest.approx(np.log(np.exp(2) + 2), abs=1e-12)  # −log(1 / (e² + 2))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_equals_a_loop_over_rows(temperature: float) -> None:
    a, b = draw(2, 6, 5)
    found = nt_xent(torch.tensor(a), torch.tensor(b), temperature).item()
    assert found == pytest.approx(slow_nt_xent(a, b, temperature), abs=1e-10)
    order = np.random.default_rng(1).permutation(6)
    assert nt_xent(torch.tensor(a[order]), torch.tensor(b[order]), temperature).item() == pytest.approx(found)
    assert nt_xent(torch.tensor(b), torch.tensor(a), temperature).item() == pytest.approx(found)


def test_variance_and_covariance_by_hand() -> None:
    """Columns (0, 2) with variance 2, which costs nothing, and (5, 5) with none: ½ · mean(0, 1 − √1e-4)."""
    y = torch.tensor([[0.0, 5.0], [2.0, 5.0]], dtype=torch.float64)
    assert variance_hinge(y).item() == pytest.approx(0.5 * 0.99 / 2, abs=1e-12)
    assert covariance_penalty(y).item() == pytest.approx(0.0, abs=1e-12)
    # Covariance (0, 2) with (1, 4): (−1 · −1.5 + 1 · 1.5) / 1 = 3; twice its square over two dimensions.
    assert covariance_penalty(torch.tensor([[0.0, 1.0], [2.0, 4.0]])).item() == pytest.approx(9.0)


def test_variance_and_covariance_equal_numpy() -> None:
    y = draw(9, 6)
    assert variance_hinge(torch.tensor(y)).item() == pytest.approx(slow_variance(y), abs=1e-12)
    assert covariance_penalty(torch.tensor(y)).item() == pytest.approx(slow_covariance(y), abs=1e-12)


def test_vicreg_weighs_its_terms() -> None:
    a, b = draw(2, 9, 6)
    spread, redundancy = slow_variance(a) + slow_variance(b), slow_covariance(a) + slow_covariance(b)
    wanted = 2 * np.mean((a - b) ** 2) + 3 * spread + 5 * redundancy
    found = vicreg_loss(torch.tensor(a), torch.tensor(b), VicWeights(2.0, 3.0, 5.0))
    assert found.item() == pytest.approx(wanted, abs=1e-12)


def on_circle(*degrees: float) -> tuple[Tensor, ...]:
    radians = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return tuple(torch.stack((r.cos(), r.sin(), torch.zeros_like(r)))[None] for r in radians)


def test_a_straight_trajectory_is_a_great_circle() -> None:
    left, centre, right = on_circle(-20, 0, 35)
    assert trajectory_loss(left, centre, right).item() == pytest.approx(-1.0)
    assert trajectory_loss(3 * left, 0.2 * centre, right).item() == pytest.approx(-1.0)
    assert trajectory_loss(left, centre, left).item() == pytest.approx(1.0)  # back again
    upwards = torch.tensor([[0.8, 0.0, 0.6]], dtype=torch.float64)
    assert trajectory_loss(left, centre, upwards).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
def test_trajectory_equals_a_loop_over_rows(normalised: bool) -> None:
    triple = draw(3, 7, 5)
    found = trajectory_loss(*map(torch.tensor, triple), normalised=normalised).item()
    assert found == pytest.approx(slow_trajectory(*triple, normalised=normalised), abs=1e-12)
    assert found != pytest.approx(slow_trajectory(*triple, normalised=not normalised), abs=1e-3)


def test_sie_equals_its_terms() -> None:
    inv1, inv2, equi1, equi2, predicted = draw(5, 9, 4)
    wholes = np.concatenate((inv1, equi1), axis=1), np.concatenate((inv2, equi2), axis=1)
    wanted = 2 * np.mean((inv1 - inv2) ** 2) + 7 * np.mean((predicted - equi2) ** 2)
    wanted += 3 * (slow_variance(wholes[0]) + slow_variance(wholes[1]) + slow_variance(predicted))
    wanted += 5 * (slow_covariance(wholes[0]) + slow_covariance(wholes[1]))
    i1, i2, e1, e2, p = map(torch.tensor, (inv1, inv2, equi1, equi2, predicted))
    assert sie_loss((i1, i2), (e1, e2), p, VicWeights(2.0, 3.0, 5.0, 7.0)).item() == pytest.approx(wanted, abs=1e-12)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "nt_xent": lambda a, b, _: nt_xent(a, b, 0.1),
    "vicreg": lambda a, b, _: vicreg_loss(a, b, VicWeights()),
    "trajectory": trajectory_loss,
    "sie": lambda a, b, c: sie_loss((a, b), (b, c), a, VicWeights()),
}


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_and_bfloat16_do_not_round_a_loss(name: str) -> None:
    rows = [torch.tensor(y).bfloat16() for y in draw(3, 32, 64)]
    exact = LOSSES[name](*(y.double() for y in rows)).item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = LOSSES[name](*rows)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    rows = [torch.tensor(y, requires_grad=True) for y in draw(3, 4, 3)]
    assert torch.autograd.gradcheck(LOSSES[name], rows)
