"""Numbers of features without training: scikit-learn's k-NN, and effective ranks by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.neighbors import KNeighborsClassifier
from small_cases import case_of_run

from seqjepa.evaluate.representation import REPRESENTATION
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.run import evaluate_run
from seqjepa.feature_metrics import knn_classes, lidar, rankme, spectral_rank
from seqjepa.paper.metrics import METRICS

RNG = np.random.default_rng(0)
QUICK = {"device": "cpu", "probe_epochs": 2, "m_val": (1, 3), "progress": False}


@pytest.mark.parametrize(("n", "k"), [(300, 20), (300, 1), (12, 20)])
def test_votes_are_scikit_learns(n, k):
    labels = RNG.integers(0, 4, n)
    known, asked = RNG.normal(size=(n, 6)) + labels[:, None] * 0.4, RNG.normal(size=(80, 6)) + 0.6
    oracle = KNeighborsClassifier(min(k, n), metric="cosine", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = oracle.fit(known, labels).predict(asked)
    found = knn_classes(torch.from_numpy(known), torch.from_numpy(labels), torch.from_numpy(asked), k)
    np.testing.assert_array_equal(found, expected)


def entropy_rank(values: np.ndarray) -> float:
    p = values / values.sum() + 1e-7
    return float(np.exp(-sum(x * np.log(x) for x in p)))


def test_rankme_by_hand():
    z = RNG.normal(size=(200, 7)) * np.array([5, 3, 2, 1, 0.5, 0.1, 0.01]) + 0.3
    expected = entropy_rank(np.sqrt(np.linalg.eigvalsh(z.T @ z)))
    assert rankme(torch.from_numpy(z)) == pytest.approx(expected, rel=1e-9)
    assert rankme(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.ones(50, 8)) == pytest.approx(1, rel=1e-4)
    assert spectral_rank(torch.zeros(3)) == pytest.approx(1, abs=1e-4)


def test_lidar_by_hand():
    n, q, width = 30, 6, 5
    noise = RNG.normal(size=(n, q, width)) * np.array([0.5, 0.5, 0.5, 0.5, 0.01])
    z = RNG.normal(size=(n, 1, width)) * np.array([3, 2, 1, 0.1, 0]) + noise
    means = z.mean(axis=1)
    between = np.cov(means.T)
    within = sum(np.cov(of_sample.T) for of_sample in z) / n + 1e-4 * np.eye(width)
    values = np.clip(scipy.linalg.eigh(between, within, eigvals_only=True), 0, None)  # as those of Sw^-1/2 Sb Sw^-1/2
    assert lidar(torch.from_numpy(z)) == pytest.approx(entropy_rank(values), rel=1e-6)


def test_they_stand_in_results_with_intervals_and_names(run: Path, shards: Path):
    found = evaluate_run(run, shards, **QUICK)
    scores, intervals = found["representation"], found["intervals"]["representation"]
    assert set(scores) == {"knn_z", "knn_agg", "rankme", "lidar"}
    assert set(scores["knn_agg"]) == {"1", "3"}
    low, high = intervals["knn_agg"]["3"]
    assert 0 <= low <= scores["knn_agg"]["3"] <= high <= 1
    assert {f"representation.{name}" for name in scores} <= set(METRICS)
    assert 1 <= scores["lidar"] <= 128
    table = format_table(read_results(run))
    assert "20-NN top-1, z_AGG, M_val = 3" in table
    assert "RankMe, z " in table


def test_images_have_them_of_whole_images_too(saccade_run: Path, saccade_shards: Path):
    scores = evaluate_run(saccade_run, saccade_shards, train_draws=1, **QUICK)["representation"]
    assert set(scores) == {"knn_z_image", "knn_z_patch", "knn_agg", "rankme", "lidar"}


def test_validation_samples_of_one_class_are_not_told_apart(run: Path, shards: Path):
    ctx = case_of_run(run, shards)
    one = replace(ctx.splits.val, labels=torch.ones_like(ctx.splits.val.labels))
    found = REPRESENTATION.take(replace(ctx, bench=replace(ctx.bench, val=one)))
    assert set(found["representation"]) == {"rankme", "lidar"}
    assert "intervals" not in found


def test_features_that_are_no_numbers_have_no_rank(run: Path, shards: Path):
    ctx = case_of_run(run, shards)
    diverged = replace(ctx.splits.train, z=torch.full_like(ctx.splits.train.z, torch.nan))
    found = REPRESENTATION.take(replace(ctx, splits=replace(ctx.splits, train=diverged)))["representation"]
    assert set(found) == {"knn_z", "knn_agg"}
