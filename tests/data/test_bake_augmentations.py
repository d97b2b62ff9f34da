"""Baked augmentations: the same views, parameters and actions as on the fly, and the constants that scale them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from bake_sources import build_source
from loaders import assert_same, augmented_loader, stored_loader
from typer.testing import CliRunner

import seqjepa
from seqjepa.commands.bake import bake_command
from seqjepa.data.augment.parameters import constants_for, stored_scaling
from seqjepa.data.augment.recipes import RECIPES, build_recipe
from seqjepa.data.bake import Baking, bake
from shards.console import new_app
from shards.errors import ConfigError, FormatError
from shards.reader import ShardSet
from shards.verify import verify

EQUIMOD = RECIPES["equimod"]
NINE = [
    *(("crop_top", "px"), ("crop_left", "px"), ("crop_height", "px"), ("crop_width", "px")),
    *(("brightness", "1"), ("contrast", "1"), ("saturation", "1"), ("hue", "turn"), ("blur_sigma", "px")),
]


@pytest.fixture
def source(tmp_path):
    return build_source(tmp_path / "source", "none", size=(20, 20))


@pytest.mark.parametrize(
    ("saliency", "normalisation"),
    [
        ("none", "zscore"),
        ("log8", "author"),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("none", "author"), ("log8", "zscore"))),
    ],
)
def test_baked_and_augmented_on_the_fly_is_the_same(tmp_path, monkeypatch, saliency, normalisation):
    source = build_source(tmp_path / "source", saliency, size=(20, 20))
    monkeypatch.setattr("seqjepa.data.bake._MOST_IN_A_SHARD", 8)  # several shards, none of them a batch
    info = bake(source, tmp_path / "baked", Baking(2, 4, EQUIMOD, seed=9))
    baked_index = ShardSet.open(tmp_path / "baked").split("train")
    for action in ("crop", "jitter", "blur", "augmentation"):
        settings: dict[str, Any] = {"views": 4, "action": action, "batch_size": 5, "seed": 9, "workers": 0}
        settings["normalisation"] = normalisation
        online = augmented_loader(ShardSet.open(source).images("train"), EQUIMOD, **settings)
        baked = stored_loader(baked_index, scaling=stored_scaling(info), **settings)
        for epoch in range(2):
            for a, b in zip(online.epoch(epoch), baked.epoch(epoch), strict=True):
                assert_same(a, b)
    assert verify(tmp_path / "baked", progress=False).ok


@pytest.mark.parametrize("normalisation", ["zscore", "author"])
def test_a_webdataset_pipeline_has_the_loaders_sequences(source, tmp_path, normalisation):
    info = bake(source, tmp_path / "baked", Baking(2, 4, EQUIMOD, seed=9))
    index = ShardSet.open(tmp_path / "baked").split("train")
    settings: dict[str, Any] = {"views": 4, "action": "augmentation", "batch_size": len(index), "seed": 9, "workers": 0}
    loader = stored_loader(index, scaling=stored_scaling(info), normalisation=normalisation, **settings)
    for epoch in range(2):
        batch = next(loader.epoch(epoch))
        pipeline = seqjepa.webdataset(tmp_path / "baked", epoch=epoch, normalisation=normalisation)
        found = {item["keys"]: item for item in pipeline}
        assert set(found) == set(batch.keys)
        for i, key in enumerate(batch.keys):
            for name in ("views", "actions", "params", "labels"):
                assert torch.equal(found[key][name], getattr(batch, name)[i]), name


def test_the_last_view_of_each_sequence_is_the_targets(source, tmp_path):
    """By what is stored: equimod blurs every view but the target, which it blurs one time in ten."""
    info = bake(source, tmp_path / "baked", Baking(10, 3, EQUIMOD))
    index = ShardSet.open(tmp_path / "baked").split("train")
    assert [(field.name, field.unit) for field in info.spec.params] == NINE
    assert (info.spec.views, info.spec.sequence, info.spec.height) == (30, 3, 20)
    blurred = index.params[..., 8].reshape(21, 10, 3) > 0
    assert blurred[..., :2].all()
    assert 0 < blurred[..., 2].mean() < 0.2


def test_a_recipe_of_ones_own_is_noted_with_the_constants_of_its_parameters(source, tmp_path):
    recipe = build_recipe("simclr", {"scale": None}, {"blur": 0.0})
    info = bake(source, tmp_path / "baked", Baking(1, 2, recipe), splits=["test"])
    record = ShardSet.open(tmp_path / "baked").info.provenance["baked"]
    assert record["augmenting"]["recipe"] == "custom"
    assert "scale" not in record["augmenting"]["observation"]
    assert record["augmenting"]["target"]["scale"] == [0.2, 1.0]
    assert stored_scaling(info) == constants_for(recipe, 20, 20)
    params = ShardSet.open(tmp_path / "baked").split("test").params
    assert (params[:, 0, :4] == (0, 0, 20, 20)).all()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_views_and_parameters_by_itself(source, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    bake(source, tmp_path / "baked", Baking(2, 2, EQUIMOD, seed=4))
    index = ShardSet.open(tmp_path / "baked").split("train")
    urls = [str(path) for path in index.shard_paths]
    for row, record in enumerate(webdataset.WebDataset(urls, shardshuffle=False).decode()):
        assert record["params.npy"].shape == (4, 9)
        assert np.array_equal(record["params.npy"], index.params[row])
        for view in range(4):
            assert np.array_equal(record[f"{view:02d}.npy"], index.read_view(row, view))


def test_a_loader_refuses_what_would_not_be_the_same(source, tmp_path):
    info = bake(source, tmp_path / "baked", Baking(2, 4, EQUIMOD))
    index, scaling = ShardSet.open(tmp_path / "baked").split("train"), stored_scaling(info)
    settings: dict[str, Any] = {"action": "crop", "batch_size": 4, "seed": 0, "workers": 0}
    with pytest.raises(ConfigError, match=r"whose last view is the target: use 4 views .*or bake with --views 3"):
        stored_loader(index, views=3, scaling=scaling, **settings)
    with pytest.raises(ConfigError, match=r"sequences of 5 views were asked for.*holds sequences of 4"):
        stored_loader(index, views=5, scaling=scaling, **settings)
    with pytest.raises(ConfigError, match="action 'crop' needs the constants that scale"):
        stored_loader(index, views=4, **settings)
    with pytest.raises(ConfigError, match="there is no normalisation 'l2' of actions; there are: zscore, author"):
        stored_loader(index, views=4, normalisation="l2", **settings)
    with pytest.raises(ConfigError, match="no parameter x, y; they have: crop_top"):
        stored_loader(index, views=4, **(settings | {"action": "position"}))


def test_constants_that_were_tampered_with_are_refused_when_the_set_is_opened(source, tmp_path):
    info = bake(source, tmp_path / "baked", Baking(1, 2, EQUIMOD), splits=["test"])
    changed = json.loads(json.dumps(info.fingerprint))
    changed["augmenting"]["scaling"]["std"][3] = 0
    with pytest.raises(FormatError, match=r"unusable .*std of 0\.0.*bake the set again"):
        stored_scaling(replace(info, fingerprint=changed))


def run(*arguments: str):
    app = new_app("test")
    app.command("bake")(bake_command)
    app.command("other")(lambda: None)
    return CliRunner().invoke(app, ["bake", *arguments])


def test_the_command_augments_and_says_what_does_not_go_together(source, tmp_path):
    arguments = [str(source), "--out", str(tmp_path / "b"), "--sequences", "2", "--views", "2"]
    oblong = build_source(tmp_path / "oblong", "none")
    for first, extra, message in (
        (source, ["--augment", "equimode"], "there is no augmentation recipe 'equimode'; there are: equimod, simclr"),
        (source, ["--augment", "equimod", "--patch", "8"], "--patch is for patches, --augment equimod for"),
        (source, ["--augment", "simclr", "--fill", "mean", "--inhibition", "disc"], "--inhibition, --fill is for"),
        (source, ["--augment", "equimod", "--sequences", "600"], "600 sequences of 2 views"),
        (oblong, ["--augment", "equimod"], "20×24 pixels and augmented views are square; shard them with --size"),
        (source, [], "holds images without saliency maps"),
    ):
        refused = run(str(first), *arguments[1:], *extra)
        assert refused.exit_code == 2, refused.output
        assert message in refused.output
        assert len(refused.output.strip().splitlines()) == 1
        assert not (tmp_path / "b").exists()
    done = run(*arguments, "--augment", "equimod", "--split", "test", "--seed", "3")
    assert done.exit_code == 0, done.output
    assert ShardSet.open(tmp_path / "b").info.fingerprint["augmenting"]["recipe"] == "equimod"
    refused = run(str(tmp_path / "b"), "--out", str(tmp_path / "c"), "--sequences", "1", "--augment", "equimod")
    assert (refused.exit_code, len(refused.output.strip().splitlines())) == (2, 1)
    assert "holds views shards" in refused.output
