"""Latent rollouts: worlds in which the right answer is known, and a slow reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_cases import CPU, bank_of, case_of_run, handmade_case
from small_runs import SIZE, TINY, run_directory
from torch import Tensor

from seqjepa.config import DataConfig, RunConfig
from seqjepa.data.actions import multiply, quaternion
from seqjepa.data.draws import Purpose
from seqjepa.evaluate import rollouts
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import rank_scores, ranks_of
from seqjepa.evaluate.rollouts import ROLLOUTS, by_horizon, extent, one_by_one, pool_of, roll_out, target_features, walk
from seqjepa.evaluate.run import frozen
from seqjepa.training.checkpoint import load_run
from seqjepa.training.run import DataInfo


class Turning:
    """z is the rotation of a view; what is predicted is the last one, turned on by the action and longer by a factor,
    with an error in one corner."""

    def __init__(self, length: float = 1.0, error: float = 0.0) -> None:
        self.length, self.error = length, error

    def aggregate(self, z: Tensor, actions: Tensor) -> Tensor:
        assert actions.shape[1] == z.shape[1] - 1
        torch.testing.assert_close(z.norm(dim=-1), torch.ones(z.shape[:2]))
        return z[:, -1]

    def predict(self, z_agg: Tensor, action: Tensor) -> Tensor:
        wrong = torch.tensor([self.error, 0, 0, 0])
        return self.length * (torch.from_numpy(multiply(z_agg.numpy(), action.numpy())) + wrong)


def rotations(objects: int = 30, views: int = 12) -> Features:
    euler = np.random.default_rng(0).uniform(-np.pi / 2, np.pi / 2, (objects, views, 3)).astype(np.float32)
    return bank_of(quaternion(euler), np.zeros(objects), euler)


def walked(method: Turning, context: int = 2, horizons: int = 8) -> dict[str, np.ndarray]:
    bank = rotations()
    way = bank.draw(0, 0, Purpose.EVALUATION, context + horizons)
    return walk(method, bank, bank.z, way, "rotation", pool_of(bank, way, horizons, 0, 0), CPU)


def test_a_perfect_model_never_loses_its_way_whatever_length_its_predictions_have():
    for length in (1.0, 40.0):
        found = walked(Turning(length))
        scores = by_horizon({"rollout": found["rollout"]}, rank_scores)
        assert scores == {name: {str(h): 1.0 for h in range(1, 9)} for name in ("mrr", "h1")}
        np.testing.assert_array_equal(found["teacher"], 1)
        assert 0.05 < (found["blind"] == 1).mean() < 0.5


def test_a_blind_walk_is_a_rollout_from_the_next_objects_views():
    bank, slots = rotations(3, 6), np.array([[0, 5, 2], [1, 2, 3], [4, 3, 0]])
    bank = replace(bank, n_views=np.array([6, 4, 6]))  # of the second object, slot 5 is the second view again
    way = np.array([[0], [6], [12]]) + slots
    found = walk(Turning(), bank, bank.z, way, "rotation", pool_of(bank, way, 1, 0, 0), CPU)["blind"]
    turn = bank.actions(way, "rotation")[:, 1]
    for s, last in ((0, bank.z[1, 5 % 4]), (1, bank.z[2, 2]), (2, bank.z[0, 3])):
        similarity = bank.z[s, : bank.n_views[s]] @ Turning().predict(last[None], turn[s : s + 1])[0]
        assert found[s, 0] == 1 + (similarity > similarity[slots[s, 2]]).sum()


def test_errors_add_up_where_predictions_are_fed_back_and_do_not_where_the_truth_is():
    found = walked(Turning(error=0.15))
    np.testing.assert_array_equal(found["rollout"][:, 0], found["teacher"][:, 0])
    rollout, teacher = (1 / found[name] for name in ("rollout", "teacher"))
    assert teacher.mean(axis=0).min() > 0.8
    assert rollout[:, -1].mean() < 0.8 * rollout[:, 0].mean()


def test_chunks_of_walks_do_not_matter(monkeypatch):
    whole = walked(Turning(error=0.15))
    monkeypatch.setattr(rollouts, "CPU_WALKS", 7)
    for name, ranks in walked(Turning(error=0.15)).items():
        np.testing.assert_array_equal(ranks, whole[name])


def test_a_rotation_is_reached_by_all_turns_together():
    """The prediction after three steps is the first view's rotation and the three turns, by scipy."""
    turns = Rotation.random(4, rng=np.random.default_rng(0))
    z = torch.from_numpy(turns[:1].as_quat()[None])
    actions = torch.from_numpy((turns[:-1].inv() * turns[1:]).as_quat()[None])
    predicted = roll_out(Turning(), z.float(), actions.float())
    assert predicted.shape == (1, 3, 4)
    assert (Rotation.from_quat(predicted[0].numpy()).inv() * turns[1:]).magnitude().max() < 1e-3


