"""STL-10's binary files, beside torchvision's reader."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_images import make_stl10
from torchvision.datasets import STL10

from pipelines.build.images import shard_images
from pipelines.sources import open_source
from shards.errors import FormatError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_stl10(tmp_path / "stl10_binary", train=12, test=7, unlabeled=5)


def test_pixels_and_labels_are_torchvisions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    source = pickle.loads(pickle.dumps(open_source("stl10", folder.parent)))
    records = source.records()
    (folder / "class_names.txt").write_text("\n".join(source.classes))
    for split, count in (("train", 12), ("test", 7), ("unlabeled", 5)):
        theirs = STL10(str(folder.parent), split)
        ours = [record for record in records if record.split == split]
        assert len(ours) == len(theirs) == count
        for record, (image, label) in zip(ours, theirs, strict=True):
            assert record.label == label
            assert np.array_equal(source.read(record), np.asarray(image))
    (folder / "class_names.txt").write_text("\n".join(source.classes), encoding="utf-8-sig")  # of Windows
    assert open_source("stl10", folder.parent).classes == source.classes
    (folder / "class_names.txt").write_bytes(b"fire truck\r\n\r\ncat\r\n")
    assert open_source("stl10", folder.parent).classes == ("fire truck", "cat")


def test_a_file_that_is_cut_while_it_is_read_is_named(folder: Path) -> None:
    """A map of it would end the process with SIGBUS."""
    source = open_source("stl10", folder)
    record = source.records()[3]
    source.read(record)
    os.truncate(folder / "train_X.bin", 0)
    with pytest.raises(FormatError, match=r"train_X.bin ends before image 3: it became shorter while it was read"):
        source.read(record)


def test_records(folder: Path) -> None:
    source = open_source("stl10", folder)
    records = source.records()
    assert [record.key for record in records[:2]] == ["train-00000", "train-00001"]
    assert records[-1].key == "unlabeled-00004"
    assert records[-1].label == -1
    assert source.classes[:2] == ("airplane", "bird")
    assert records[3].meta == {"file": "train_X.bin", "row": 3}


def test_splits_are_those_that_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert {r.split for r in open_source("stl10", make_stl10(tmp_path / "a", test=3)).records()} == {"test"}
    assert "holds no train_X.bin: there is no training split, only test" in caplog.text
    with pytest.raises(FormatError, match=r"no train_X\.bin"):
        open_source("stl10", tmp_path).records()


def test_other_pixels_have_another_fingerprint(tmp_path: Path) -> None:
    one, two = (make_stl10(tmp_path / name, train=12, unlabeled=5) for name in "ab")
    assert open_source("stl10", one).fingerprint == open_source("stl10", two).fingerprint
    data = bytearray((two / "unlabeled_X.bin").read_bytes())
    data[100] ^= 1
    (two / "unlabeled_X.bin").write_bytes(data)
    assert open_source("stl10", one).fingerprint != open_source("stl10", two).fingerprint


def test_any_other_image_is_another_set(tmp_path: Path) -> None:
    """Also one that is not among those by which maps know a file, and in a file that took the place of another."""
    folder = make_stl10(tmp_path / "in", train=130)
    source = open_source("stl10", folder)
    second = source.records()[1]
    before = source.fingerprint, source.digest(second)
    shard_images(source, tmp_path / "out", encoding="raw", workers=0)
    pixels = bytearray((folder / "train_X.bin").read_bytes())
    pixels[27648] ^= 1
    (folder / "new").write_bytes(pixels)
    (folder / "new").rename(folder / "train_X.bin")
    now = open_source("stl10", folder)
    assert now.fingerprint["sample_sha256"] == before[0]["sample_sha256"]
    assert now.digest(second) != before[1]
    with pytest.raises(UsageError, match="the source's files have other bytes than then"):
        shard_images(now, tmp_path / "out", encoding="raw", workers=0)


@pytest.mark.parametrize(
    ("file", "size", "message"),
    [
        ("train_X.bin", 12 * 27648 - 1, r"has 331775 bytes, expected 331776 \(12 images, as many as train_y\.bin"),
        ("train_X.bin", 11 * 27648, "has 304128 bytes, expected 331776"),
        ("test_y.bin", 6, "has 193536 bytes, expected 165888"),
        ("unlabeled_X.bin", 4 * 27648 + 5, r"has 110597 bytes, expected 138240 \(5 images"),
        ("unlabeled_X.bin", 0, "has 0 bytes"),
        ("train_X.bin", 0, "has 0 bytes"),
    ],
)
def test_cut_files_name_their_bytes(folder: Path, file: str, size: int, message: str) -> None:
    data = (folder / file).read_bytes()[:size]
    (folder / file).write_bytes(data)
    with pytest.raises(FormatError, match=message):
        open_source("stl10", folder).records()


def test_labels_out_of_range_or_missing(folder: Path) -> None:
    (folder / "train_y.bin").write_bytes(bytes(range(12)))
    with pytest.raises(FormatError, match="labels from 0 to 11, expected 1 to 10"):
        open_source("stl10", folder).records()
    (folder / "train_y.bin").unlink()
    with pytest.raises(FormatError, match=r"train_y\.bin is missing"):
        open_source("stl10", folder).records()


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "stl10_binary.tar.gz").write_bytes(b"x")
    with pytest.raises(FormatError, match="unpack it"):
        open_source("stl10", tmp_path / "stl10_binary.tar.gz")
