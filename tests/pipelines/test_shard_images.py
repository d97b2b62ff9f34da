"""Sources of images → `image` and `saliency` shards."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_3die import same_folders
from small_images import blob, encoded, make_folder, make_maps, make_stl10, make_tar, picture
from typer.testing import CliRunner

import cli
from pipelines.build import images as module
from pipelines.build.encode import Frame, fit_map
from pipelines.build.images import shard_images
from pipelines.sources import open_source
from shards.errors import FailureError, FormatError, UsageError
from shards.reader import ShardSet
from shards.schema import DatasetInfo

NAMES = [f"{split}/{kind}/{i}.png" for split in ("train", "val") for kind in ("cat", "dog") for i in range(4)]
OPTIONS = {"samples_per_shard": 3, "workers": 1, "jpeg_quality": "444-95"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pets", NAMES)


def shard(path: Path, out: Path, kind: str = "folder", **options) -> DatasetInfo:
    return shard_images(open_source(kind, path), out, **{**OPTIONS, **options})


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.seqjepa_data_app, [str(word) for word in words])
    return done.exit_code, done.output


def test_a_source_whose_name_is_not_utf8(folder: Path, tmp_path: Path) -> None:
    """Once it was refused, and after the last shard: no card can be written of such a name."""
    odd = folder.rename(folder.parent / os.fsdecode(b"caf\xe9"))
    info = shard(odd, tmp_path / "out")
    assert info.name == "caf?"
    assert shard(odd, tmp_path / "out") == info
    table = "".join(f"{name},{name.split('/')[1]}\n" for name in NAMES[:8])
    (odd / "metadata.csv").write_text(f"file_name,sequence\n{table}")
    assert run("shard", "manifest", "--source", odd, "--out", tmp_path / "views")[0] == 0
    assert ShardSet.open(tmp_path / "views").info.name == "caf?"


def test_lossless_images_come_back(folder: Path, tmp_path: Path) -> None:
    info = shard(folder, tmp_path / "out", encoding="raw")
    assert (info.kind, info.classes, info.spec.height, info.spec.width) == ("image", ("cat", "dog"), 24, 32)
    assert [len(info.splits[name].shards) for name in ("train", "val")] == [3, 3]
    source = open_source("folder", folder)
    for split in ("train", "val"):
        index = ShardSet.open(tmp_path / "out").images(split)
        records = [record for record in source.records() if record.split == split]
        assert index.keys == [record.key for record in records]
        assert index.labels.tolist() == [record.label for record in records]
        assert index.meta["file"] == [record.name for record in records]
        for i, record in enumerate(records):
            assert np.array_equal(index.read_image(i), source.read(record))


def test_stl10_keeps_every_split_and_bit(tmp_path: Path) -> None:
    folder = make_stl10(tmp_path / "stl10_binary", train=5, test=2, unlabeled=4)
    info = shard(folder, tmp_path / "out", "stl10", encoding="raw")
    assert {name: split.samples for name, split in info.splits.items()} == {"train": 5, "test": 2, "unlabeled": 4}
    index = ShardSet.open(tmp_path / "out").images("unlabeled")
    raw = np.fromfile(folder / "unlabeled_X.bin", np.uint8)
    assert (index.labels == -1).all()
    assert index.read_image(3)[10, 20, 2] == raw[3 * 27648 + 2 * 9216 + 20 * 96 + 10]


@pytest.mark.parametrize(("storage", "tolerance"), [("float16", 1e-3), ("log8", 0.05)])
def test_image_and_map_lie_in_one_sample(folder: Path, tmp_path: Path, storage: str, tolerance: float) -> None:
    source = open_source("folder", folder)
    maps = make_maps(tmp_path / "maps", source, lambda r: blob(24, 32, 3 + int(r.key[-1]), 5 * r.label + 9), storage)
    info = shard(folder, tmp_path / "same", encoding="raw", maps=maps)
    assert info.kind == "saliency"
    assert info.provenance["saliency_model"] == {"model": "a-test-model"}
    assert info.provenance["maps"]["set"] == "maps"
    shard(folder, tmp_path / "small", encoding="raw", maps=maps, size=16, fit="crop")
    same, small, stored = (ShardSet.open(tmp_path / name).images("val") for name in ("same", "small", "maps"))
    assert same.keys == small.keys == stored.keys
    for i, key in enumerate(same.keys):
        p = stored.read_map(i)
        assert np.unravel_index(p.argmax(), p.shape) == (3 + int(key[-1]), 5 * same.labels[i] + 9)
        assert np.array_equal(same.read_map(i), p)
        fitted = fit_map(p, Frame(16, 16, "crop"))
        assert small.read_map(i) == pytest.approx(fitted, rel=tolerance, abs=1e-5)


def test_bytes_do_not_depend_on_workers_or_the_container(folder: Path, tmp_path: Path) -> None:
    source = open_source("folder", folder)
    maps = make_maps(tmp_path / "maps", source, lambda r: blob(24, 32, 12, 16))
    options = {"maps": maps, "size": 20}
    shard(folder, tmp_path / "one", **options)
    shard(folder, tmp_path / "two", workers=2, **options)
    shard(make_tar(folder, tmp_path / "pets.tar"), tmp_path / "tar", workers=0, **options)
    assert same_folders(tmp_path / "one", tmp_path / "two")
    tars = sorted(path.name for path in (tmp_path / "one").glob("*.tar"))
    assert len(tars) == 6
    assert all((tmp_path / "one" / t).read_bytes() == (tmp_path / "tar" / t).read_bytes() for t in tars)


def test_a_failing_worker_leaves_a_resumable_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard(folder, tmp_path / "whole")
    calls, work = iter(range(100)), module.to_sample

    def failing(item, job):
        if next(calls) == 7:
            raise MemoryError
        return work(item, job)

    monkeypatch.setattr(module, "to_sample", failing)
    with pytest.raises(FailureError, match=r"dog/3\.png: MemoryError"):
        shard(folder, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.tar"))) == 2
    monkeypatch.setattr(module, "to_sample", work)
    shard(folder, tmp_path / "out")
    assert same_folders(tmp_path / "out", tmp_path / "whole")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    shard(folder, tmp_path / "out")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_the_jpeg_setting_keeps_41_db(folder: Path, tmp_path: Path) -> None:
    info = shard(folder, tmp_path / "out", jpeg_quality="auto")
    assert info.provenance["psnr_db"] >= 41
    index, source = ShardSet.open(tmp_path / "out").images("train"), open_source("folder", folder)
    errors = [
        np.square(index.read_image(i).astype(float) - source.read(record)).mean()
        for i, record in enumerate(record for record in source.records() if record.split == "train")
    ]
    assert 10 * np.log10(255**2 / np.mean(errors)) > 40


def test_sizes(folder: Path, tmp_path: Path) -> None:
    (folder / "train/cat/0.png").write_bytes(encoded(picture(0, 30, 20)))
    with pytest.raises(UsageError, match=r"different sizes \(32×24, 20×30\); give --size"):
        shard(folder, tmp_path / "out")
    shard(folder, tmp_path / "out", size=16, encoding="raw")
    expected = Image.fromarray(picture(0, 30, 20)).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(ShardSet.open(tmp_path / "out").images("train").read_image(0), np.asarray(expected))


def test_bad_images_are_named_and_counted(folder: Path, tmp_path: Path) -> None:
    (folder / "train/cat/0.png").write_bytes(b"")
    (folder / "val/dog/2.png").write_bytes(encoded(picture(3))[:90])
    with pytest.raises(FormatError, match=r"1 bad so far, --max-bad allows 0: train/cat/0\.png: empty"):
        shard(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    info = shard(folder, tmp_path / "out", max_bad=2)
    assert [split.samples for split in info.splits.values()] == [7, 7]
    assert info.provenance["bad_images"]["count"] == 2
    assert [name.partition(":")[0] for name in info.provenance["bad_images"]["names"]] == [
        "train/cat/0.png",
        "val/dog/2.png",
    ]


def test_the_same_image_in_two_splits_or_classes_is_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Byte for byte, whatever it is called; of one class and split it may be; what cannot be read is no image."""
    shutil.copy(folder / "train/cat/1.png", folder / "val/dog/0.png")
    shutil.copy(folder / "train/cat/1.png", folder / "train/dog/1.png")
    shutil.copy(folder / "train/cat/2.png", folder / "train/cat/0.png")
    for name in ("train/cat/3.png", "val/cat/3.png"):
        (folder / name).write_bytes(b"")
    info = shard(folder, tmp_path / "out", max_bad=2)
    named = [f"{name} (as train/cat/1.png)" for name in ("train/dog/1.png", "val/dog/0.png")]
    assert info.provenance["images_in_several_splits_or_classes"] == {"count": 2, "names": named}
    assert f"2 images are byte for byte those of another split or class, e.g. {named[0]}" in caplog.text


