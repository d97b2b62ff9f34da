"""data.fraction: a run on a part of the training split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from train_helpers import make_saliency_shards, make_shards, metrics, tiny_config

from seqjepa.training.train import train
from shards.errors import ConfigError, UsageError


def fit(shards: Path, out: Path, *settings: str) -> dict:
    return train(tiny_config("optim.epochs=1", *settings), shards, out, device="cpu", workers=0, progress=False)


def test_an_epoch_is_as_long_as_the_part_and_the_shards_stay_known(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards", objects=32)
    assert fit(shards, tmp_path / "whole")["steps"] == 4
    assert fit(shards, tmp_path / "half", "data.fraction=0.5")["steps"] == 2
    assert metrics(tmp_path / "whole") != metrics(tmp_path / "half")
    whole, half = (json.loads((tmp_path / run / "run.json").read_text()) for run in ("whole", "half"))
    assert whole["shards"] == half["shards"]
    with pytest.raises(UsageError, match=r"data\.fraction 0\.5 there, 0\.25 asked"):
        fit(shards, tmp_path / "half", "data.fraction=0.25")


def test_saccades_on_a_part(tmp_path: Path) -> None:
    shards = make_saliency_shards(tmp_path / "shards", images=32)
    saccades = ["data.patch=8", "data.action=position", "data.image_size=24"]
    assert fit(shards, tmp_path / "run", "data.fraction=0.5", *saccades)["steps"] == 2


def test_a_part_too_small_to_train_on_and_an_impossible_one_are_said(tmp_path: Path) -> None:
    shards = make_shards(tmp_path / "shards")
    with pytest.raises(ConfigError, match="1 training samples; a batch takes 2 or more"):
        fit(shards, tmp_path / "run", "data.fraction=0.01")
    with pytest.raises(ConfigError, match=r"data\.fraction = 0 "):
        tiny_config("data.fraction=0")
    assert not (tmp_path / "run").exists()
