"""CIFAR-100's files as a source of images, beside torchvision's reader; and into shards."""

from __future__ import annotations

import copy
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR100
from typer.testing import CliRunner

import cli
from pipelines.build.images import shard_images
from pipelines.sources import cifar100, open_source
from pipelines.synth.patterns.write import ByteRows, python2_pickle
from shards.errors import FormatError
from shards.reader import ShardSet
from shards.schema import ImageSpec

COUNTS = {"train": 9, "test": 5}
FINE, COARSE = [f"fine {i}" for i in range(6)], ["coarse a", "coarse b"]


def table(split: str) -> dict[str, Any]:
    count = COUNTS[split]
    return {
        "filenames": [f"{split}_{i}.png" for i in range(count)],
        "fine_labels": [(5 * i + 1) % 6 for i in range(count)],
        "coarse_labels": [i % 2 for i in range(count)],
        "data": np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8),
    }


def tables() -> dict[str, dict[str, Any]]:
    return {
        **{split: table(split) for split in COUNTS},
        "meta": {"fine_label_names": FINE, "coarse_label_names": COARSE},
    }


def as_python2(value: dict[str, Any]) -> bytes:
    rows = {
        k: ByteRows(v.shape[0], v.shape[1], [v.tobytes()]) if isinstance(v, np.ndarray) else v for k, v in value.items()
    }
    return b"".join(python2_pickle(rows))


def as_python3(value: dict[str, Any]) -> bytes:
    return pickle.dumps(value, protocol=2)


def write(folder: Path, contents: dict[str, dict[str, Any]], spell: Callable = as_python2) -> Path:
    folder = folder / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, value in contents.items():
        (folder / name).write_bytes(spell(value))
    return folder