ODD = "train/cat/0.png"
PEAK = blob(24, 32, 5, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: None if r.name == ODD else PEAK, rf"{ODD} has no map in .*maps \(train/cat_0\)"),
        (lambda r: blob(24, 30, 5, 5) if r.name == ODD else PEAK, f"{ODD}: its map is 30×24, the image 32×24"),
        (lambda r: blob(24, 32, 5, 0) ** 99 if r.name == ODD else PEAK, f"{ODD}: a map with zero mass"),
    ],
)
def test_maps_that_do_not_fit_the_images(folder: Path, tmp_path: Path, make: Callable, message: str) -> None:
    """One line, exit code 2, nothing written; or left out where that is allowed."""
    maps = make_maps(tmp_path / "maps", open_source("folder", folder), make)
    options = ["--size", 16, "--fit", "crop", "--workers", 1]
    words = ["shard", "folder", "--source", folder, "--out", tmp_path / "out", "--maps", maps, *options]
    code, text = run(*words)
    assert (code, text.count("\n")) == (2, 1)
    assert re.search(message, text)
    assert not (tmp_path / "out").exists()
    assert run(*words, "--max-bad", 1)[0] == 0
    assert ShardSet.open(tmp_path / "out").info.splits["train"].samples == 7


def test_maps_of_other_splits(folder: Path, tmp_path: Path) -> None:
    flat = make_folder(tmp_path / "flat", [name.partition("/")[2] for name in NAMES[:8]])
    maps = make_maps(tmp_path / "maps", open_source("folder", flat), lambda r: PEAK)
    with pytest.raises(FormatError, match=r"8 bad so far.*val/cat/0\.png has no map in .*\(val/cat_0\), but one of"):
        shard(folder, tmp_path / "out", maps=maps)
    assert not (tmp_path / "out").exists()


