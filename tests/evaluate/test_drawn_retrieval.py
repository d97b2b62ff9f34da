"""Retrieval and rollouts among views that are drawn from images: patches at fixations, and augmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_cases import CPU, case_of
from small_runs import PROJECTED, augmented_run_of, build_images, saccade_run_of

from seqjepa.config import EvalConfig
from seqjepa.evaluate.encode import encode_splits
from seqjepa.evaluate.retrieval import RETRIEVAL, queries
from seqjepa.evaluate.rollouts import ROLLOUTS, target_features
from seqjepa.evaluate.studies import EvalContext
from seqjepa.training.checkpoint import load_run
from shards.reader import ShardSet


def drawn_case(run: Path, shards: Path, val_draws: int = 1) -> EvalContext:
    loaded, stored = load_run(run), ShardSet.open(shards)
    protocol = EvalConfig(m_val=(1, 2, 4), probe_epochs=1, val_draws=val_draws, train_draws=1)
    banks = encode_splits(loaded, stored, protocol, CPU, progress=False)
    return case_of(loaded, stored, banks, val_draws=val_draws)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_images(tmp_path_factory.mktemp("images") / "shards", {"train": 12, "test": 9}, maps="none")


@pytest.mark.parametrize("val_draws", [1, 2])
def test_target_features_are_of_the_very_patches_that_were_probed(saccade_run, saccade_shards, val_draws):
    case = drawn_case(saccade_run, saccade_shards, val_draws)
    method = case.loaded.method
    method.target_encoder.load_state_dict(method.encoder.state_dict())  # then both see the same in the same patch
    torch.testing.assert_close(target_features(case), case.splits.val.z)
    assert case.splits.val.z.shape[:2] == (24, 5 * val_draws)


@torch.no_grad()
def test_patches_are_looked_for_where_the_eye_went(saccade_run, saccade_shards):
    """Query by query: from the first patch and the way to patch j, which patch of the image is it?"""
    case = drawn_case(saccade_run, saccade_shards)
    assert not RETRIEVAL.why_not(case)
    found = RETRIEVAL.take(case)
    method, bank, targets = case.loaded.method, case.splits.val, target_features(case)
    ranks = np.zeros((len(bank), 5), int)
    for s, j in np.ndindex(*ranks.shape):
        way = torch.from_numpy(bank.params[s, j] - bank.params[s, 0])[None]
        z_agg = method.aggregate(bank.z[s, :1][None], torch.zeros(1, 0, 2))
        predicted = method.predict(z_agg, way).double()
        order = torch.cosine_similarity(targets[s].double(), predicted).argsort(descending=True)
        ranks[s, j] = 1 + order.tolist().index(j)
    scores = found["retrieval"]
    assert scores["mrr"] == pytest.approx((1 / ranks).mean(), abs=1e-9)
    assert scores["h1_no_identity"] == pytest.approx((ranks[:, 1:] == 1).mean())
    assert scores["mrr_chance"] == pytest.approx((1 / np.arange(1, 6)).mean())
    assert scores["queries"] == 24 * 5
    assert {"retrieval_3", "retrieval_online", "intervals"} <= set(found)


def test_rollouts_follow_a_scanpath(saccade_run, saccade_shards):
    case = drawn_case(saccade_run, saccade_shards, val_draws=2)
    assert not ROLLOUTS.why_not(case)
    scores = ROLLOUTS.take(case)["rollout"]
    assert (scores["context"], scores["queries"]) == (3, 2 * 24)  # two fixed scanpaths of each image
    assert list(scores["mrr"]) == ["1", "2"]
    assert scores["mrr_chance"] == pytest.approx((1 / np.arange(1, 11)).mean())  # among the patches of both


@pytest.mark.parametrize("method", ["seq_jepa", "equimod"])
def test_augmented_views_are_looked_for_by_what_was_done_to_them(images, tmp_path, method):
    two_views = {"model": PROJECTED, "context": 1}
    run = augmented_run_of(tmp_path / "run", method=method, **(two_views if method == "equimod" else {}))
    case = drawn_case(run, images)
    assert not RETRIEVAL.why_not(case)
    scores = RETRIEVAL.take(case)["retrieval"]
    assert scores["queries"] == 9 * 5
    assert 1 / 5 <= scores["mrr"] <= 1
    asked = queries(case.splits.val, "augmentation", 1, 0)
    assert not asked.actions[:, 0].any()  # the identity
    assert asked.actions[:, 1:].abs().sum(-1).min() > 0


def test_released_actions_of_augmentations_do_not_stand_alone(images, tmp_path):
    case = drawn_case(augmented_run_of(tmp_path / "author", "author"), images)
    for study in (RETRIEVAL, ROLLOUTS):
        assert "depend on which views" in study.why_not(case)


def test_conv_jepa_is_asked_too(saccade_shards, tmp_path):
    case = drawn_case(saccade_run_of(tmp_path / "conv", method="conv_jepa", model=PROJECTED), saccade_shards)
    scores = RETRIEVAL.take(case)
    assert scores["retrieval"]["queries"] == 24 * 5
    assert "seq-JEPA" in ROLLOUTS.why_not(case)
    untold = saccade_run_of(
        tmp_path / "untold", method="conv_jepa", model=PROJECTED.model_copy(update={"condition": "none"})
    )
    assert RETRIEVAL.why_not(drawn_case(untold, saccade_shards)) == "the predictor is not told the action"
