"""AUC against scikit-learn; NSS and information gain against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipelines.saliency.scoring import area_under_roc, auc, information_gain, nss, shuffled_auc


@pytest.mark.parametrize("levels", [3, 1000])
def test_auc_is_that_of_the_roc_curve(levels: int) -> None:
    """Few levels: many ties."""
    rng = np.random.default_rng(levels)
    saliency = rng.integers(0, levels, (12, 17)).astype(np.float32)
    fixations = rng.integers(0, [12, 17], (30, 2))
    others = rng.integers(0, [12, 17], (80, 2))
    seen = saliency[tuple(fixations.T)]
    for found, negatives in (
        (auc(saliency, fixations), saliency.ravel()),
        (shuffled_auc(saliency, fixations, others), saliency[tuple(others.T)]),
    ):
        labels = np.repeat([1, 0], [len(seen), len(negatives)])
        assert found == pytest.approx(roc_auc_score(labels, np.concatenate([seen, negatives])), abs=1e-12)


def test_auc_by_hand() -> None:
    assert area_under_roc(np.array([3.0]), np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(2.5 / 4)
    assert area_under_roc(np.array([5.0, 0.0]), np.array([1.0, 2.0])) == pytest.approx(0.5)
    assert auc(np.ones((4, 4)), np.array([[0, 0]])) == 0.5


def test_rows_come_before_columns() -> None:
    saliency = np.zeros((2, 3))
    saliency[1, 2] = 1
    assert auc(saliency, np.array([[1, 2]])) == pytest.approx(1 - 0.5 / 6)


def test_nss_by_hand() -> None:
    """Mean 2, deviation sqrt(3): (5 − 2)/sqrt(3) at the peak, −1/sqrt(3) elsewhere."""
    saliency = np.array([[1.0, 1.0], [1.0, 5.0]])
    assert nss(saliency, np.array([[1, 1]])) == pytest.approx(3**0.5)
    assert nss(saliency, np.array([[1, 1], [0, 0]])) == pytest.approx((3 - 1) / 3**0.5 / 2)
    assert nss(np.ones((3, 3)), np.array([[1, 1]])) == 0


def test_information_gain_by_hand() -> None:
    """p = 1/2 where the prior has 1/4: one bit; 1/8 where it has 1/4: minus one."""
    p, prior = np.array([[0.5, 0.125], [0.25, 0.125]]), np.full((2, 2), 7.0)
    assert information_gain(p, prior, np.array([[0, 0]])) == pytest.approx(1)
    assert information_gain(p, prior, np.array([[0, 0], [0, 1], [1, 0]])) == pytest.approx(0, abs=1e-12)
    assert information_gain(3 * p, p, np.array([[0, 1]])) == pytest.approx(0, abs=1e-12)
    nothing = information_gain(np.array([[1.0, 0.0]]), np.ones((1, 2)), np.array([[0, 1]]))
    assert nothing == pytest.approx(-52 + 1)
