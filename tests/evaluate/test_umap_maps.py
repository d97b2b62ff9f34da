from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_cases import bank_of, case_of_run, handmade_case
from small_runs import CLASSES

from seqjepa.data.draws import Purpose
from seqjepa.evaluate import umap
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.umap import UMAP, aggregates, flattened, most_frequent, views
from seqjepa.methods.base import Aggregating
from seqjepa.paper.metrics import ROWS
from seqjepa.training.checkpoint import load_run


class FirstTwo:
    """Stands in for UMAP: the first two features are the map. Keeps what it was asked."""

    asked: ClassVar[dict] = {}

    def __init__(self, **how) -> None:
        FirstTwo.asked = how

    def fit_transform(self, x: np.ndarray) -> np.ndarray:
        return x[:, :2].astype(np.float64)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(umap, "_import_umap", lambda: SimpleNamespace(UMAP=FirstTwo))


def bank(labels: np.ndarray, slots: int = 4, **fields) -> Features:
    rng = np.random.default_rng(0)
    params = rng.uniform(-np.pi, np.pi, (len(labels), slots, 3)).astype(np.float32)
    return bank_of(rng.normal(size=(len(labels), slots, 5)), labels, params, **fields)


def test_maps_of_z_agg_are_of_the_papers_numbers_of_views():
    assert umap.AGG_SIZES == {"stored views": 5, "patches": 4, "augmentations": 5}  # of ours the paper has no map


def test_arrays_of_a_run(run, shards, quick):
    case = case_of_run(run, shards)
    scores = UMAP.take(case)["umap"]
    arrays = case.arrays["umap"]
    total = int(case.splits.val.n_views.sum())
    shapes = {name: (array.shape, array.dtype.kind, array.itemsize) for name, array in arrays.items()}
    assert shapes.pop("class_names")[0] == (3,)
    k = len(arrays["agg_class"])
    assert shapes == {
        "view_xy": ((total, 2), "f", 4), "view_class": ((total,), "i", 2), "view_angle_deg": ((total,), "f", 4),
        "agg_xy": ((k, 2), "f", 4), "agg_class": ((k,), "i", 2),
    }  # fmt: skip
    assert k >= 1000
    assert arrays["class_names"].tolist() == list(CLASSES)
    assert FirstTwo.asked == {"n_neighbors": 15, "min_dist": 0.1, "random_state": 0, "n_jobs": 1}
    assert set(scores) == {"trustworthiness_view", "trustworthiness_agg"}
    assert {f"umap.{name}" for name in scores} == {key for key in ROWS if key.startswith("umap.")}
    assert all(0 <= score <= 1 for score in scores.values())


def test_points_are_the_views_with_their_class_and_angle():
    labels = np.array([4, 0, 4, 2, 4, 2])
    shown = bank(labels, n_views=np.array([4, 4, 2, 4, 3, 4]))
    points = views(shown, [2, 4], 100, seed=0)
    sample, slot = [0] * 4 + [2] * 2 + [3] * 4 + [4] * 3 + [5] * 4, [*range(4), 0, 1, *range(4), *range(3), *range(4)]
    np.testing.assert_array_equal(points.x, shown.z[sample, slot].numpy())
    assert points.label.tolist() == [[2, 4].index(label) for label in labels[sample]]
    turned = Rotation.from_euler("xyz", shown.params[sample, slot].astype(np.float64))
    np.testing.assert_allclose(points.colours["angle_deg"], np.degrees(turned.magnitude()), atol=1e-3)


def test_too_many_views_are_thinned_at_random_by_the_seed():
    shown = bank(np.repeat(np.arange(4), 50))
    few, same, other = (views(shown, [0, 1, 2, 3], 120, seed=s) for s in (0, 0, 1))
    assert len(few) == 120
    assert len(np.unique(few.x, axis=0)) == 120
    np.testing.assert_array_equal(few.x, same.x)
    assert not np.array_equal(few.x, other.x)
    assert np.bincount(few.label).min() > 15


