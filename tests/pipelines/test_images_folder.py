"""Folders and tars of images: which split, which class, which key."""

from __future__ import annotations

import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from small_images import encoded, make_folder, make_tar, picture

from pipelines.archives.tar import PACKED
from pipelines.sources import ImageSource, open_source
from pipelines.sources.keys import unique_keys
from pipelines.sources.subset import limited
from shards.errors import FormatError, UsageError

TINY = (
    "tiny/train/n02/images/n02_0.JPEG",
    "tiny/train/n01/images/n01_0.JPEG",
    "tiny/train/n01/images/n01_1.JPEG",
    "tiny/val/images/val_0.JPEG",
    "tiny/val/images/val_1.JPEG",
)


def described(source: ImageSource) -> list[tuple[str, str, str | None]]:
    classes = (*source.classes, None)
    return [(record.split, record.key, classes[record.label]) for record in source.records()]


def test_classes_are_sorted_sub_folders(tmp_path: Path) -> None:
    source = open_source("folder", make_folder(tmp_path / "f", ["dog/b.png", "cat/deep/er/a.jpg", "dog/a.webp"]))
    assert source.classes == ("cat", "dog")
    assert described(source) == [
        ("train", "cat_deep_er_a", "cat"),
        ("train", "dog_a", "dog"),
        ("train", "dog_b", "dog"),
    ]
    pixels = {record.name: source.read(record) for record in source.records()}
    assert np.array_equal(pixels["dog/b.png"], picture(0))


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    source = open_source("folder", make_folder(tmp_path / "f", ["b.png", "a.bmp"]))
    assert source.classes == ()
    assert described(source) == [("train", "a", None), ("train", "b", None)]
    assert [record.meta for record in source.records()] == [{"file": "a.bmp"}, {"file": "b.png"}]


def test_split_folders_share_their_classes(tmp_path: Path) -> None:
    names = ["train/b/1.png", "train/c/1.png", "validation/a/1.png", "test/c/1.png"]
    source = open_source("folder", make_folder(tmp_path / "f", names))
    assert source.classes == ("a", "b", "c")
    assert described(source) == [
        ("train", "b_1", "b"),
        ("train", "c_1", "c"),
        ("test", "c_1", "c"),
        ("val", "a_1", "a"),
    ]


def test_only_a_training_folder_is_still_a_split(tmp_path: Path) -> None:
    source = open_source("folder", make_folder(tmp_path / "f", ["top/train/b/1.png", "top/train/b/2.png"]))
    assert described(source) == [("train", "b_1", "b"), ("train", "b_2", "b")]


def test_tiny_imagenet(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", TINY)
    assert [row[2] for row in described(open_source("folder", folder))] == ["n01", "n01", "n02", None, None]
    (folder / "tiny/val/val_annotations.txt").write_text("val_1.JPEG\tn01\t0\t0\nval_0.JPEG\tn02\t0\t0\n")
    for source in (open_source("folder", folder), open_source("folder", make_tar(folder, tmp_path / "t.tar"))):
        assert source.classes == ("n01", "n02")
        assert [row[2] for row in described(source)] == ["n01", "n01", "n02", "n02", "n01"]
    (folder / "tiny/val").rename(folder / "tiny/Val")
    note = folder / "tiny/Val/val_annotations.txt"
    note.write_text(note.read_text(), encoding="utf-8-sig")  # of Windows
    assert [row[2] for row in described(open_source("folder", folder))] == ["n01", "n01", "n02", "n02", "n01"]
    note.write_text("val_1.JPEG\tn01\t0\t0\nval_0.JPEG\tn02\t0\t0\nval_1.JPEG\tn02\t0\t0\n")
    with pytest.raises(
        FormatError, match=r"annotations\.txt: Val/images/val_1\.JPEG has the labels n01 and n02; remove"
    ):
        open_source("folder", folder).records()


def test_splits_beside_others_are_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["train/a/1.png", "extra/1.png"])
    with pytest.raises(FormatError, match="train lies beside extra"):
        open_source("folder", folder).records()