def test_maps_of_other_pixels_with_the_same_keys(tmp_path: Path) -> None:
    """Keys of STL-10 are numbers: that the maps are of another copy shows in the pixels only."""
    folder = make_stl10(tmp_path / "stl10", train=4, test=3)
    maps = make_maps(tmp_path / "maps", open_source("stl10", folder), lambda r: blob(96, 96, 5, 5))
    data = (folder / "test_X.bin").read_bytes()
    (folder / "test_X.bin").write_bytes(data[27648:] + data[:27648])
    with pytest.raises(FormatError, match="maps of other test images"):
        shard(folder, tmp_path / "out", "stl10", maps=maps)
    (folder / "test_X.bin").unlink()
    assert shard(folder, tmp_path / "out", "stl10", maps=maps, encoding="raw").samples == 4


def test_maps_have_to_be_maps(folder: Path, tmp_path: Path) -> None:
    shard(folder, tmp_path / "images")
    with pytest.raises(FormatError, match="holds image shards; --maps needs"):
        shard(folder, tmp_path / "out", maps=tmp_path / "images")
    with pytest.raises(FormatError, match="not a folder"):
        shard(folder, tmp_path / "out", maps=tmp_path / "nothing")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "option", [{"fit": "pad"}, {"encoding": "png"}, {"size": 0}, {"limit": 0}, {"jpeg_quality": "9"}]
)
def test_values_out_of_range(folder: Path, tmp_path: Path, option: dict) -> None:
    with pytest.raises(UsageError):
        shard(folder, tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


def test_another_request_is_refused(folder: Path, tmp_path: Path) -> None:
    shard(folder, tmp_path / "out", size=16)
    with pytest.raises(UsageError, match="size"):
        shard(folder, tmp_path / "out", size=20)
    assert shard(folder, tmp_path / "out", size=20, overwrite=True).spec.height == 20


def test_the_command_line(tmp_path: Path) -> None:
    code, _ = run("synth", "stl10", "--out", tmp_path / "glances", "--train", 4, "--test", 2, "--unlabeled", 3)
    assert code == 0
    words = ["--source", tmp_path / "glances", "--out", tmp_path / "out", "--limit", 2, "--workers", 1, "--json"]
    code, text = run("shard", "stl10", *words)
    assert code == 0
    assert {name: split["samples"] for name, split in json.loads(text)["splits"].items()} == {
        "train": 2,
        "test": 2,
        "unlabeled": 2,
    }
    make_folder(
        tmp_path / "net", [f"{split}/n0000000{i}/{i}.jpg" for split in ("train", "val") for i in (1, 2)], 40, 60
    )
    code, text = run("shard", "imagenet", "--source", tmp_path / "net", "--out", tmp_path / "in", "--workers", 1)
    assert code == 0
    assert ShardSet.open(tmp_path / "in").images("val").read_image(0).shape == (224, 224, 3)
    code, text = run("shard", "stl10", "--source", tmp_path / "none", "--out", tmp_path / "out2")
    assert (code, text.count("\n"), (tmp_path / "out2").exists()) == (2, 1, False)
