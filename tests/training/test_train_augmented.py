"""Runs on augmented whole images."""

from __future__ import annotations

import json

import pytest
import torch
from train_helpers import Killed, killed_at, make_saliency_shards, metrics, tiny_config

from seqjepa.training.data import build_loader, open_training_data
from seqjepa.training.distributed import World
from seqjepa.training.train import train

AUGMENTED = ["data.augment=equimod", "data.action=augmentation", "optim.epochs=2"]


@pytest.mark.parametrize("maps", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch, maps: bool):
    shards = make_saliency_shards(tmp_path / "set", images=20, maps=maps)
    config = tiny_config(*AUGMENTED, "train.checkpoint_minutes=1e-9")
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    killed_at(monkeypatch, 2, 4)
    for _ in range(2):
        with pytest.raises(Killed):
            train(config, shards, tmp_path / "run", workers=0, progress=False)
    train(config, shards, tmp_path / "run", workers=0, progress=False)
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
