"""Runs on augmented whole images, and on stored views that are augmented beside their actions."""

from __future__ import annotations

import json

import pytest
import torch
from train_helpers import (
    assert_same_end,
    make_saliency_shards,
    make_shards,
    metrics,
    tiny_config,
    train_killed_at,
)

import seqjepa
from seqjepa.data.stored import StoredViews
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.checkpoint import load_run
from seqjepa.training.data import build_loader, check_batches, open_training_data
from seqjepa.training.distributed import World
from seqjepa.training.train import train
from shards.errors import ConfigError

AUGMENTED = ["data.augment=equimod", "data.action=augmentation", "optim.epochs=2"]


@pytest.mark.parametrize("maps", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch, maps: bool):
    shards = make_saliency_shards(tmp_path / "set", images=20, maps=maps)
    config = tiny_config(*AUGMENTED, "train.checkpoint_minutes=1e-9")
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    train_killed_at(4, config, shards, tmp_path / "run", monkeypatch)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    info = json.loads((tmp_path / "run/run.json").read_text())["data"]
    assert (info["kind"], info["augment"], info["action_size"]) == ("saliency" if maps else "image", "equimod", 9)
    assert (info["fixating"], info["height"], info["image_width"]) == ({}, 24, 24)


@pytest.mark.parametrize(("action", "size"), [("crop", 4), ("jitter", 4), ("blur", 1), ("augmentation", 9)])
def test_actions_follow_the_setting_and_their_scale_the_fidelity(tmp_path, action: str, size: int):
    shards = make_saliency_shards(tmp_path / "set", images=8)
    batches = []
    for fidelity in ("paper", "author"):
        config = tiny_config("data.augment=equimod", f"data.action={action}", f"fidelity={fidelity}")
        source = open_training_data(shards, config)
        with build_loader(source, config, World(), 0, torch.device("cpu")) as loader:
            batches.append(next(iter(loader.epoch(0))))
    paper, author = batches
    assert source.data.action_size == size
    assert paper.actions.shape == author.actions.shape == (8, 2, size)
    assert torch.equal(paper.views, author.views)
    assert not torch.allclose(paper.actions, author.actions)


def test_a_run_on_views_of_other_colours_resumes_is_read_and_measured(tmp_path, monkeypatch):
    shards, both = make_shards(tmp_path / "set"), ["optim.epochs=2", "train.checkpoint_minutes=1e-9"]
    config = tiny_config(*both, "data.augment=colour")
    train(tiny_config(*both), shards, tmp_path / "as-stored", workers=0, progress=False)
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    train_killed_at(3, config, shards, tmp_path / "run", monkeypatch)
    assert_same_end(tmp_path / "run", tmp_path / "whole")
    assert metrics(tmp_path / "run") != metrics(tmp_path / "as-stored")
    loaded, image = load_run(tmp_path / "run"), torch.zeros(3, 32, 32, dtype=torch.uint8)
    assert (loaded.data.kind, loaded.data.augment, loaded.data.action) == ("views", "colour", "rotation")
    assert seqjepa.load(tmp_path / "run").embed(image).shape == (64,)
    images = make_saliency_shards(tmp_path / "images", images=8, size=32, splits=("train", "test"))
    with pytest.raises(ConfigError, match="holds whole images, the run was trained on stored views"):
        evaluate_run(tmp_path / "run", images, device="cpu")


def test_stored_views_are_checked_once_for_a_loader(tmp_path, monkeypatch):
    """The planner looks at them; for a grid, which builds no loader, check_batches does."""
    checked: list[int] = []
    monkeypatch.setattr(StoredViews, "check", lambda self, index, views: checked.append(views))
    config = tiny_config()
    source = open_training_data(make_shards(tmp_path / "set"), config)
    build_loader(source, config, World(), 0, torch.device("cpu")).close()
    assert checked == [3]
    check_batches(source, config, World())
    assert checked == [3, 3]


@pytest.mark.parametrize(
    ("settings", "images", "message"),
    [
        (["data.augment=simclr"], False, "others between views that are flipped.*set data.augment=colour"),
        (["data.augment=colour"], True, "views with the actions crop, jitter, blur, augmentation.*not 'rotation'"),
        (["data.augment=crop", "data.action=shards"], True, "set data.action to one of these, not 'shards'"),
        (["data.augment=crop", "data.action=crop", "data.order=window"], True, "in no order; set data.order=random"),
    ],
)
def test_augmentations_that_the_shards_cannot_have_are_refused(tmp_path, settings: list[str], images: bool, message):
    shards = make_saliency_shards(tmp_path / "set", images=8) if images else make_shards(tmp_path / "set", objects=8)
    with pytest.raises(ConfigError, match=message):
        train(tiny_config(*settings), shards, tmp_path / "run", workers=0, progress=False)
    assert not (tmp_path / "run").exists()