def test_a_fraction_is_a_share_of_each_class(tmp_path: Path) -> None:
    names = [f"{kind}/{i}.png" for kind in "ab" for i in range(60)]
    before = described(open_source("folder", make_folder(tmp_path / "f", names[:80], 2, 2), val_fraction=0.25))
    after = described(open_source("folder", make_folder(tmp_path / "f", names, 2, 2), val_fraction=0.25))
    counts = [Counter(row[2] for row in rows if row[0] == "val") for rows in (before, after)]
    assert counts == [{"a": 15, "b": 5}, {"a": 15, "b": 15}]
    assert {row for row in before if row[2] == "a"} <= set(after)
    for bad in (0.0, 1.0, -3.0):
        with pytest.raises(UsageError, match="between 0 and 1"):
            open_source("folder", tmp_path / "f", val_fraction=bad)
    with pytest.raises(UsageError, match="has one"):
        open_source("imagenet", tmp_path / "f", val_fraction=0.5)
    with pytest.raises(UsageError, match="split of their own"):
        open_source("folder", make_folder(tmp_path / "g", ["train/1.png"]), val_fraction=0.5).records()


@pytest.mark.parametrize(
    ("images", "texts", "named"),
    [
        (["train/1.png", "test/1.png"], ["train/metadata.csv", "test/metadata.csv"], "test/metadata.csv, train/"),
        (["images/cat/1.png", "images/dog/1.png"], ["meta/train.txt", "meta/test.json", "meta/labels.txt"], "meta/te"),
        (["images/cat/1.png", "images/dog/1.png"], ["train_test_split.txt", "README.txt"], "train_test_split.txt may "),
        (["Train/0/1.png", "Test/1.png"], ["Test.csv"], "Test.csv may say"),
        (["train/cat/1.png", "val/cat/1.png"], ["train.csv", "val.csv"], None),
        (["cat/1.png", "dog/1.png"], ["LICENSE.txt", "Readme.md", "trainer.json"], None),
    ],
)
def test_tables_that_may_say_classes_or_splits_are_named(
    tmp_path: Path, images: list[str], texts: list[str], named: str | None
) -> None:
    """What Hugging Face, Food-101 and CUB keep beside their images; classes and splits of folders are known without."""
    folder = make_folder(tmp_path / "f", images, 2, 2)
    for text in texts:
        (folder / text).parent.mkdir(exist_ok=True)
        (folder / text).write_text("x")
    found = str(open_source("folder", folder).others)
    assert ("which is not read; `shard manifest` takes a table" in found) == (named is not None)
    assert (named or "were left out") in found


def test_jpegs_as_browsers_on_windows_call_them(tmp_path: Path) -> None:
    """.jfif: a class of them became no class, its images other files."""
    folder = make_folder(tmp_path / "f", ["cat/1.jpg", "dog/2.jpg"])
    (folder / "dog/2.jpg").rename(folder / "dog/2.JFIF")
    source = open_source("folder", folder)
    assert source.classes == ("cat", "dog")
    assert [(record.key, source.read(record).shape) for record in source.records()] == [
        ("cat_1", (24, 32, 3)),
        ("dog_2", (24, 32, 3)),
    ]


def test_hidden_files_and_others_are_counted(tmp_path: Path) -> None:
    of_systems = ["__MACOSX/a.png", "@eaDir/a.png/SYNOPHOTO_THUMB_M.png", "$RECYCLE.BIN/S-1/a.png", "#recycle/a.png"]
    folder = make_folder(tmp_path / "f", ["a.png", ".b.png", ".cache/c.png", *of_systems])
    (folder / "notes.txt").write_text("hello")
    source = open_source("folder", folder)
    assert [record.name for record in source.records()] == ["a.png"]
    assert (source.left_out, source.others.hidden) == (7, 6)


def test_a_tar_is_its_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["b/2.png", "a/1.jpg", "a/3.bmp"])
    tarred = open_source("folder", make_tar(folder, tmp_path / "t.tar", "some/where/"))
    plain = open_source("folder", folder)
    assert described(tarred) == described(plain)
    there = pickle.loads(pickle.dumps(tarred))
    for ours, theirs in zip(plain.records(), tarred.records(), strict=True):
        assert np.array_equal(plain.read(ours), there.read(theirs))


def test_no_validation_image_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_folder(tmp_path / "f", ["cat/1.png", "dog/1.png"], 2, 2)
    records = open_source("folder", folder, val_fraction=0.5).records()
    assert [record.split for record in records] == ["train", "train"]
    assert [record.getMessage() for record in caplog.records] == [
        "no image is validation: of a class with a single image it is for training"
    ]


