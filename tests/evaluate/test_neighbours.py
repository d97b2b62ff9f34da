"""Nearest neighbours against scikit-learn's, and what they share against scipy and by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sklearn.neighbors import NearestNeighbors
from small_cases import bank_of, case_of_run, handmade_case
from small_runs import SIZE

from seqjepa.evaluate import neighbours
from seqjepa.evaluate import neighbours as blocks
from seqjepa.evaluate.neighbours import (
    NEIGHBOURS,
    angle_between,
    directions,
    nearest,
    random_others,
    spread,
    view_pixels,
)
from seqjepa.training.checkpoint import load_run
from shards.reader import ShardSet


@pytest.mark.parametrize("block_rows", [3, 2, 64, 1000])
def test_the_nearest_are_scikit_learns_whatever_the_blocks(monkeypatch, block_rows):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(blocks, "QUERY_ROWS", 7)
    z = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    oracle = NearestNeighbors(n_neighbors=4, metric="cosine").fit(z).kneighbors(z, return_distance=False)
    queries = torch.tensor([0, 5, 63, 64, 128, 199, *range(20, 40)])
    found = nearest(directions(torch.from_numpy(z)), queries, 3)
    np.testing.assert_array_equal(found, oracle[queries, 1:])


@pytest.mark.parametrize("block_rows", [2, 4, 100])
def test_of_equals_the_first_come_first_and_never_the_query(monkeypatch, block_rows):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", block_rows)
    found = nearest(directions(torch.ones(9, 3)), torch.tensor([0, 1, 8]), 3)
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 2]]


def test_angles_are_scipys():
    turns = Rotation.random(20, rng=np.random.default_rng(0)), Rotation.random(20, rng=np.random.default_rng(1))
    a, b = (turn.as_quat() for turn in turns)
    expected = np.degrees((turns[0].inv() * turns[1]).magnitude())
    np.testing.assert_allclose(angle_between(a, b), expected)
    np.testing.assert_allclose(angle_between(a, -b), expected)  # q and −q are one rotation
    np.testing.assert_allclose(angle_between(a, a), 0, atol=1e-5)


def test_spread():
    assert spread(5, 12).tolist() == [0, 1, 2, 3, 4]
    assert spread(101, 3).tolist() == [0, 50, 100]


def test_random_others_are_never_the_query():
    others = random_others(5, np.arange(5), 0)
    assert (others != np.arange(5)[:, None]).all()
    assert {tuple(sorted(set(row))) for row in others.tolist()} == {
        tuple(k for k in range(5) if k != q) for q in range(5)
    }


def test_what_neighbours_share_by_hand(run, shards):
    """Eight objects of four views. Features point a little away from the object's direction, so that the three others
    of the same object are nearest; objects 2k and 2k + 1 are of class k; view v is turned by 10° · v about x."""
    rng = np.random.default_rng(0)
    z = np.eye(8)[:, None] + 0.01 * rng.normal(size=(8, 4, 8))
    params = np.zeros((8, 4, 3), np.float32)
    params[..., 0] = np.radians(10 * np.arange(4))
    bank = bank_of(z, np.arange(8) // 2, params)
    case = handmade_case(load_run(run), shards, bank, bank)
    found = NEIGHBOURS.take(case)["neighbours"]
    assert (found["class"], found["object"], found["queries"]) == (1, 1, 32)
    one_class = replace(bank, labels=torch.zeros(8, dtype=torch.int64))
    case = handmade_case(load_run(run), shards, one_class, one_class)
    assert "class" not in NEIGHBOURS.take(case)["neighbours"]  # every neighbour would be of it
    assert found["angle_deg"] == pytest.approx(np.mean([20, 40 / 3, 40 / 3, 20]), abs=1e-3)
    assert found["class_chance"] == pytest.approx(7 / 31, abs=0.03)
    assert found["object_chance"] == pytest.approx(3 / 31, abs=0.03)


def test_a_run_on_shards_agrees_with_scikit_learn(run, shards):
    case = case_of_run(run, shards)
    found, bank = NEIGHBOURS.take(case), case.splits.val
    there = np.arange(bank.z.shape[1]) < bank.n_views[:, None]
    sample, z = np.nonzero(there)[0], bank.z.numpy()[there]
    near = NearestNeighbors(n_neighbors=4, metric="cosine").fit(z).kneighbors(z, return_distance=False)[:, 1:]
    label = bank.labels.numpy()[sample]
    turns = Rotation.from_euler("xyz", bank.params[there][:, :3])
    angles = [np.degrees((turns[q].inv() * turns[k]).magnitude()) for q in range(len(z)) for k in near[q]]
    scores = found["neighbours"]
    assert scores["class"] == pytest.approx((label[near] == label[:, None]).mean())
    assert scores["object"] == pytest.approx((sample[near] == sample[:, None]).mean())
    assert scores["angle_deg"] == pytest.approx(np.mean(angles))
    for name, (low, high) in found["intervals"]["neighbours"].items():
        assert low <= scores[name] <= high
    arrays = case.arrays["neighbours"]
    assert arrays["pictures"].shape == (12, 4, SIZE, SIZE, 3)
    shown = spread(len(z), 12)
    np.testing.assert_array_equal(arrays["same_class"], label[near[shown]] == label[shown, None])
    slot = np.nonzero(there)[1]
    index, first = case.stored.split("val"), near[shown[5], 0]
    np.testing.assert_array_equal(arrays["pictures"][5, 1], index.read_view(sample[first], slot[first]))
    assert NEIGHBOURS.take(case) == found


def test_fewer_queries_on_a_cpu(run, shards, monkeypatch):
    monkeypatch.setattr(neighbours, "CPU_QUERIES", 10)
    assert NEIGHBOURS.take(case_of_run(run, shards))["neighbours"]["queries"] == 10


def test_what_there_is_not_is_left_out(run, shards):
    z = np.random.default_rng(0).normal(size=(6, 1, 4))
    bank = bank_of(z, np.full(6, -1), np.zeros((6, 1, 0), np.float32), param_names=())
    case = handmade_case(load_run(run), shards, bank, bank)
    assert NEIGHBOURS.take(case)["neighbours"] == {"queries": 6}
    assert np.isnan(case.arrays["neighbours"]["angle_deg"]).all()
    few = replace(bank, z=bank.z[:3], n_views=bank.n_views[:3])
    assert "more than 3 views" in NEIGHBOURS.why_not(handmade_case(load_run(run), shards, bank, few))


def test_whole_images_have_classes_alone(saccade_run, saccade_shards):
    case = case_of_run(saccade_run, saccade_shards)
    scores = NEIGHBOURS.take(case)["neighbours"]
    assert set(scores) == {"class", "class_chance", "queries"}
    bank = case.splits.val
    near = NearestNeighbors(n_neighbors=4, metric="cosine").fit(bank.z_image).kneighbors(return_distance=False)
    label = bank.labels.numpy()
    assert scores["class"] == pytest.approx((label[near[:, :3]] == label[:, None]).mean())
    images = case.stored.images("test")
    np.testing.assert_array_equal(case.arrays["neighbours"]["pictures"][0, 0], images.read_image(0))


def test_pictures_are_small(shards, monkeypatch):
    monkeypatch.setattr("seqjepa.evaluate.neighbours.MOST_PIXELS", 8)
    stored, one = ShardSet.open(shards), np.zeros((1, 1), np.int64)
    picture = view_pixels(stored, "val", one, one)
    blocks_of = stored.split("val").read_view(0, 0).reshape(8, 2, 8, 2, 3).mean((1, 3))
    assert picture.shape == (1, 1, 8, 8, 3)
    assert np.abs(picture[0, 0] - blocks_of).max() <= 1
