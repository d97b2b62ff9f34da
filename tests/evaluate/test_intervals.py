"""Bootstrap intervals against scipy's bootstrap and the binomial's normal interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import r2_score

from seqjepa.evaluate.metrics import Resampling, averaged_mean, averaged_r2_avg, averaged_r2_pool, r2_avg, r2_pool

CPU = torch.device("cpu")


def predictions(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(n, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 0.2, 4.0]) + 5
    return target, target + torch.randn(n, 3, generator=generator, dtype=torch.float64) * 0.5


def test_every_sample_has_as_many_objects_as_there_are():
    counts = Resampling.of(50, 3, CPU).counts
    assert counts.shape == (1000, 50)
    assert (counts.int().sum(1) == 50).all()
    assert counts.double().var() == pytest.approx(1 - 1 / 50, rel=0.03)  # multinomial
    assert torch.equal(counts, Resampling.of(50, 3, CPU).counts)
    assert not torch.equal(counts, Resampling.of(50, 4, CPU).counts)


def test_accuracy_has_the_binomial_interval():
    n, p = 2000, 0.7
    low, high = Resampling.of(n, 0, CPU, 4000).interval(averaged_mean(torch.arange(n) < p * n))
    half = 1.96 * math.sqrt(p * (1 - p) / n)
    assert low == pytest.approx(p - half, abs=0.1 * half)
    assert high == pytest.approx(p + half, abs=0.1 * half)


@pytest.mark.parametrize(("averaged", "average"), [(averaged_r2_avg, True), (averaged_r2_pool, False)])
def test_r2_has_scipys_percentile_interval(averaged, average):
    target, predicted = predictions(200)

    def r2(rows: np.ndarray) -> float:
        y, found = target.numpy()[rows], predicted.numpy()[rows]
        return r2_score(y, found) if average else r2_score(y.ravel(), found.ravel())

    oracle = bootstrap(
        (np.arange(200),), r2, n_resamples=1000, vectorized=False, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = Resampling.of(200, 1, CPU).interval(averaged(target, predicted))
    width = oracle.high - oracle.low
    assert low == pytest.approx(oracle.low, abs=0.15 * width)
    assert high == pytest.approx(oracle.high, abs=0.15 * width)


@pytest.mark.parametrize(("averaged", "metric"), [(averaged_r2_avg, r2_avg), (averaged_r2_pool, r2_pool)])
def test_of_the_objects_as_they_are_it_is_the_metric(averaged, metric):
    target, predicted = predictions(300)
    target[:, 1] = 2.0  # does not vary, and is not predicted exactly
    rows, number = averaged(target, predicted)
    assert number(rows.mean(0, keepdim=True)).item() == pytest.approx(metric(target, predicted), abs=1e-12)


def test_draws_of_an_object_move_together():
    target, predicted = predictions(80)
    resampling = Resampling.of(80, 0, CPU)
    once = resampling.interval(averaged_r2_avg(target, predicted))
    again = resampling.interval(averaged_r2_avg(target.repeat(4, 1), predicted.repeat(4, 1)))
    assert again == pytest.approx(once, abs=1e-9)
    alone = Resampling.of(320, 0, CPU).interval(averaged_r2_avg(target.repeat(4, 1), predicted.repeat(4, 1)))
    assert alone[1] - alone[0] < 0.7 * (once[1] - once[0])  # which is what treating draws as objects would give
