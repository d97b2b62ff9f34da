"""Tiny ImageNet in its own layout: a folder, a tar, a zip."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_images import encoded, make_tar, picture
from typer.testing import CliRunner

import cli
from pipelines.build.images import shard_images
from pipelines.sources import ImageSource, open_source
from pipelines.sources.subset import limited
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet

WNIDS = ("n02124075", "n01443537", "n04067472")  # not in ascending order, as in the distribution
TRAIN = [f"train/{wnid}/images/{wnid}_{i}.JPEG" for wnid in WNIDS for i in (0, 10, 2)]
VAL = {"val_0.JPEG": WNIDS[2], "val_1.JPEG": WNIDS[0], "val_10.JPEG": WNIDS[2]}
GREY = TRAIN[1]


def jpeg(seed: int) -> bytes:
    return encoded(picture(seed, 64, 64), "jpg", quality=90)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    names = [*TRAIN, *(f"val/images/{name}" for name in VAL), "test/images/test_0.JPEG"]
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(seed))
    (root / GREY).write_bytes(encoded(picture(1, 64, 64)[..., 0], "jpg"))
    for wnid in WNIDS:
        (root / f"train/{wnid}/{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text("n00001740\tentity\nn01443537\tgoldfish, Carassius auratus\nn04067472\treel\n")
    lines = [f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in {**VAL, "val_2.JPEG": WNIDS[1]}.items()]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    return root


def make_zip(folder: Path, path: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("tiny-imagenet-200") if hasattr(archive, "mkdir") else None
        for file in sorted(folder.rglob("*"), reverse=True):
            if file.is_file():
                archive.write(file, f"tiny-imagenet-200/{file.relative_to(folder)}")
    return path


def described(source: ImageSource) -> list[tuple]:
    return [(r.split, r.key, r.label, r.meta["file"], r.meta["wnid"]) for r in source.records()]


def test_labels_are_line_numbers_and_annotations(folder: Path) -> None:
    source = open_source("tiny-imagenet", folder)
    assert source.classes == ("n02124075", "goldfish, Carassius auratus", "reel")
    rows = described(source)
    assert [row[:3] for row in rows if row[0] == "val"] == [
        ("val", "val_0", 2),
        ("val", "val_1", 0),
        ("val", "val_10", 2),
    ]
    train = [row for row in rows if row[0] == "train"]
    assert [row[3] for row in train] == sorted(TRAIN)
    assert all(label == WNIDS.index(wnid) and f"/{wnid}/" in file for _, _, label, file, wnid in train)
    assert len(rows) == len(TRAIN) + len(VAL)
    assert source.left_out == 1 + len(WNIDS)  # test_0.JPEG and the boxes


def test_pixels_are_pils_and_grey_is_converted(folder: Path) -> None:
    source = pickle.loads(pickle.dumps(open_source("tiny-imagenet", folder)))
    for record in open_source("tiny-imagenet", folder).records():
        with Image.open(folder / str(record.meta["file"])) as image:
            assert image.mode == ("L" if record.meta["file"] == GREY else "RGB")
            assert np.array_equal(source.read(record), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["tar", "deflated", "stored", "inner folder"])
def test_archives_hold_the_same(folder: Path, tmp_path: Path, kind: str) -> None:
    path = {
        "tar": lambda: make_tar(folder, tmp_path / "t.tar", "tiny-imagenet-200/"),
        "deflated": lambda: make_zip(folder, tmp_path / "t.zip"),
        "stored": lambda: make_zip(folder, tmp_path / "t.zip", zipfile.ZIP_STORED),
        "inner folder": lambda: folder.parent,
    }[kind]()
    one, other = open_source("tiny-imagenet", folder), open_source("tiny-imagenet", path)
    assert described(other) == described(one)
    assert (other.classes, other.left_out) == (one.classes, one.left_out)
    worker = pickle.loads(pickle.dumps(other))
    for ours, theirs in zip(one.records(), other.records(), strict=True):
        assert np.array_equal(one.read(ours), worker.read(theirs))


@pytest.mark.parametrize("workers", [1, 2])
def test_shards_from_a_zip(folder: Path, tmp_path: Path, workers: int) -> None:
    source = open_source("tiny-imagenet", make_zip(folder, tmp_path / "t.zip"))
    shard_images(source, tmp_path / "out", encoding="raw", samples_per_shard=4, workers=workers)
    index = ShardSet.open(tmp_path / "out").images("val")
    assert (index.labels.tolist(), index.meta["wnid"]) == ([2, 0, 2], list(VAL.values()))
    with Image.open(folder / "val/images/val_10.JPEG") as image:
        assert np.array_equal(index.read_image(2), np.asarray(image))


def test_images_of_several_sizes(folder: Path, tmp_path: Path) -> None:
    """--size, which is advised, is there."""
    (folder / TRAIN[0]).write_bytes(encoded(picture(0, 48, 64), "jpg"))
    args = ["shard", "tiny-imagenet", "--source", str(folder), "--workers", "0", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.seqjepa_data_app, args)
    assert (result.exit_code, "give --size, and --fit crop to" in result.stderr) == (2, True)
    assert CliRunner().invoke(cli.seqjepa_data_app, [*args, "--size", "32", "--fit", "crop"]).exit_code == 0
    with Image.open(folder / "val/images/val_10.JPEG") as image:
        small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(ShardSet.open(tmp_path / "out").images("val").read_image(2), small)


def test_a_subset_is_data(folder: Path) -> None:
    for file in (folder / "val").rglob("*"):
        if file.is_file():
            file.unlink()
    (folder / "words.txt").unlink()
    for file in (folder / f"train/{WNIDS[1]}/images").iterdir():
        file.unlink()
    source = open_source("tiny-imagenet", folder)
    assert source.classes == WNIDS
    assert {(row[0], row[2]) for row in described(source)} == {("train", 0), ("train", 2)}


def test_a_limit_keeps_the_same_classes_in_both_splits(folder: Path) -> None:
    for seed, wnid in enumerate(WNIDS):  # three of each class in either split; once "--limit" took the first names
        (folder / f"val/{wnid}/images").mkdir(parents=True)
        for i in range(2):
            (folder / f"val/{wnid}/images/more_{i}.JPEG").write_bytes(jpeg(50 + 2 * seed + i))
    source = open_source("tiny-imagenet", folder)
    for limit, classes in ((2, {0, 1}), (3, {0, 1, 2}), (6, {0, 1, 2})):
        rows = [(record.split, record.label) for record in limited(source.records(), limit)]
        assert [sum(row[0] == split for row in rows) for split in ("train", "val")] == [limit, limit]
        assert {row[1] for row in rows if row[0] == "train"} == {row[1] for row in rows if row[0] == "val"} == classes


def test_a_val_that_was_sorted_into_classes(folder: Path) -> None:
    """As a script that goes around leaves it, with or without its annotations; equal names get keys from the path."""
    for name, wnid in VAL.items():
        (folder / f"val/{wnid}/images").mkdir(parents=True, exist_ok=True)
        (folder / f"val/images/{name}").rename(folder / f"val/{wnid}/images/{name}")
    before = [row[:3] for row in described(open_source("tiny-imagenet", folder)) if row[0] == "val"]
    assert sorted(before) == [("val", "val_0", 2), ("val", "val_1", 0), ("val", "val_10", 2)]
    (folder / "val/val_annotations.txt").unlink()
    (folder / f"val/{WNIDS[0]}/images/val_0.JPEG").write_bytes(jpeg(99))
    (folder / "train").rename(folder / "Train")
    rows = described(open_source("tiny-imagenet", folder))
    assert [row[:3] for row in rows if row[0] == "val"] == [
        ("val", f"{WNIDS[0]}_images_val_0", 0),
        ("val", f"{WNIDS[0]}_images_val_1", 0),
        ("val", f"{WNIDS[2]}_images_val_0", 2),
        ("val", f"{WNIDS[2]}_images_val_10", 2),
    ]
    assert sum(row[0] == "train" for row in rows) == len(TRAIN)


def test_a_val_that_was_copied_into_classes_is_not_twice_as_large(folder: Path) -> None:
    shutil.copytree(folder / "val/images", folder / f"val/{WNIDS[0]}/images")
    with pytest.raises(FormatError, match=r"val_1\.JPEG, val_10\.JPEG lie in val/ both in folders of classes"):
        open_source("tiny-imagenet", folder).records()
    shutil.rmtree(folder / "val/images")
    assert len(open_source("tiny-imagenet", folder).records()) == len(TRAIN) + len(VAL)


def test_names_that_occur_twice_get_their_ids(folder: Path) -> None:
    (folder / "words.txt").write_text("".join(f"{wnid}\tcrane\n" for wnid in WNIDS[:2]))
    assert open_source("tiny-imagenet", folder).classes == ("crane (n02124075)", "crane (n01443537)", WNIDS[2])


def test_another_label_is_another_set(folder: Path) -> None:
    before = open_source("tiny-imagenet", folder).fingerprint
    assert before["images"] == {"train": 9, "val": 3}
    file = folder / "val/val_annotations.txt"
    file.write_text(file.read_text().replace(f"val_1.JPEG\t{WNIDS[0]}", f"val_1.JPEG\t{WNIDS[1]}"))
    assert open_source("tiny-imagenet", folder).fingerprint != before


def refuse(path: Path, message: str) -> None:
    """By the library, and by the command in one line, exit code 2, with nothing written."""
    with pytest.raises(UsageError, match=message):
        open_source("tiny-imagenet", path).records()
    out = path.parent / "refused"
    done = CliRunner().invoke(
        cli.seqjepa_data_app, ["shard", "tiny-imagenet", "--source", str(path), "--out", str(out), "--workers", "1"]
    )
    assert (done.exit_code, done.output.count("\n")) == (2, 1)
    assert not out.exists()


def test_missing_texts(folder: Path) -> None:
    (folder / "val/val_annotations.txt").unlink()
    refuse(folder, r"has no val/val_annotations\.txt, which holds the labels")
    (folder / "wnids.txt").unlink()
    refuse(folder, r"holds no wnids\.txt, whose line numbers are the labels")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("val/val_annotations.txt", "val_0.JPEG\tn02124075\t0\n", r"val/images/val_1\.JPEG has no line in val/val_ann"),
        ("val/val_annotations.txt", "".join(f"{v}\tn99\t\n" for v in VAL), r"val_0\.JPEG belongs to 'n99', which is"),
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn02124075\nval_0.JPEG\tn02124075\nval_0.JPEG\tn01443537\n",
            r"val/val_annotations\.txt: val_0\.JPEG has the labels n02124075 and n01443537; remove the line of one",
        ),
        ("wnids.txt", "n02124075\nn01443537\n", r"n04067472_0\.JPEG belongs to 'n04067472', which is not in wnids"),
        ("wnids.txt", "n02124075\nn02124075\n", r"wnids\.txt is not one different WordNet id a line"),
        ("wnids.txt", "cat\ndog\n", "is not one different WordNet id"),
        ("wnids.txt", "", r"wnids\.txt: empty"),
    ],
)
def test_texts_at_odds(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    refuse(folder, message)


def test_images_elsewhere(folder: Path) -> None:
    (folder / "train/stray.JPEG").write_bytes(jpeg(0))
    refuse(folder, r"train/stray\.JPEG belongs to 'stray\.JPEG', which is not in")


def test_what_is_something_else(tmp_path: Path, folder: Path) -> None:
    refuse(make_tar(folder, tmp_path / "t.tar.gz"), "gunzip it first")
    other = tmp_path / "other"
    (other / "test").mkdir(parents=True)
    (other / "test/a.JPEG").write_bytes(jpeg(0))
    (other / "wnids.txt").write_text(f"{WNIDS[0]}\n")
    refuse(other, "holds no train/<wnid>/images/ and no val/images/")


def test_a_corrupt_image_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / TRAIN[0]).write_bytes(jpeg(0)[:300])
    with pytest.raises(FormatError, match=TRAIN[0]):
        shard_images(open_source("tiny-imagenet", folder), tmp_path / "out", encoding="raw", workers=1)
    info = shard_images(open_source("tiny-imagenet", folder), tmp_path / "out", encoding="raw", workers=1, max_bad=1)
    assert info.splits["train"].samples == 8


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_cut_zip_is_refused(folder: Path, tmp_path: Path, share: float) -> None:
    path = make_zip(folder, tmp_path / "t.zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refuse(path, "zip archive that is cut short or damaged")


def test_flipped_bytes_in_a_zip_are_found(folder: Path, tmp_path: Path) -> None:
    source = open_source("tiny-imagenet", make_zip(folder, tmp_path / "t.zip", zipfile.ZIP_STORED))
    record = source.records()[0]
    data = bytearray(source.path.read_bytes())
    data[record.position + 30 + len(f"tiny-imagenet-200/{record.name}") + record.length // 2] ^= 4
    source.path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="its checksum differs"):
        source.read(record)
    source.path.write_bytes(bytes(data[: record.position + 100]))
    with pytest.raises(ValueError, match="cut short"):
        source.read(record)


def test_zips_that_are_not_read(folder: Path, tmp_path: Path) -> None:
    refused = open_source("tiny-imagenet", make_zip(folder, tmp_path / "t.zip", zipfile.ZIP_LZMA))
    with pytest.raises(FormatError, match=r"method 14.*zip it again"):
        refused.records()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../outside.JPEG", jpeg(0))
    (tmp_path / "up.zip").write_bytes(buffer.getvalue())
    refuse(tmp_path / "up.zip", "leaves its folder")


def test_a_small_file_that_swells_is_not_unpacked(tmp_path: Path) -> None:
    from pipelines.archives.zip import unpack, walk_zip

    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.JPEG", bytes(5_000_000))
    (member,) = walk_zip(tmp_path / "bomb.zip", [])
    offset, packed = member.offset, member.length
    assert len(unpack(tmp_path / "bomb.zip", offset, packed, 5_000_000)) == 5_000_000
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        unpack(tmp_path / "bomb.zip", offset, packed, 1000)


def test_the_command_says_what_it_wrote(folder: Path, tmp_path: Path) -> None:
    words = [
        "shard",
        "tiny-imagenet",
        "--source",
        str(folder),
        "--out",
        str(tmp_path / "o"),
        "--workers",
        "1",
        "--json",
    ]
    done = CliRunner().invoke(cli.seqjepa_data_app, words)
    contents = json.loads(done.output)
    assert (done.exit_code, contents["kind"]) == (0, "image")
    assert {name: split["samples"] for name, split in contents["splits"].items()} == {"train": 9, "val": 3}
