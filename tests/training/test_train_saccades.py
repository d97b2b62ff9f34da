"""Runs on patches at fixations: exact resume, what they leave, the ablations, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import SACCADES, Killed, killed_at, make_saliency_shards, make_shards, metrics, tiny_config

from seqjepa.data.fixations import Fixating
from seqjepa.training.checkpoint import load_run
from seqjepa.training.data import build_loader, open_training_data, pixel_stats
from seqjepa.training.distributed import World
from seqjepa.training.run import DataInfo
from seqjepa.training.train import train
from shards.errors import ConfigError
from shards.reader import ShardSet

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_saliency_shards(tmp_path_factory.mktemp("saliency") / "set")


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory) -> Path:
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_config(*SACCADES), shards, out, workers=0, progress=False)
    return out


@pytest.mark.parametrize(
    "settings", [[], pytest.param(["method=conv_jepa", "model.projector=[32,16]"], marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("every", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_every_step_a_run_ends_with_the_same_bits(
    shards, tmp_path, monkeypatch, settings: list[str], every: int
):
    config = tiny_config(*SACCADES, *settings, "optim.epochs=2")
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    killed_at(monkeypatch, *range(1, 6, every))
    often = config.model_copy(update={"train": config.train.model_copy(update={"checkpoint_minutes": 1e-9})})
    for workers in (0, 1, 0, 0, 0)[: len(range(1, 6, every))]:
        with pytest.raises(Killed):
            train(often, shards, tmp_path / "run", workers=workers, progress=False)
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("run", "whole")]
    assert weights[0] == weights[1]


def test_a_run_trains_on_unlabelled_images_and_remembers_how(whole: Path):
    info = json.loads((whole / "run.json").read_text())
    assert (info["shards"]["split"], info["data"]["split"], info["data"]["kind"]) == (
        "unlabeled",
        "unlabeled",
        "saliency",
    )
    config, _, data, _ = load_run(whole)
    assert Fixating(**data.fixating) == Fixating(patch=8) == Fixating(**{**data.fixating, "patch": config.data.patch})
    assert (data.patch, data.height, data.width, data.image_height, data.image_width) == (8, 8, 8, 24, 24)
    assert (data.action, data.action_size) == ("position", 2)
    assert "probe_top1" not in metrics(whole)[-1]
    assert "probe_r2" in metrics(whole)[-1]


def test_a_run_of_an_earlier_version_is_of_whole_stored_views(tmp_path):
    old = {"action": "rotation", "action_size": 4, "mean": [0.5] * 3, "std": [0.2] * 3, "height": 8, "width": 8}
    data = DataInfo(**old)
    assert (data.kind, data.split, data.patch, data.augment) == ("views", "train", 0, "none")
    train(
        tiny_config("optim.epochs=1"), make_shards(tmp_path / "s", objects=8), tmp_path / "r", workers=0, progress=False
    )
    info = json.loads((tmp_path / "r/run.json").read_text())
    info["data"] = {k: v for k, v in info["data"].items() if k in old}
    (tmp_path / "r/run.json").write_text(json.dumps(info))
    assert load_run(tmp_path / "r").data.kind == "views"


def test_labels_reach_the_online_probe_where_there_are_some(shards, tmp_path):
    summary = train(
        tiny_config(*SACCADES, "data.split=train", "optim.epochs=1"), shards, tmp_path / "r", workers=0, progress=False
    )
    assert 0 <= summary["probe_top1"] <= 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.inhibition=none", {"inhibition": "none"}),
        ("data.fixations=uniform", {"fixations": "uniform"}),
        ("data.fill=mean", {"fill": "mean"}),
        ("fidelity=author", {"fidelity": "author", "inhibition": "square"}),
    ],
)
def test_settings_reach_the_patches(shards, override: str, expected: dict[str, str]):
    first = {}
    for settings in ([], [override]):
        config = tiny_config(*SACCADES, "data.context=7", *settings)
        source = open_training_data(shards, config)
        with build_loader(source, config, World(), 0, CPU) as loader:
            first[bool(settings)] = next(iter(loader.epoch(0)))
    assert source.data.fixating == asdict(Fixating(patch=8)) | expected
    before, after = first[False], first[True]
    assert before.keys == after.keys
    assert not torch.equal(before.views, after.views)
    if override == "data.fill=mean":
        assert torch.equal(before.actions, after.actions)
        black = (before.views == 0) & (after.views != 0)
        mean = 255 * np.array(source.data.mean)
        for channel in range(3):
            seen = after.views[:, :, channel][black[:, :, channel]].float()
            assert (seen - mean[channel]).abs().max() <= 1


def test_published_constants_of_normalisation(shards):
    info = ShardSet.open(shards).info
    stl10 = pixel_stats(info, tiny_config("data.normalisation=stl10"))
    assert stl10 == ((0.4467, 0.4398, 0.4066), (0.2241, 0.2215, 0.2239))
    imagenet = pixel_stats(info, tiny_config("data.normalisation=imagenet"))
    assert imagenet == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert pixel_stats(info, tiny_config()) == tuple(tuple(info.normalisation[k]) for k in ("mean", "std"))


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ([], r"holds whole images of 24×24; set data\.patch=24 and data\.action=position"),
        (["data.patch=25", "data.action=position"], r"24×24, smaller than data\.patch = 25; set at most 24"),
        ([*SACCADES, "data.image_size=96"], r"holds 24×24 images, the recipe wants 96×96.*--set data\.image_size=24"),
        ([*SACCADES, "data.split=val"], r"no split 'val' to train on; set data\.split to one of .*train.*unlabeled"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(shards, tmp_path, overrides: list[str], match: str):
    with pytest.raises(ConfigError, match=match) as caught:
        train(tiny_config(*overrides), shards, tmp_path / "run", workers=0, progress=False)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_patches_need_images_and_maps_and_all_is_said_at_once(tmp_path):
    views = make_shards(tmp_path / "views", objects=8)
    with pytest.raises(
        ConfigError, match=r"holds stored views.*set data\.patch=0.*32×32 views, the recipe wants 24×24"
    ):
        open_training_data(views, tiny_config(*SACCADES))
    images = make_saliency_shards(tmp_path / "images", images=8, maps=False)
    with pytest.raises(ConfigError, match=r"without saliency maps.*data\.fixations=uniform"):
        open_training_data(images, tiny_config(*SACCADES))
    uniform = tiny_config(*SACCADES, "data.fixations=uniform", "optim.epochs=1")
    assert train(uniform, images, tmp_path / "run", workers=0, progress=False)["samples"] == 8