def test_pickled_sources_are_small(tmp_path: Path) -> None:
    """Every job of a worker pool carries one."""
    source = open_source("folder", make_folder(tmp_path / "f", [f"{i}.png" for i in range(50)], 2, 2))
    records = source.records()
    assert len(pickle.dumps(source)) < 1000
    assert np.array_equal(pickle.loads(pickle.dumps(source)).read(records[0]), picture(0, 2, 2))


def test_bad_tars(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["1.png", "2.png"])
    tar = make_tar(folder, tmp_path / "t.tar")
    for magic, packer in PACKED.items():
        (tmp_path / "packed.tar").write_bytes(magic + bytes(1000))
        with pytest.raises(FormatError, match=f"packed with {packer}, which is not read; unpack it first"):
            open_source("folder", tmp_path / "packed.tar").records()
    with pytest.raises(FormatError, match="gunzip it"):
        open_source("folder", make_tar(folder, tmp_path / "t.tar.gz")).records()
    for length in (700, 1500, 2100):
        (tmp_path / "cut.tar").write_bytes(tar.read_bytes()[:length])
        with pytest.raises(FormatError, match="cut short"):
            open_source("folder", tmp_path / "cut.tar").records()
    with tarfile.open(tmp_path / "up.tar", "w") as up:
        up.add(folder / "1.png", "../1.png")
    with pytest.raises(FormatError, match="leaves its folder"):
        open_source("folder", tmp_path / "up.tar").records()


def test_an_updated_tar_holds_the_later_file(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["1.png"])
    tar = make_tar(folder, tmp_path / "t.tar")
    (folder / "1.png").write_bytes(encoded(picture(9)))
    with tarfile.open(tar, "a") as more:
        more.add(folder / "1.png", "1.png")
    source = open_source("folder", tar)
    assert np.array_equal(source.read(source.records()[0]), picture(9))


def test_bad_files_are_errors_of_their_own(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["1.png", "2.png"])
    (folder / "1.png").write_bytes(b"")
    for path in (folder, make_tar(folder, tmp_path / "t.tar")):
        source = open_source("folder", path)
        with pytest.raises(ValueError, match="empty"):
            source.read(source.records()[0])
        assert np.array_equal(source.read(source.records()[1]), picture(1))


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", ["a/1.png", "b/1.png"])
    os.symlink(folder, folder / "a" / "again")
    os.symlink(folder / "b", folder / "c")
    assert [row[1] for row in described(open_source("folder", folder))] == ["a_1", "b_1", "c_1"]


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there"):
        open_source("folder", tmp_path / "none")
    with pytest.raises(UsageError, match=r"stl10, imagenet, .*folder"):
        open_source("cifar", tmp_path)
    with pytest.raises(FormatError, match=r"holds no \.jpg"):
        open_source("folder", tmp_path).records()


def test_keys() -> None:
    """Valid, different, and the plain ones readable; equal ones are told apart by their place alone."""
    places = [
        "a/b_c.jpg",
        "a_b/c.png",
        "a/ü.png",
        "a/x y.jpg",
        "a/x-y.jpg",
        "7.JPEG",
        "v1.2/z.jpg",
        "p/" + "q" * 90 + ".png",
    ]
    keys = unique_keys(places)
    assert len(set(keys)) == len(keys)
    assert all(
        1 <= len(key) <= 80 and key.isascii() and key.replace("-", "").replace("_", "").isalnum() for key in keys
    )
    assert keys[4:6] == ["a_x-y", "7"]
    assert keys[0].startswith("a_b_c-")
    assert unique_keys(places[::-1]) == keys[::-1]


def test_limited_takes_the_first_of_each_split(tmp_path: Path) -> None:
    source = open_source(
        "folder", make_folder(tmp_path / "f", [f"{s}/{i}.png" for s in ("train", "val") for i in "abc"])
    )
    assert [record.key for record in limited(source.records(), 2)] == ["a", "b", "a", "b"]


def test_imagenet_classes_are_the_same_for_all_splits(tmp_path: Path) -> None:
    names = ["train/n00000002/n00000002_7.JPEG", "train/n00000001/x.JPEG", "val/n00000002/ILSVRC_1.JPEG"]
    source = open_source("imagenet", make_folder(tmp_path / "f", names))
    assert described(source) == [
        ("train", "x", "n00000001"),
        ("train", "n00000002_7", "n00000002"),
        ("val", "ILSVRC_1", "n00000002"),
    ]
    with pytest.raises(FormatError, match=r"train/1\.JPEG does not lie in"):
        open_source("imagenet", make_folder(tmp_path / "f", ["train/1.JPEG"])).records()