@torch.no_grad()
def test_a_walk_by_hand(run):
    """Two true views, then two predictions, of seq-JEPA itself."""
    method = load_run(run).method
    torch.manual_seed(0)
    z, a = torch.randn(3, 4, 64), torch.randn(3, 3, 4)
    length = (z[:, 0].norm(dim=-1) + z[:, 1].norm(dim=-1)) / 2
    first = method.predict(method.aggregate(z[:, :2], a[:, :1]), a[:, 1])
    token = first / first.norm(dim=-1, keepdim=True) * length[:, None]
    second = method.predict(method.aggregate(torch.stack([z[:, 0], z[:, 1], token], 1), a[:, :2]), a[:, 2])
    predicted = roll_out(method, z[:, :2], a)
    torch.testing.assert_close(predicted[:, 0], token)
    torch.testing.assert_close(torch.cosine_similarity(predicted[:, 1], second), torch.ones(3))
    true = method.predict(method.aggregate(z[:, :3], a[:, :2]), a[:, 2])
    torch.testing.assert_close(one_by_one(method, z, a, 2), torch.stack([first, true], 1))
    # In windows each is made from the last two.
    second = method.predict(method.aggregate(torch.stack([z[:, 1], token], 1), a[:, 1:2]), a[:, 2])
    predicted = roll_out(method, z[:, :2], a, sliding=True)
    torch.testing.assert_close(predicted[:, 0], token)
    torch.testing.assert_close(torch.cosine_similarity(predicted[:, 1], second), torch.ones(3))
    true = method.predict(method.aggregate(z[:, 1:3], a[:, 1:2]), a[:, 2])
    torch.testing.assert_close(one_by_one(method, z, a, 2, sliding=True), torch.stack([first, true], 1))


def test_extent():
    assert extent(3, 50) == (3, 8)
    assert extent(3, 6) == (3, 3)
    assert extent(3, 3) == (2, 1)
    assert extent(1, 2) == (1, 1)


@torch.no_grad()
def test_a_run_on_shards(run, shards):
    """Samples have 4 to 6 views: a context of three, and one step. Ranks by a loop over the objects of each draw."""
    case = case_of_run(run, shards)
    assert not ROLLOUTS.why_not(case)
    with frozen(case.loaded.method):
        found = ROLLOUTS.take(case)
    scores, method, bank = found["rollout"], case.loaded.method, case.splits.val
    assert (scores["context"], scores["queries"]) == (3, 8 * 24)
    targets, ranks = target_features(case), []
    for draw in range(8):
        places = bank.draw(0, draw, Purpose.EVALUATION, 4)
        slots, actions = places % bank.z.shape[1], bank.actions(places, "rotation")
        for s in range(24):
            z = bank.z[s, slots[s, :3]][None]
            predicted = method.predict(method.aggregate(z, actions[s : s + 1, :2]), actions[s : s + 1, 2])
            among = targets[None, s, : bank.n_views[s]]
            right, count = torch.tensor([[slots[s, 3]]]), torch.tensor(bank.n_views[s : s + 1])
            ranks.append(ranks_of(predicted[None], among, right, count).item())
    assert scores["mrr"] == pytest.approx({"1": np.mean(1 / np.array(ranks))})
    assert scores["h1"] == pytest.approx({"1": np.mean(np.array(ranks) == 1)})
    assert scores["mrr_teacher"] == scores["mrr"]
    assert scores["mrr_chance"] == pytest.approx(np.mean([(1 / np.arange(1, n + 1)).mean() for n in bank.n_views]))
    low, high = found["intervals"]["rollout"]["mrr"]["1"]
    assert low <= scores["mrr"]["1"] <= high
    assert ROLLOUTS.take(case) == found


def test_target_features_are_encoded_once_for_all_studies(run, shards, monkeypatch):
    case = case_of_run(run, shards)
    first = target_features(case)
    monkeypatch.setattr("seqjepa.evaluate.rollouts.encode_views", None)
    assert target_features(case) is first


def test_why_not(run, shards, tmp_path):
    case = case_of_run(run, shards)
    single = replace(case.splits.val, n_views=np.ones(24, np.int64))
    assert "one view" in ROLLOUTS.why_not(handmade_case(case.loaded, shards, single, single))
    views = DataConfig(action="rotation", context=1)
    data = DataInfo("rotation", 4, (0.4,) * 3, (0.2,) * 3, SIZE, SIZE)
    other = run_directory(tmp_path / "sie", RunConfig(name="tiny", method="sie", model=TINY, data=views), data)
    assert "seq-JEPA" in ROLLOUTS.why_not(case_of_run(other, shards))
