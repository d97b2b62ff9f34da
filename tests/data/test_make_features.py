"""Sets of features: made of any set of views, resumable, and what loaders draw from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from loaders import assert_same, stored_loader
from noise_shards import noise_shards
from ordered_sets import COMMAND, write_walks
from typer.testing import CliRunner

import cli
import seqjepa
from seqjepa.commands.features import features_command
from seqjepa.data.bake import Baking, OfStored, bake
from seqjepa.data.sequence import normalise
from seqjepa.embedding.feature_sets import _sample as sample_of  # before a test replaces it
from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.recipes import load_recipe
from seqjepa.training.data import open_training_data
from seqjepa.training.recipe_choice import choose_recipe
from shards.console import new_app
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet
from shards.vector_reader import VectorReader
from shards.verify import verify

SMALL = ("model.backbone=resnet18", "model.width=0.125", "model.stem=cifar", "seed=3")


def encoder(source: ShardSet, *settings: str):
    return encoder_of_config(load_recipe("", [*SMALL, *settings]), source)


def features_of(source: ShardSet, out: Path, dtype: str = "float32", **options) -> ShardSet:
    make_features(source, out, encoder(source), dtype=dtype, **options)
    return ShardSet.open(out)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    return ShardSet.open(noise_shards(tmp_path_factory.mktemp("noise") / "set"))


@pytest.fixture(scope="module")
def made(noise, tmp_path_factory):
    return features_of(noise, tmp_path_factory.mktemp("features") / "set")


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "set", {"train": (14, 9, 11, 23)})


@pytest.fixture(scope="module")
def walk_features(walks, tmp_path_factory):
    return features_of(walks, tmp_path_factory.mktemp("walk-features") / "set")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_vector_is_what_the_encoder_makes_of_the_view(noise, made):
    with torch.random.fork_rng():
        known = encoder(noise)
    before, after = noise.split("val"), made.split("val")
    mean, std = noise.info.normalisation["mean"], noise.info.normalisation["std"]
    for sample, slot in ((0, 0), (3, 2), (7, 3)):
        view = torch.from_numpy(before.read_view(sample, slot)).permute(2, 0, 1)[None]
        expected = known.net(normalise(view, tuple(mean), tuple(std)))[0].detach().numpy()
        np.testing.assert_allclose(after.read_view(sample, slot), expected, rtol=1e-4, atol=1e-5)


def test_all_else_is_as_in_the_source(noise, made, walks, walk_features):
    assert verify(made.path).ok
    assert verify(walk_features.path).ok
    for one, other in ((noise, made), (walks, walk_features)):
        assert one.info.classes == other.info.classes
        for split in one.splits:
            a, b = one.split(split), other.split(split)
            assert (a.keys, a.meta, a.actions, a.ordered) == (b.keys, b.meta, b.actions, b.ordered)
            for name in ("labels", "n_views", "view_ids", "params", "chunk"):
                np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(
    "how", [{"order": "random", "action": "none"}, {"order": "window", "action": COMMAND, "stride": 2}]
)
def test_loaders_draw_what_they_draw_of_pixels(walks, walk_features, how, resident):
    """Parts of sequences too: the same samples, slots, actions and parameters, and the vectors of those views."""
    settings = {"views": 4, "batch_size": 4, "seed": 1, "workers": 0} | how
    index, vectors = walk_features.split("train"), VectorReader(walk_features.split("train"))
    steps = index.sequences.steps
    with (
        stored_loader(walks.split("train"), **settings) as pixels,
        stored_loader(index, **settings, resident=resident) as features,
    ):
        assert features.resident == resident
        for epoch in range(2):
            for a, b in zip(pixels.epoch(epoch), features.epoch(epoch), strict=True):
                assert (a.keys, a.views.ndim, b.views.shape[2:]) == (b.keys, 5, (64,))
                for name in ("actions", "params", "labels"):
                    assert torch.equal(getattr(a, name), getattr(b, name))
                walk, step = ((a.views[:, :, channel, 0, 0].long() // by).numpy() for channel, by in ((0, 8), (1, 4)))
                frames = index.sequences.bounds[walk] + step
                assert (steps[frames] == step).all()
                np.testing.assert_array_equal(b.views.numpy(), vectors.take(*index.sequences.locate(frames)))


def test_repeats_of_a_short_sample_are_found_in_memory_too(noise, tmp_path):
    """A baked set's runs may lie in slots that repeat others."""
    bake(noise.path, tmp_path / "baked", Baking(2, 2, OfStored()))
    source = features_of(ShardSet.open(tmp_path / "baked"), tmp_path / "features")
    settings = {"views": 2, "batch_size": 5, "seed": 1, "workers": 0, "action": "none"}
    resident, mapped = (stored_loader(source.split("train"), **settings, resident=yes) for yes in (True, False))
    for epoch in range(3):
        for a, b in zip(resident.epoch(epoch), mapped.epoch(epoch), strict=True):
            assert_same(a, b)


def test_features_are_baked_as_they_are(made, tmp_path):
    bake(made.path, tmp_path / "baked", Baking(2, 3, OfStored()))
    baked = ShardSet.open(tmp_path / "baked")
    assert verify(baked.path).ok
    settings = {"views": 3, "batch_size": 4, "seed": 0, "workers": 0, "action": "rotation"}
    for a, b in zip(
        stored_loader(made.split("train"), **settings).epoch(1),
        stored_loader(baked.split("train"), **settings).epoch(1),
        strict=True,
    ):
        assert_same(a, b)


