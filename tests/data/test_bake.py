"""Baked sets: the same sequences as on the fly, resumable, open to strangers."""

from __future__ import annotations

import numpy as np
import pytest
import simplejpeg
import torch
from bake_sources import build_source
from loaders import assert_same, patch_loader, stored_loader
from typer.testing import CliRunner

from seqjepa.commands.bake import _how, bake_command
from seqjepa.data.bake import Baking, bake
from seqjepa.data.fixations import Fixating
from seqjepa.recipes import load_recipe
from seqjepa.training.data import fixating
from shards.console import new_app
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet
from shards.saliency_map import encode_map
from shards.sample import MapSample
from shards.schema import MapSpec, ViewSpec
from shards.verify import verify
from shards.writer import SetBuilder

HOW = Fixating(patch=6)


@pytest.fixture
def source(tmp_path):
    return build_source(tmp_path / "source")


@pytest.mark.parametrize(
    "how", [HOW, Fixating(patch=6, fidelity="author", inhibition="square"), Fixating(patch=6, fill="mean")]
)
def test_training_on_a_baked_set_sees_what_training_on_the_fly_sees(tmp_path, monkeypatch, how):
    source = build_source(tmp_path / "source", size=(24, 24) if how.fidelity == "author" else (20, 24))
    monkeypatch.setattr("seqjepa.data.bake._MOST_IN_A_SHARD", 8)  # several shards, none of them a batch
    info = bake(source, tmp_path / "baked", Baking(3, 4, how, seed=9))
    mean = ShardSet.open(source).info.normalisation["mean"]
    settings = {"action": "position", "batch_size": 5, "seed": 9, "workers": 0}
    for views in (4, 2):
        online = patch_loader(ShardSet.open(source).images("train"), how, views=views, mean=mean, **settings)
        baked = stored_loader(ShardSet.open(tmp_path / "baked").split("train"), views=views, **settings)
        for epoch in range(3):
            for a, b in zip(online.epoch(epoch), baked.epoch(epoch), strict=True):
                assert_same(a, b)
    assert isinstance(info.spec, ViewSpec)
    assert info.spec.sequence == 4
    assert verify(tmp_path / "baked", progress=False).ok


