"""Retrieval in SIE's protocol: which queries there are, scores of predictors that are known, and a slow reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from small_cases import CPU, bank_of, case_of_run, handmade_case
from small_runs import SIZE, TINY, run_directory
from torch import Tensor

from seqjepa.config import DataConfig, RunConfig
from seqjepa.data.actions import actions_between, multiply, quaternion
from seqjepa.data.sequence import normalise
from seqjepa.evaluate import retrieval
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.retrieval import (
    RETRIEVAL,
    Found,
    by_aggregate,
    by_predictor,
    projected,
    queries,
    rank_views,
    retrieval_scores,
)
from seqjepa.evaluate.run import frozen
from seqjepa.evaluate.studies import EvalContext
from seqjepa.training.checkpoint import load_run
from seqjepa.training.run import DataInfo


class Turning:
    """z is the rotation of a view; the prediction is that rotation, turned on by the action."""

    def project(self, z: Tensor) -> Tensor:
        return z

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        return torch.from_numpy(multiply(y.numpy(), action.numpy()))


class Staying(Turning):
    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        return y


class Guessing(Turning):
    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        return torch.randn(len(y), 4, generator=torch.Generator().manual_seed(len(y)))


def rotations(objects: int = 40, views: int = 50, n_views: np.ndarray | None = None) -> Features:
    rng = np.random.default_rng(0)
    euler = rng.uniform(-np.pi / 2, np.pi / 2, (objects, views, 3)).astype(np.float32)
    fields = {} if n_views is None else {"n_views": n_views}
    return bank_of(quaternion(euler), np.zeros(objects), euler, **fields)


def scores_of(method: Turning, bank: Features) -> dict[str, float]:
    asked = queries(bank, "rotation", 1, 0)
    candidates = {"": projected(method, bank, CPU)}
    ranks, blind = (
        rank_views(bank, by_predictor(method, bank, asked, CPU, shift), candidates, CPU)[""] for shift in (0, 1)
    )
    return retrieval_scores(Found(ranks, blind, asked.asked), bank.n_views)


def test_a_perfect_predictor_finds_every_view():
    scores = scores_of(Turning(), rotations())
    assert {scores[name] for name in ("mrr", "h1", "h5", "mrr_no_identity", "h1_no_identity")} == {1.0}
    assert scores["queries"] == 40 * 50
    assert scores["mrr_chance"] < scores["mrr_blind"] < 0.5  # an action tells which poses it may lead to


def test_one_that_stays_where_it_is_finds_the_identity_alone():
    scores = scores_of(Staying(), rotations())
    assert scores["h1"] == pytest.approx(1 / 50)
    assert scores["h1_no_identity"] == 0


def test_chance_is_that_of_random_embeddings():
    scores = scores_of(Guessing(), rotations(objects=400))
    assert scores["mrr"] == pytest.approx(0.090, abs=0.003)
    assert scores["mrr_chance"] == pytest.approx(0.08998, abs=1e-5)


def test_objects_with_fewer_views_are_asked_about_those():
    n_views = np.array([6, 4, 1, 2])
    scores = scores_of(Turning(), rotations(4, 6, n_views))
    assert scores["queries"] == 6 + 4 + 2  # of one view there is nothing to find
    assert scores["mrr"] == 1
    assert scores["h1_chance"] == pytest.approx((6 / 6 + 4 / 4 + 2 / 2) / 12)


@pytest.mark.parametrize("seed", [0, 1])
def test_contexts_are_drawn_from_all_but_the_source_and_the_target(seed):
    bank = rotations(64, 7, np.where(np.arange(64) % 2, 7, 4))
    found = queries(bank, "rotation", 3, seed)
    drawn, asked = found.slots[..., :2], found.asked
    assert asked[1::2].all()
    np.testing.assert_array_equal(asked[::2], np.tile(np.arange(7) < 4, (32, 1)))
    for s, j in np.argwhere(asked):
        assert len({0, j, *drawn[s, j]}) == (4 if j else 3)
        assert drawn[s, j].max() < bank.n_views[s]
        assert found.slots[s, j, 2:].tolist() == [0, j]
    assert set(drawn[1::2, 3].ravel()) == {1, 2, 4, 5, 6}
    np.testing.assert_array_equal(drawn, queries(bank, "rotation", 3, seed).slots[..., :2])
    assert (drawn != queries(bank, "rotation", 3, seed + 1).slots[..., :2]).any()


def test_three_views_are_too_few_for_a_context_of_three():
    asked = queries(rotations(2, 3), "rotation", 3, 0).asked
    assert not asked.any()
    assert queries(rotations(2, 4), "rotation", 3, 0).asked.all()


def test_actions_lead_along_the_context_and_on_to_the_target():
    bank = rotations(3, 5)
    found = queries(bank, "rotation", 3, 0)
    for s in range(3):
        for j in range(5):
            turns = Rotation.from_euler("xyz", bank.params[s, found.slots[s, j]])
            for m in range(3):
                got = Rotation.from_quat(found.actions[s, j, m].numpy())
                assert (got.inv() * (turns[m].inv() * turns[m + 1])).magnitude() < 1e-5


@torch.no_grad()
def test_blind_predictions_are_made_from_the_next_objects_views(run):
    """The third object sees the first one's, which has four views: slots 4 and 5 stand for its 0 and 1."""
    method, bank = load_run(run).method, rotations(3, 6, np.array([4, 6, 6]))
    bank = replace(bank, z=torch.randn(3, 6, 64, generator=torch.Generator().manual_seed(0)))
    asked = queries(bank, "rotation", 3, 0)
    blind = by_aggregate(method, bank, asked, CPU, shift=1)(torch.arange(3))
    for s, j in ((0, 2), (2, 1), (2, 3), (2, 5)):
        of = (s + 1) % 3
        z = bank.z[of, asked.slots[s, j, :3] % bank.n_views[of]][None]
        alone = method.predict(method.aggregate(z, asked.actions[s, j, None, :2]), asked.actions[s, j, None, 2])
        torch.testing.assert_close(blind[s, j], alone[0])