def test_classes_with_the_most_samples():
    shown = bank(np.repeat([7, 1, 3, 5, 0], [3, 5, 5, 9, 1]))
    assert most_frequent(shown, 3) == [1, 3, 5]
    assert most_frequent(shown, 10) == [0, 1, 3, 5, 7]


def test_aggregates_are_those_of_fixed_draws(run, shards):
    case = case_of_run(run, shards)
    points = aggregates(case, [0, 2], 3, 5000)
    method, val = case.loaded.method, case.splits.val
    assert isinstance(method, Aggregating)
    rows = np.flatnonzero(np.isin(val.labels.numpy(), [0, 2]))
    slots = val.draw(0, 1, Purpose.EVALUATION, 3)[rows] % val.z.shape[1]
    second = slice(len(rows), 2 * len(rows))
    with torch.no_grad():
        z = torch.stack([val.z[rows, slots[:, i]] for i in range(3)], 1)
        wanted = method.aggregate(z, torch.from_numpy(_relative(val.params[rows[:, None], slots])))
    np.testing.assert_allclose(points.x[second], wanted.numpy(), atol=1e-5)
    assert points.label[second].tolist() == (val.labels.numpy()[rows] // 2).tolist()
    assert len(points) == len(rows) * -(-1000 // len(rows))
    assert len(aggregates(case, [0, 2], 3, 100)) == 100


def _relative(params: np.ndarray) -> np.ndarray:
    q = [Rotation.from_euler("xyz", params[:, i, :3].astype(np.float64)) for i in range(params.shape[1])]
    turns = [(a.inv() * b).as_quat() for a, b in pairwise(q)]
    return np.stack(turns, axis=1).astype(np.float32)


def test_patches_are_coloured_by_position(run, shards, quick):
    labels = np.arange(30) % 3
    rng = np.random.default_rng(0)
    params = rng.uniform(0, 1, (30, 8, 2)).astype(np.float32)
    shown = bank_of(rng.normal(size=(30, 8, 5)), labels, params, param_names=("x", "y"), run_length=4)
    case = handmade_case(load_run(run)._replace(method=torch.nn.Identity()), shards, shown, shown)
    scores = UMAP.take(case)["umap"]
    arrays = case.arrays["umap"]
    np.testing.assert_array_equal(arrays["view_position"], params.reshape(-1, 2))
    assert "view_angle_deg" not in arrays
    assert list(scores) == ["trustworthiness_view"]  # the method has no aggregate
    assert "agg_xy" not in arrays


def test_trustworthiness_is_one_where_the_map_keeps_all(quick):
    flat = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    points = views(bank(np.zeros(15, np.int64)), [0], 60, seed=0)
    whole = replace(points, x=flat)
    assert umap._trustworthiness("view", whole, flattened(flat, 0)) == {"trustworthiness_view": 1.0}
    shuffled = flat[np.random.default_rng(1).permutation(60)]
    assert umap._trustworthiness("view", whole, shuffled)["trustworthiness_view"] < 0.7


def test_why_not(run, shards, monkeypatch):
    case = case_of_run(run, shards)
    assert UMAP.why_not(case) == ""
    assert UMAP.why_not(replace(case, can=replace(case.can, labelled=False))) == "samples without a label"
    monkeypatch.setattr(umap.importlib.util, "find_spec", lambda name: None)
    assert UMAP.why_not(case) == "umap-learn is not installed: pip install 'seqjepa[report]'"
    points = views(case.splits.val, [0], 60, seed=0)
    assert umap._trustworthiness("view", points, points.x[:, :2]) == {}


@pytest.mark.slow
def test_umap_keeps_clusters_apart_and_is_repeatable():
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    x = (rng.normal(size=(150, 20)) + 8 * np.eye(20)[labels]).astype(np.float32)
    xy = flattened(x, seed=0)
    np.testing.assert_array_equal(xy, flattened(x, seed=0))
    assert (xy.shape, xy.dtype) == ((150, 2), np.float32)
    nearest = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + np.diag(np.full(150, np.inf))
    assert (labels[nearest.argmin(1)] == labels).all()
    assert flattened(x[:10], seed=0).shape == (10, 2)
