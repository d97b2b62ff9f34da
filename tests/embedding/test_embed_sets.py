"""`seqjepa embed` of sets of images, of baked sequences, of damage, and after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from noise_shards import noise_shards
from ordered_sets import write_walks
from python_path import python_path

import seqjepa
from seqjepa.data.bake import Baking, OfStored, bake
from seqjepa.embedding.feature_sets import encoder_of_config, make_features
from seqjepa.embedding.run import Asked, embed_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.errors import ConfigError, DamageError
from shards.reader import ShardSet
from shards.saliency_map import encode_map
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16",
        "data.image_size=0", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=8")  # fmt: skip
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


def write_images(out: Path, side: int = 24, images: int = 12) -> Path:
    rng = np.random.default_rng(side)
    with SetBuilder(
        out, name="images", spec=ImageSpec(side, side, "raw", "float16"), classes=("a", "b"), fingerprint={}
    ) as builder:
        with builder.open_shard("train", 0) as shard:
            for number in range(images):
                image = rng.integers(0, 256, (side, side, 3), np.uint8)
                maps = encode_map(rng.gamma(0.3, size=(side, side)), "float16")
                shard.add(ImageSample(f"image{number}", encode_raw(image), maps, number % 3 - 1), PixelStats.of(image))
        builder.finish({})
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images") / "set")


@pytest.fixture(scope="module")
def saccades(images: Path) -> Path:
    settings = ("data.patch=8", "data.context=2", "data.normalisation=shards")
    run = images.parent / "run"
    train(load_recipe("stl-pls-M4", [*TINY, *settings]), images, run, workers=0, device="cpu")
    return run


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("objects") / "set", train=16, val=8)


@pytest.fixture(scope="module")
def run(objects: Path) -> Path:
    out = objects.parent / "run"
    train(load_recipe("3die-rot-M3", [*TINY, "data.context=2"]), objects, out, workers=0, device="cpu")
    return out


def test_images_are_embedded_whole(saccades: Path, images: Path, tmp_path: Path) -> None:
    facts = embed_run(saccades, tmp_path / "f.parquet", Asked(shards=images), device="cpu", progress=False)
    table, index = pq.read_table(tmp_path / "f.parquet"), ShardSet.open(images).images("train")
    assert facts["whole_images"]
    assert facts["without_z_agg"] == "images are embedded whole, each by itself"
    assert table["key"].to_pylist() == [f"image{n}" for n in range(12)]
    assert table["label"].to_pylist() == index.labels.tolist()
    assert table["class"].to_pylist() == [None, "a", "b"] * 4
    expected = seqjepa.load(saccades, "cpu").embed(np.stack([index.read_image(row) for row in range(12)]))
    torch.testing.assert_close(torch.tensor(table["z"].to_pylist()), expected, **CLOSE)


def test_stored_images_of_another_size_are_resized(saccades: Path, tmp_path: Path) -> None:
    larger = write_images(tmp_path / "larger", side=40, images=5)
    embed_run(saccades, tmp_path / "f.npz", Asked(shards=larger, batch_size=2), device="cpu", progress=False)
    index, model = ShardSet.open(larger).images("train"), seqjepa.load(saccades, "cpu")
    assert model.size_for(40, 40) == (24, 24)
    assert model.size_for(8, 8) == (8, 8)
    with np.load(tmp_path / "f.npz") as npz:
        expected = torch.stack([model.embed(index.read_image(row)) for row in range(5)])
        torch.testing.assert_close(torch.from_numpy(npz["z"]), expected, **CLOSE)


def test_baked_sequences_give_their_first_views(tmp_path: Path) -> None:
    walks, baked, run = tmp_path / "walks", tmp_path / "baked", tmp_path / "run"
    write_walks(walks, {"train": (14, 9, 11)})
    bake(walks, baked, Baking(2, 3, OfStored("window")), workers=0)
    settings = ("data.context=2", "data.action=shards")
    train(load_recipe("views-tiny", [*TINY, *settings]), baked, run, workers=0, device="cpu")
    embed_run(run, tmp_path / "f.npz", Asked(shards=baked), device="cpu", progress=False)
    index, model = ShardSet.open(baked).split("train"), seqjepa.load(run, "cpu")
    with np.load(tmp_path / "f.npz") as npz:
        rows = npz["z_agg_rows"]
        assert rows.tolist()[:3] == [[0, 1], [3, 4], [6, 7]]
        assert len(rows) == 2 * len(index)
        actions = model.action_spec.between(npz["params"][rows], npz["param_names"].tolist())
        assert (np.diff(npz["params"][rows][..., 1], axis=1) == 1).all()  # one step from a view to the next
        expected = model.aggregate(None, actions, z=torch.from_numpy(npz["z"][rows]))
        torch.testing.assert_close(torch.from_numpy(npz["z_agg"]), expected, **CLOSE)


def test_features_of_a_frozen_encoder_are_taken_as_they_are(run: Path, objects: Path, tmp_path: Path) -> None:
    config = load_recipe("", [*TINY, "model.stem=cifar", "data.context=2"])
    source, features = ShardSet.open(objects), tmp_path / "features"
    make_features(source, features, encoder_of_config(config, source), dtype="float32")
    train(config, features, tmp_path / "run", workers=0, device="cpu")
    for name, shards in (("pixels", objects), ("features", features)):
        embed_run(tmp_path / "run", tmp_path / f"{name}.npz", Asked(shards=shards), device="cpu", progress=False)
    with np.load(tmp_path / "pixels.npz") as pixels, np.load(tmp_path / "features.npz") as known:
        assert pixels["z"].shape == (96, 64)
        for name in ("z", "z_agg"):
            torch.testing.assert_close(torch.from_numpy(known[name]), torch.from_numpy(pixels[name]), **CLOSE)
        assert np.array_equal(known["z_agg_rows"], pixels["z_agg_rows"])
    with pytest.raises(ConfigError, match="holds features of another encoder"):
        embed_run(run, tmp_path / "other.npz", Asked(shards=features), device="cpu", progress=False)


def test_damage_is_named_and_what_is_done_stays(run: Path, objects: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    noise_shards(copy, train=16, val=8)
    shard = ShardSet.open(copy).split("val").shard_paths[0]
    index = ShardSet.open(copy).split("val")
    data = bytearray(shard.read_bytes())
    begin = int(index.offsets[3, 1])
    data[begin : begin + 6] = b"broken"
    shard.write_bytes(data)
    with pytest.raises(DamageError, match="view 1 of sample 'val003' in val-000000"):
        embed_run(run, tmp_path / "f.npz", Asked(shards=copy), device="cpu", progress=False)
    assert sorted(path.name for path in (tmp_path / "f.npz.parts").glob("z-*.npy")) == ["z-0-000000.npy"]
    assert not (tmp_path / "f.npz").exists()


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    many = noise_shards(tmp_path / "many", train=3000, val=8)
    code = (
        "import sys; from seqjepa.embedding import run; run.PART_ROWS = 256; "
        "from cli import seqjepa_app; seqjepa_app(sys.argv[1:])"
    )
    words = ["embed", run, "--shards", many, "--device", "cpu", "--batch-size", "64", "-o"]
    env = {**os.environ, "PYTHONPATH": python_path(), "OMP_NUM_THREADS": "1"}

    def start(out: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, *words, out], env=env, cwd=ROOT)

    killed, whole = tmp_path / "killed.parquet", tmp_path / "whole.parquet"
    for parts in (3, 9, 20):
        process = start(killed)
        while process.poll() is None and len(list(killed.parent.glob("killed.parquet.parts/z-*.npy"))) < parts:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not killed.exists()
    assert start(killed).wait() == 0
    assert start(whole).wait() == 0
    assert killed.read_bytes() == whole.read_bytes()
    assert (tmp_path / "killed-z_agg.parquet").read_bytes() == (tmp_path / "whole-z_agg.parquet").read_bytes()
    assert not list(tmp_path.glob("*.parts"))
