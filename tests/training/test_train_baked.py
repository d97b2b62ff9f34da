"""Runs on baked sequences: the same as on the fly, for as many epochs as there are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loaders import stored_loader
from train_helpers import make_saliency_shards, metrics, tiny_config

import seqjepa
from seqjepa.config import EvalConfig
from seqjepa.data.actions import actions_between
from seqjepa.data.augment.parameters import scaled, stored_scaling
from seqjepa.data.augment.recipes import RECIPES
from seqjepa.data.bake import Baking, bake
from seqjepa.data.draws import Purpose
from seqjepa.embedding.request import Asked
from seqjepa.embedding.run import embed_run
from seqjepa.evaluate.encode import encode_splits
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.errors import ConfigError
from shards.reader import ShardSet

COMMON = ["data.action=augmentation", "data.normalisation=cifar100", "optim.epochs=2", "seed=5"]


@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_a_run_on_baked_augmentations_is_the_run_on_the_images(tmp_path, fidelity: str):
    images = make_saliency_shards(tmp_path / "set", images=20, maps=False)
    bake(images, tmp_path / "baked", Baking(2, 3, RECIPES["equimod"], seed=5), workers=0)
    common = [*COMMON, f"fidelity={fidelity}"]
    online, baked = tiny_config("data.augment=equimod", *common), tiny_config("data.augment=none", *common)
    train(online, images, tmp_path / "online", workers=0, progress=False)
    train(baked, tmp_path / "baked", tmp_path / "run", workers=0, progress=False)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "online")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.augment=equimod"], "set data.augment=none"),
        (["data.context=1"], r"use 3 views \(data.context = 2\)"),
        (["data.image_size=32"], "data.image_size=24"),
        (["data.action=rotation"], "no parameter rot_x"),
    ],
)
def test_what_does_not_fit_a_baked_set_says_what_to_set(tmp_path, changes: list[str], message: str):
    images = make_saliency_shards(tmp_path / "set", images=20, maps=False)
    bake(images, tmp_path / "baked", Baking(1, 3, RECIPES["equimod"]), workers=0)
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(*COMMON, *changes), tmp_path / "baked", tmp_path / "run", workers=0, progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_evaluation_scales_the_actions_of_a_baked_set_as_training_did(tmp_path, fidelity: str):
    images = make_saliency_shards(tmp_path / "set", images=20, splits=("train", "test"), maps=False)
    bake(images, tmp_path / "baked", Baking(1, 3, RECIPES["equimod"], seed=5), workers=0)
    config = tiny_config(*COMMON[:2], "data.augment=none", "optim.epochs=1", f"fidelity={fidelity}")
    train(config, tmp_path / "baked", tmp_path / "run", workers=0, progress=False)
    stored, protocol = (
        ShardSet.open(tmp_path / "baked"),
        EvalConfig(m_val=(1, 2), probe_epochs=2),
    )
    banks = encode_splits(load_run(tmp_path / "run"), stored, protocol, torch.device("cpu"), False)
    slots = banks.train.draw(0, 0, Purpose.EVALUATION, 3)
    with stored_loader(
        stored.split("train"), views=3, action="augmentation", batch_size=20, seed=5, workers=0, shuffle=False,
        normalisation="author" if fidelity == "author" else "zscore", scaling=stored_scaling(stored.info),
    ) as loader:  # fmt: skip
        trained_on = next(loader.epoch(0)).actions
    torch.testing.assert_close(banks.train.actions(slots, "augmentation"), trained_on, rtol=0, atol=0)
    embed_run(tmp_path / "run", tmp_path / "f.npz", Asked(shards=tmp_path / "baked"), device="cpu", progress=False)
    scale = scaled("augmentation", None if fidelity == "author" else stored_scaling(stored.info))
    with np.load(tmp_path / "f.npz") as npz:
        rows = npz["z_agg_rows"]
        actions = torch.from_numpy(actions_between(npz["params"][rows], npz["param_names"].tolist(), scale))
        expected = seqjepa.load(tmp_path / "run", "cpu").method.aggregate(torch.from_numpy(npz["z"][rows]), actions)
        torch.testing.assert_close(torch.from_numpy(npz["z_agg"]), expected, rtol=1e-4, atol=1e-5)


def test_a_run_on_baked_augmentations_is_probed_as_one_on_the_images(tmp_path):
    """The last view of a sequence is the target: pairs are of it and of the first, and z_AGG leaves it out."""
    images = make_saliency_shards(tmp_path / "set", images=20, splits=("train", "test"), maps=False)
    bake(images, tmp_path / "baked", Baking(1, 3, RECIPES["equimod"], seed=5), workers=0)
    config = tiny_config(*COMMON[:2], "data.augment=none", "optim.epochs=1")
    train(config, tmp_path / "baked", tmp_path / "run", workers=0, progress=False)
    found = evaluate_run(
        tmp_path / "run", tmp_path / "baked", device="cpu", m_val=(1, 2, 3), probe_epochs=2, progress=False
    )
    assert {f"r2_{part}_avg" for part in ("crop", "jitter", "blur")} <= set(found)
    assert list(found["top1_agg"]) == ["1", "2"]
    account = found["protocol"]
    assert account["trained_epochs"] == account["epochs"] == 1
    assert account["skipped"] == {"top1_agg.3": "needs 4 views, a sample has 3"}
    assert account["augmenting"]["r2_pairs"] == "an observation view and a target view"
    assert account["augmenting"]["recipe"] == "as baked"
