"""Ranks among candidates, against a slow explicit reference and numbers that can be worked out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqjepa.evaluate.metrics import Resampling, chance, rank_intervals, rank_scores, ranks_of


def slow_rank(predicted: np.ndarray, candidates: np.ndarray, right: int) -> int:
    """Sorted by falling cosine, where does the right one come?"""
    similarity = [p @ predicted / np.linalg.norm(p) / np.linalg.norm(predicted) for p in candidates]
    return sorted(range(len(candidates)), key=lambda k: -similarity[k]).index(right) + 1


def test_ranks_are_those_of_a_sort_by_cosine_among_the_candidates_that_there_are():
    rng = np.random.default_rng(0)
    predicted, candidates = rng.normal(size=(4, 7, 5)), rng.normal(size=(4, 9, 5))
    count = np.array([9, 5, 2, 9])
    right = rng.integers(0, count[:, None], (4, 7))
    given = (torch.from_numpy(a) for a in (predicted, candidates, right, count))
    slow = [[slow_rank(predicted[b, q], candidates[b, : count[b]], right[b, q]) for q in range(7)] for b in range(4)]
    assert ranks_of(*given).tolist() == slow


@pytest.mark.parametrize("broken", [0.0, float("nan")])
def test_what_cannot_be_told_apart_comes_last(broken):
    right, count = torch.tensor([[0, 3]]), torch.tensor([5])
    same = torch.ones(1, 6, 4)
    assert ranks_of(torch.rand(1, 2, 4), same, right, count).tolist() == [[5, 5]]
    different = torch.randn(1, 6, 4)
    assert ranks_of(torch.full((1, 2, 4), broken), different, right, count).tolist() == [[5, 5]]


def test_random_embeddings_score_what_chance_gives():
    rng = np.random.default_rng(1)
    embeddings = torch.from_numpy(rng.normal(size=(400, 50, 16)))
    predicted = torch.from_numpy(rng.normal(size=(400, 50, 16)))
    right = torch.arange(50).expand(400, 50)
    ranks = ranks_of(predicted, embeddings, right, torch.full((400,), 50)).numpy()
    scores = rank_scores(ranks, np.ones_like(ranks, bool))
    assert scores["mrr"] == pytest.approx(0.090, abs=0.002)
    assert scores["h1"] == pytest.approx(0.02, abs=0.002)
    assert scores["h5"] == pytest.approx(0.10, abs=0.004)


def test_chance_by_hand():
    assert chance(np.array([50])) == pytest.approx({"mrr": 0.08998, "h1": 0.02, "h5": 0.1}, abs=1e-5)
    assert chance(np.array([1, 2, 4])) == pytest.approx({"mrr": (1 + 3 / 4 + 25 / 48) / 3, "h1": 7 / 12, "h5": 1})


def test_only_what_was_asked_counts():
    ranks = np.array([[1, 2], [4, 6]])
    asked = np.array([[True, True], [True, False]])
    assert rank_scores(ranks, asked) == pytest.approx({"mrr": 1.75 / 3, "h1": 1 / 3, "h5": 1})


def test_intervals_are_of_objects_with_all_their_queries():
    """Two objects, one always right with three queries, the other always second with one: the ratio of sums over the
    four samples of two, of which those with both come up half of the time."""
    ranks, asked = np.array([[1, 1, 1], [2, 2, 2]]), np.array([[True] * 3, [True, False, False]])
    found = rank_intervals(ranks, asked, Resampling.of(2, 0, torch.device("cpu"), 400))
    assert found["mrr"] == [0.5, 1.0]
    only_both = Resampling(torch.ones(10, 2, dtype=torch.uint8))
    assert rank_intervals(ranks, asked, only_both)["mrr"] == pytest.approx([3.5 / 4] * 2)