def test_chunks_of_objects_do_not_matter(monkeypatch):
    bank, whole = rotations(9, 6), scores_of(Guessing(), rotations(9, 6))
    monkeypatch.setattr(retrieval, "CPU_QUERIES", 1)
    assert scores_of(Turning(), bank)["mrr"] == 1
    monkeypatch.setattr(retrieval, "CPU_QUERIES", 9 * 6)
    assert scores_of(Guessing(), bank) == whole


def slow_scores(case: EvalContext, embed: Callable, context: int) -> dict[str, float]:
    """Query by query, each view read from the shards by itself."""
    index, method, data = case.stored.split("val"), case.loaded.method, case.loaded.data
    asked = queries(case.splits.val, "rotation", context, 0)

    @cache
    def see(with_what: Callable, s: int, v: int) -> Tensor:
        pixels = torch.from_numpy(index.read_view(s, v)).permute(2, 0, 1)[None]
        return with_what(normalise(pixels, tuple(data.mean), tuple(data.std)))[0]

    reciprocal, reciprocal_moved, hits = [], [], []
    for s, j in np.argwhere(asked.asked):
        *shown, target = asked.slots[s, j]
        z = torch.stack([see(method.embed, s, v) for v in shown])[None]
        actions = torch.from_numpy(
            actions_between(index.params[s, asked.slots[s, j]][None], index.param_names, "rotation")
        )
        predicted = method.predict(method.aggregate(z, actions[:, :-1]), actions[:, -1])[0]
        candidates = torch.stack([see(embed(method), s, v) for v in range(index.n_views[s])])
        order = torch.cosine_similarity(candidates.double(), predicted.double(), dim=-1).argsort(descending=True)
        rank = order.tolist().index(target) + 1
        reciprocal.append(1 / rank)
        hits.append(rank == 1)
        reciprocal_moved += [1 / rank] if j else []
    return {"mrr": np.mean(reciprocal), "mrr_no_identity": np.mean(reciprocal_moved), "h1": np.mean(hits)}