def test_an_epoch_goes_on_where_it_stopped(made):
    loader = stored_loader(made.split("train"), views=3, batch_size=4, seed=0, action="rotation")
    whole = list(loader.epoch(1))
    for a, b in zip(whole[2:], loader.epoch(1, 2), strict=True):
        assert_same(a, b)


def test_killed_and_run_again_it_gives_the_same_bytes(walks, walk_features, tmp_path, monkeypatch):
    monkeypatch.setattr("seqjepa.embedding.feature_sets._VIEWS_OF_A_SHARD", 20)
    whole = features_of(walks, tmp_path / "whole")
    assert len(whole.info.splits["train"].shards) > 2
    with monkeypatch.context() as context:
        made = []

        def fail(index, row, stored, original=sample_of):
            made.append(row)
            if len(made) > 12:
                raise KeyboardInterrupt
            return original(index, row, stored)

        context.setattr("seqjepa.embedding.feature_sets._sample", fail)
        with pytest.raises(KeyboardInterrupt):
            features_of(walks, tmp_path / "killed")
    assert not (tmp_path / "killed" / "_meta" / "dataset.json").exists()
    again = features_of(walks, tmp_path / "killed")
    assert files(whole.path) == files(again.path)
    with pytest.raises(UsageError, match="holds another set"):
        features_of(walks, tmp_path / "killed", dtype="float16")


def test_whole_images_become_single_views(build_image_set, tmp_path):
    source = build_image_set(samples=9, saliency="none")
    made = features_of(source, tmp_path / "features")
    assert made.info.spec.views == 1
    assert made.split("train").keys == source.images("train").keys
    assert made.split("train").labels.tolist() == source.images("train").labels.tolist()
    assert verify(made.path).ok


def test_open_sequences_gives_vectors(made):
    data = seqjepa.open_sequences(made.path, context=2, batch_size=4)
    batches = list(data)
    assert [batch.views.shape for batch in batches] == [(4, 3, 64)] * 4
    assert batches[0].views.dtype == torch.float32


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
def test_webdataset_gives_vectors(made):
    items = list(seqjepa.webdataset(made.path, "val", context=2))
    assert {tuple(item["views"].shape) for item in items} == {(3, 64)}


def test_a_recipe_is_chosen_and_the_encoder_is_the_sets(made):
    choice = choose_recipe(made.path)
    config = open_training_data(made.path, load_recipe(choice.recipe, choice.settings)).config
    model = config.model
    assert (model.backbone, model.width, model.stem, model.freeze) == ("resnet18", 0.125, "cifar", True)
    assert model.pretrained == str(made.path / "_meta" / "encoder.safetensors")


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("data.patch=8", "holds stored views, and data.patch = 8"),
        ("data.augment=equimod", "holds features, and data.augment is for pixels"),
    ],
)
def test_what_needs_pixels_is_refused(made, setting, found):
    settings = [setting, "data.action=none" if "augment" in setting else "data.action=position"]
    with pytest.raises(ConfigError, match=found):
        open_training_data(made.path, load_recipe("", settings))


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "give the encoder: either --backbone NAME, or --run RUN"),
        (["--backbone", "resnet18", "--run", "x"], "give the encoder: either"),
        (["--run", "x", "--pool", "avg"], "--pool is for --backbone"),
        (["--backbone", "resnet7"], "model.backbone is 'resnet7'"),
        (["--backbone", "resnet18", "--dtype", "int8"], "--dtype is 'int8'; allowed are float16, float32"),
        (["--backbone", "resnet18", "--pretrained", "gone.safetensors"], "is no file"),
        (["--run", "nowhere"], "is not a run directory"),
    ],
)
def test_the_command_refuses_in_one_line(noise, tmp_path, arguments, found):
    app = new_app("")
    app.command("features")(features_command)
    app.callback()(lambda: None)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["features", str(noise.path), "--out", str(out), *arguments])
    assert result.exit_code == 2
    assert found in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "words",
    [
        "features set --backbone resnet18 --set model.width=0.125 --set data.normalisation=stl10 --dtype float32",
        "features set --backbone resnet18 --set model.width=0.125 --split train --device cpu",
        "bake set --sequences 2 --views 3 --stride 2 --seed 5",
    ],
)
def test_the_command_in_the_metadata_gives_the_same_set(walks, tmp_path, monkeypatch, words):
    monkeypatch.chdir(walks.path.parent)
    for out in ("first", "second"):
        done = CliRunner().invoke(cli.seqjepa_data_app, [*words.split(), "--out", str(tmp_path / out)])
        assert done.exit_code == 0, done.output
        name, words = ShardSet.open(tmp_path / out).info.provenance["command"].split(" ", 1)
        assert name == "seqjepa-data"
    assert files(tmp_path / "first") == files(tmp_path / "second")


def test_features_of_features_are_refused(made, tmp_path):
    with pytest.raises(ConfigError, match="holds features already, of resnet18"):
        make_features(made, tmp_path / "again", encoder(made))