def packed(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name in ("meta", "file.txt~", "test", "train"):
            if (folder / name).exists():
                tar.add(folder / name, f"cifar-100-python/{name}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path, tables())


@pytest.mark.parametrize("spell", [as_python2, as_python3])
def test_pixels_labels_and_names_are_torchvisions(
    tmp_path: Path, spell: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR100, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    folder = write(tmp_path, tables(), spell)
    source = pickle.loads(pickle.dumps(open_source("cifar100", folder)))
    records = source.records()
    for split in COUNTS:
        theirs = CIFAR100(str(tmp_path), train=split == "train")
        ours = [record for record in records if record.split == split]
        assert len(ours) == len(theirs) == COUNTS[split]
        for record, (image, label) in zip(ours, (theirs[i] for i in range(len(theirs))), strict=True):
            assert record.label == label
            assert np.array_equal(source.read(record), np.asarray(image))
        assert list(source.classes) == theirs.classes == FINE
    assert [record.meta for record in records[:2]] == [
        {"file": "train_0.png", "coarse": 0},
        {"file": "train_1.png", "coarse": 1},
    ]
    assert (records[0].key, records[-1].key) == ("train-00000", "test-00004")


def test_channels_come_one_after_another(folder: Path) -> None:
    source = open_source("cifar100", folder)
    pixels, row = source.read(source.records()[3]), table("train")["data"][3]
    assert pixels[2, 7].tolist() == [row[2 * 32 + 7], row[1024 + 2 * 32 + 7], row[2048 + 2 * 32 + 7]]


def test_folder_and_archives_are_one(folder: Path, tmp_path: Path) -> None:
    (folder / "file.txt~").write_text("left by an editor")
    paths = [folder.parent, packed(folder, tmp_path / "a.tar.gz"), packed(folder, tmp_path / "a.tar")]
    one = open_source("cifar100", folder)
    assert one.fingerprint["images"] == COUNTS
    assert one.fingerprint["coarse_classes"] == COARSE
    for path in paths:
        other = open_source("cifar100", path)
        assert other.fingerprint == one.fingerprint
        assert other.records() == one.records()
        assert np.array_equal(other.read(other.records()[-1]), one.read(one.records()[-1]))


def test_one_pixel_changes_the_fingerprint(folder: Path, tmp_path: Path) -> None:
    contents = tables()
    contents["test"]["data"][4, 3071] ^= 1
    other = open_source("cifar100", write(tmp_path / "b", contents)).fingerprint
    one = open_source("cifar100", folder).fingerprint
    assert one["sample_sha256"]["train"] == other["sample_sha256"]["train"]
    assert one["sample_sha256"]["test"] != other["sample_sha256"]["test"]


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_file_that_changes_is_read_again(folder: Path, name: str, above: bool) -> None:
    """Whichever of the three, whichever folder is given: a build that goes on asks whether the source is the same."""
    source = open_source("cifar100", folder.parent if above else folder)
    before = source.fingerprint
    assert copy.copy(source).fingerprint == before
    changed = tables()
    if name == "meta":
        changed["meta"]["fine_label_names"] = FINE[::-1]
    else:
        changed[name]["data"][0, 0] ^= 1
    (folder / name).write_bytes(as_python2(changed[name]))
    assert copy.copy(source).fingerprint != before


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_keep_every_bit(folder: Path, tmp_path: Path, workers: int) -> None:
    info = shard_images(
        open_source("cifar100", folder), tmp_path / "out", encoding="raw", samples_per_shard=4, workers=workers
    )
    assert (info.kind, info.classes, info.spec) == ("image", tuple(FINE), ImageSpec(32, 32, "raw"))
    for split in COUNTS:
        index, expected = ShardSet.open(tmp_path / "out").images(split), table(split)
        assert index.labels.tolist() == expected["fine_labels"]
        assert index.meta["coarse"] == expected["coarse_labels"]
        assert index.meta["file"] == expected["filenames"]
        images = np.stack([index.read_image(i) for i in range(COUNTS[split])])
        assert np.array_equal(images.transpose(0, 3, 1, 2).reshape(-1, 3072), expected["data"])


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.seqjepa_data_app, [str(word) for word in words])
    return done.exit_code, done.output


def test_command(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, output = run("shard", "cifar100", "--source", packed(folder, tmp_path / "c.tar.gz"), "--out", out, "--json")
    assert code == 0
    contents = json.loads(output)
    assert (contents["name"], contents["kind"]) == ("cifar100", "image")
    assert {name: split["samples"] for name, split in contents["splits"].items()} == COUNTS


def edited(name: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """None removes a column."""
    contents = tables()
    contents[name] = {key: value for key, value in {**contents[name], **changes}.items() if value is not None}
    return contents


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (edited("train", data=np.zeros((9, 3071), np.uint8)), r"train has uint8 \(9, 3071\) as data, expected .* 3072"),
        (edited("train", data=np.zeros((8, 3072), np.uint8)), "train has 8 images, 9 names, 9 fine and 9 coarse"),
        (edited("test", data=[0, 1]), "test has nothing as data"),
        (edited("test", fine_labels=[0, 1, 2, 3, 6]), "fine_labels that are not numbers from 0 to 5"),
        (edited("test", coarse_labels=[0, 1, 0, 1, -1]), "coarse_labels that are not numbers from 0 to 1"),
        (edited("test", fine_labels=["a"] * 5), "fine_labels that are not numbers"),
        (edited("test", fine_labels=None, labels=[1] * 5), "has no list fine_labels .*CIFAR-10"),
        (edited("meta", fine_label_names=["a", "a"]), "meta names 2 fine and 2 coarse classes, not all different"),
        (edited("meta", coarse_label_names=[1, 2]), "coarse_label_names that are no text"),
        ({"train": table("train"), "test": table("test")}, "holds no cifar-100-python/meta; give cifar-100-python/"),
    ],
)
@pytest.mark.parametrize("spell", [as_python2, as_python3])
def test_files_at_odds_are_refused_in_one_line(tmp_path: Path, contents, message: str, spell: Callable) -> None:
    folder = write(tmp_path / "in", contents, spell)
    with pytest.raises(FormatError, match=message):
        open_source("cifar100", folder).records()
    code, output = run("shard", "cifar100", "--source", folder, "--out", tmp_path / "out")
    assert (code, output.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", ["c.tar.gz", "c.tar"])
def test_a_cut_archive_is_refused(folder: Path, tmp_path: Path, name: str, share: float) -> None:
    archive = packed(folder, tmp_path / name)
    data = archive.read_bytes().rstrip(b"\0")  # a tar may go without its padding
    archive.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError, match=r"cut short|damaged"):
        open_source("cifar100", archive).records()


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_cut_file_is_refused(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-5])
    with pytest.raises(FormatError, match=f"{name} is no pickle, cut short or damaged"):
        open_source("cifar100", folder).records()


def test_other_archives_and_folders(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"x")
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "data_batch_1", "cifar-10-batches-py/data_batch_1")
    for path in (tmp_path, tmp_path / "cifar-10-python.tar.gz"):
        with pytest.raises(FormatError, match="holds no cifar-100-python/train or test or meta"):
            open_source("cifar100", path).records()
    with pytest.raises(FormatError, match=r"not a tar archive|cut short"):
        open_source("cifar100", tmp_path / "data_batch_1").records()


def test_a_file_beyond_the_bound_is_not_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(folder, tmp_path / "c.tar.gz")
    monkeypatch.setattr(cifar100, "LARGEST_PICKLE", 20_000)
    for path in (folder, archive):
        with pytest.raises(FormatError, match=r"train has \d+ bytes, CIFAR-100's files have 155 million at most"):
            open_source("cifar100", path).records()