@torch.no_grad()
def test_seq_jepa_agrees_with_a_slow_reference(run, shards):
    case = case_of_run(run, shards)
    for weight in case.loaded.method.target_encoder.parameters():
        weight.mul_(1 + 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    with frozen(case.loaded.method):
        found = RETRIEVAL.take(case)
    kinds = {"": lambda method: method.embed_target, "_online": lambda method: method.embed}
    for name, context in (("retrieval", 1), ("retrieval_3", 3)):
        for kind, embed in kinds.items():
            slow = slow_scores(case, embed, context)
            got = found[name + kind]
            assert {key: got[key] for key in slow} == pytest.approx(slow, abs=1e-9), name + kind
    assert not RETRIEVAL.why_not(case)
    assert found["retrieval"] != found["retrieval_online"]
    for name, score in found["retrieval"].items():
        low, high = found["intervals"]["retrieval"].get(name, (score, score))
        assert low <= score <= high
    whole, moved = (
        [found["intervals"]["retrieval"][f"{name}{mark}"] for name in ("mrr", "h1", "h5")]
        for mark in ("", "_no_identity")
    )
    assert all(a != b for a, b in zip(whole, moved, strict=True))  # without the queries that are the source itself
    assert RETRIEVAL.take(case) == found


def run_of(tmp_path, method: str, condition: str = "both", action: str = "rotation"):
    data = DataInfo(action, 4 if action == "rotation" else 6, (0.4,) * 3, (0.2,) * 3, SIZE, SIZE)
    projector = {} if method == "seq_jepa" else {"projector": (16, 16)}
    model = TINY.model_copy(update={"condition": condition, **projector})
    views = DataConfig(action=action, context=3 if method == "seq_jepa" else 1)
    config = RunConfig(name="tiny", method=method, model=model, data=views)
    return run_directory(tmp_path / method, config, data)


@pytest.mark.parametrize("action", ["rotation", "rotation_colour"])
@pytest.mark.parametrize("method", ["sie", "equimod", "sen", "conditional_byol"])
def test_methods_that_predict_are_ranked_among_their_own_projections(shards, tmp_path, method, action):
    case = case_of_run(run_of(tmp_path, method, action=action), shards)
    assert not RETRIEVAL.why_not(case)
    scores = RETRIEVAL.take(case)
    assert list(scores) == ["retrieval", "intervals"]
    bank, model = case.splits.val, case.loaded.method
    asked = queries(bank, action, 1, 0)
    reciprocal = []
    with torch.no_grad():
        for s, j in np.argwhere(asked.asked):
            y = model.project(bank.z[s, : bank.n_views[s]])
            to = torch.from_numpy(actions_between(bank.params[s, [0, j]][None], bank.param_names, action)[0])
            similarity = torch.cosine_similarity(y.double(), model.predict(y[:1], to).double())
            reciprocal.append(1 / (1 + (similarity > similarity[j]).sum().item()))
    assert scores["retrieval"]["mrr"] == pytest.approx(np.mean(reciprocal), abs=1e-6)


@pytest.mark.parametrize(
    ("method", "condition", "reason"),
    [("vicreg", "both", "no predictor"), ("seq_jepa", "none", "not told"), ("seq_jepa", "aggregator", "not told")],
)
def test_why_not(shards, tmp_path, method, condition, reason):
    case = case_of_run(run_of(tmp_path, method, condition), shards)
    assert reason in RETRIEVAL.why_not(case)


def test_there_is_nothing_to_find_in_single_views(run, shards):
    bank = replace(rotations(4, 3), n_views=np.ones(4, np.int64))
    case = handmade_case(load_run(run), shards, bank, bank)
    assert "one view" in RETRIEVAL.why_not(case)
