"""ContextSSL through the trainer: from shards to weights, interrupted, and in two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_helpers import make_shards, metrics, tiny_config

from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.training.learner import Learner
from seqjepa.training.train import train
from shards.errors import ConfigError

SETTINGS = [
    "method=context_ssl", "data.context=1", "data.action=rotation_colour", "optim.optimizer=adam", "optim.epochs=2",
    "context_ssl.width=32", "context_ssl.pairs=4", "context_ssl.mask=0.5",
]  # fmt: skip


def test_it_trains_and_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch):
    shards, config = make_shards(tmp_path / "set", 22), tiny_config(*SETTINGS)
    summary = train(config, shards, tmp_path / "whole", workers=0, progress=False)
    assert summary["status"] == "finished"
    assert summary["probe_r2"] <= 1
    update = Learner.update

    def stopped(self, seq, step, *rest):
        if step == 4:
            raise KeyboardInterrupt
        return update(self, seq, step, *rest)

    saving = config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_minutes": 1e-9})})
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(saving, shards, tmp_path / "parts", workers=0, progress=False)
    train(config, shards, tmp_path / "parts", workers=0, progress=False)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")


def test_two_processes_learn_what_one_learns(two_ranks, tmp_path: Path):
    """Eight pairs in two sequences, one a rank; the draws are those of rank 0."""
    shards = make_shards(tmp_path / "set", 24)
    train(tiny_config(*SETTINGS), shards, tmp_path / "one", workers=0, progress=False)
    done = two_ranks(shards, tmp_path / "two", SETTINGS)
    assert [code for code, _ in done] == [0, 0], done
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert two["z_std"] == pytest.approx(one["z_std"], abs=1e-3)


def test_shards_with_other_parameters_are_refused(tmp_path: Path, monkeypatch):
    shards = make_shards(tmp_path / "set", 8)
    monkeypatch.setattr(ContextSSL, "params_needed", ("rot_x", "rot_y", "rot_z"))
    with pytest.raises(ConfigError, match="context_ssl needs rot_x, rot_y, rot_z"):
        train(tiny_config(*SETTINGS), shards, tmp_path / "run", workers=0, progress=False)
    assert not (tmp_path / "run").exists()