def test_after_the_last_sequence_comes_the_first(source, tmp_path):
    bake(source, tmp_path / "baked", Baking(2, 3, HOW))
    index = ShardSet.open(tmp_path / "baked").split("test")
    loader = stored_loader(index, views=3, action="position", batch_size=3, seed=0, workers=0, shuffle=False)
    params = [next(loader.epoch(epoch)).params for epoch in range(4)]
    assert torch.equal(params[0], params[2])
    assert torch.equal(params[1], params[3])
    assert not torch.equal(params[0], params[1])


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_a_baked_set_by_itself(source, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    bake(source, tmp_path / "baked", Baking(2, 3, HOW, seed=4))
    index = ShardSet.open(tmp_path / "baked").split("train")
    urls = [str(path) for path in index.shard_paths]
    records = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [record["__key__"] for record in records] == index.keys
    for row, record in enumerate(records):
        assert np.array_equal(record["params.npy"], index.params[row])
        assert record["cls"] == index.labels[row]
        for view in range(6):
            assert np.array_equal(record[f"{view:02d}.npy"], index.read_view(row, view))


def test_jpeg_views_are_close_and_their_error_is_noted(source, tmp_path):
    raw = bake(source, tmp_path / "raw", Baking(1, 2, HOW))
    info = bake(source, tmp_path / "jpeg", Baking(1, 2, HOW, encoding="jpeg"))
    assert "psnr_db" not in raw.provenance
    assert 20 < info.provenance["psnr_db"] < 60  # of noise, the worst there is
    index = ShardSet.open(tmp_path / "jpeg").split("train")
    decoded = simplejpeg.decode_jpeg(index.read_bytes(0, 1))
    assert np.array_equal(decoded, index.read_view(0, 1))


def test_an_interrupted_bake_goes_on_and_ends_the_same(source, tmp_path, monkeypatch):
    import seqjepa.data.bake as module

    monkeypatch.setattr("seqjepa.data.bake._MOST_IN_A_SHARD", 4)
    baking, calls = Baking(2, 2, HOW), []
    bake(source, tmp_path / "whole", baking, workers=0)
    real = module._bake_shard

    def stop_at_the_third(builder, number, *rest):
        calls.append(number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(builder, number, *rest)

    monkeypatch.setattr(module, "_bake_shard", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        bake(source, tmp_path / "baked", baking, workers=0)
    assert not (tmp_path / "baked" / "_meta" / "dataset.json").exists()
    bake(source, tmp_path / "baked", baking, workers=0)
    assert calls == [0, 1, 2, 2, 3, 4, 5, 0]
    bake(source, tmp_path / "baked", baking, workers=0)  # finished: nothing to do
    assert len(calls) == 8
    for path in (tmp_path / "whole").rglob("*.tar"):
        assert path.read_bytes() == (tmp_path / "baked" / path.name).read_bytes()


def test_provenance_says_what_was_baked_from_what(source, tmp_path):
    info = bake(source, tmp_path / "baked", Baking(2, 3, HOW, seed=4), splits=["test"])
    record = info.provenance["baked"]
    assert list(info.splits) == ["test"]
    assert record["source"] == "images"
    assert record["source_splits"] == {"test": ShardSet.open(source).images("test").fingerprint()}
    assert record["fixating"] == {**vars(HOW)}
    assert (record["sequences"], record["views"], record["seed"]) == (2, 3, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequences": 0}, "0 sequences of 5 views"),
        ({"sequences": 201}, "201 sequences of 5 views; allowed .* at most 1000 views"),
        ({"encoding": "png"}, "encoding is 'png'; allowed are raw, jpeg"),
    ],
)
def test_what_cannot_be_stored_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        Baking(**({"sequences": 2, "views": 5, "how": HOW} | changes))


def test_bad_requests_leave_no_folder(source, tmp_path):
    bare = build_source(tmp_path / "bare", "none")
    for shards, how, splits, message in (
        (source, Fixating(patch=21), (), "patches of 21 pixels do not fit images of 20×24"),
        (source, Fixating(patch=6, fidelity="author", fill="mean"), (), "are fractions"),
        (bare, HOW, (), "holds images without saliency maps"),
        (source, HOW, ("val",), "has no split 'val'"),
        (tmp_path, HOW, (), "."),
    ):
        with pytest.raises(UsageError, match=message):
            bake(shards, tmp_path / "out", Baking(1, 2, how), splits=splits)
        assert not (tmp_path / "out").exists()
    with SetBuilder(tmp_path / "maps", name="maps", spec=MapSpec("log8"), classes=(), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as writer:
            writer.add(MapSample("a", encode_map(np.ones((8, 8)), "log8"), 8, 8))
        builder.finish({"command": "test"})
    with pytest.raises(ConfigError, match=r"maps holds saliency maps without images; shard the images with them"):
        bake(tmp_path / "maps", tmp_path / "out", Baking(1, 2, HOW))
    assert not (tmp_path / "out").exists()
    bake(bare, tmp_path / "uniform", Baking(1, 2, Fixating(patch=6, fixations="uniform")))
    with pytest.raises(ConfigError, match="holds views shards, this needs saliency"):
        bake(tmp_path / "uniform", tmp_path / "out", Baking(1, 2, HOW))


def test_the_command_bakes_and_says_what_is_there(source, tmp_path):
    app = new_app("test")
    app.command("bake")(bake_command)
    app.command("other")(lambda: None)
    arguments = ["bake", str(source), "--out", str(tmp_path / "b"), "--sequences", "2", "--views", "3", "--patch", "6"]
    done = CliRunner().invoke(app, [*arguments, "--split", "test"])
    assert done.exit_code == 0, done.output
    assert "images-baked" in done.output
    assert ShardSet.open(tmp_path / "b").split("test").sequence == 3
    words = ShardSet.open(tmp_path / "b").info.provenance["command"].split()
    again = CliRunner().invoke(app, ["bake", str(source), *words[3:], "--out", str(tmp_path / "again")])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again/test-000000.tar").read_bytes() == (tmp_path / "b/test-000000.tar").read_bytes()
    for extra, message in (
        (["--seed", "1"], "error: "),
        (["--inhibition", "ring"], "inhibition is 'ring'; allowed are disc, square, none"),
        (["--encoding", "png"], "encoding is 'png'; allowed are raw, jpeg"),
    ):
        refused = CliRunner().invoke(app, [*arguments, "--split", "test", *extra])
        assert refused.exit_code == 2
        assert message in refused.output
        assert len(refused.output.strip().splitlines()) == 1


@pytest.mark.parametrize("more", [{}, {"inhibition": "none"}, {"fixations": "uniform"}])
@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_patches_that_the_command_bakes_are_those_that_a_run_sees(source, fidelity, more):
    """Released patches with them (docs/fidelity.md #8): a square, where nothing else is asked for."""
    baked = _how(source, None, {"fidelity": fidelity, "patch": 8, **more}, {})
    config = load_recipe(
        "saccades-tiny", [f"fidelity={fidelity}", "data.patch=8", *(f"data.{k}={more[k]}" for k in more)]
    )
    assert baked == fixating(config)
