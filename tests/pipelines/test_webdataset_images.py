"""Anybody's webdataset tars → image shards: what webdataset yields, image for image, or one line that says why not."""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import pickle
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_tars import Server, serving, some_samples, write_tar
from interposed import before_call
from small_3die import same_folders
from small_images import encoded, picture
from typer.testing import CliRunner

import cli
from pipelines.build.images import shard_images
from pipelines.sources.webdataset import WebdatasetImages
from pipelines.sources.webdataset.options import TarOptions, tars_of
from pipelines.sources.webdataset.spool import MARK, Spool, _shared
from shards.errors import FailureError, FormatError, UsageError
from shards.machine import lock
from shards.reader import ShardSet

webdataset = pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars

BLOCK = 512


def shard(out: Path, *sources: str | Path, spool: Path | None = None, **options: Any) -> ShardSet:
    own = {
        name: options.pop(name) for name in ("split", "label", "classes", "image", "val_fraction") if name in options
    }
    spooled = Spool(spool or out.with_name(f"{out.name}.spool"))
    try:
        source = WebdatasetImages(TarOptions(tuple(map(str, sources)), **own), spooled)
        shard_images(source, out, workers=0, **{"encoding": "raw", **options})
        spooled.remove()
    finally:
        spooled.release()
    return ShardSet.open(out)


def pictures(shards: ShardSet, split: str = "train") -> list[np.ndarray]:
    index = shards.images(split)
    return [index.read_image(row) for row in range(len(index.keys))]


def yielded(urls: Any, suffix: str = "png") -> list[dict[str, Any]]:
    """What webdataset itself makes of them."""
    rows = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8")
    return [{"key": row["__key__"], "image": row[suffix], "cls": row.get("cls")} for row in rows]


def test_equals_webdataset(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"in/s-{number:03d}.tar", some_samples(4, first=4 * number))
    urls = str(tmp_path / "in/s-{000..002}.tar")
    shards = shard(tmp_path / "out", urls, samples_per_shard=5)
    index, expected = shards.images("train"), yielded(urls)
    assert list(index.keys) == [row["key"] for row in expected]
    assert index.labels.tolist() == [row["cls"] for row in expected]
    for found, row in zip(pictures(shards), expected, strict=True):
        np.testing.assert_array_equal(found, row["image"])
    assert shards.info.classes == ("0", "1", "2")
    assert shards.info.name == "in"
    assert index.meta["tar"][5] == "s-001"
    assert index.meta["file"][5] == "000005.png"


@pytest.mark.parametrize(
    "names",
    [
        ["a.JPG", "b.Jpg"],
        ["v1.0/a.jpg", "v1.0/b.jpg", "v1.1/a.jpg"],
        ["./n01/x.jpg", "./n01/y.jpg"],
        [f"{'long' * 40}/{i}.jpg" for i in range(3)],
    ],
)
def test_keys_as_webdataset_takes_them(tmp_path: Path, names: list[str]) -> None:
    write_members(tmp_path / "t.tar", {name: encoded(picture(i), "jpg") for i, name in enumerate(names)})
    found = shard(tmp_path / "out", tmp_path / "t.tar")
    expected = yielded(str(tmp_path / "t.tar"), "jpg")
    assert len(expected) == len(names) == len(set(found.images("train").keys))
    for image, row in zip(pictures(found), expected, strict=True):
        np.testing.assert_array_equal(image, row["image"])


def write_members(path: Path, members: dict[str, bytes], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def headers_of(path: Path) -> list[tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return tar.getmembers()


CUTS = {
    "in the first header": lambda last: 100,
    "in a header": lambda last: last.offset + 200,
    "before a header": lambda last: last.offset,
    "in a content": lambda last: last.offset_data + 3,
    "after the last content": lambda last: last.offset_data + last.size,
    "before the end mark": lambda last: -(-(last.offset_data + last.size) // BLOCK) * BLOCK,
    "in the end mark": lambda last: -(-(last.offset_data + last.size) // BLOCK) * BLOCK + 300,
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", CUTS)
def test_a_cut_tar_is_an_error(tmp_path: Path, place: str, packed: bool) -> None:
    """Every sample may be there, as before the end mark: nobody can tell, and it is refused."""
    whole = write_tar(tmp_path / "whole.tar", some_samples(3))
    data = whole.read_bytes()[: CUTS[place](headers_of(whole)[-1])]
    cut = tmp_path / ("cut.tar.gz" if packed else "cut.tar")
    cut.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(FormatError, match=f"{cut.name} is cut short"):
        shard(tmp_path / "out", cut)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([cut.name, "whole.tar"])


def test_blocks_behind_the_end_mark_may_be_missing(tmp_path: Path) -> None:
    """One block of zeros is the mark; that the record is not filled up to 10,240 bytes is no loss."""
    whole = write_tar(tmp_path / "whole.tar", some_samples(3))
    last = headers_of(whole)[-1]
    end = CUTS["before the end mark"](last) + BLOCK
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/whole.tar").write_bytes(whole.read_bytes()[:end])
    assert len(pictures(shard(tmp_path / "out", tmp_path / "cut/whole.tar"))) == 3


def test_cut_gzip(tmp_path: Path) -> None:
    data = gzip.compress(write_tar(tmp_path / "t.tar", some_samples(3)).read_bytes())
    for size in (len(data) - 4, len(data) // 2, 12):
        (tmp_path / "t.tar.gz").write_bytes(data[:size])
        with pytest.raises(FormatError, match=r"t\.tar\.gz is cut short or damaged"):
            shard(tmp_path / "out", tmp_path / "t.tar.gz")
    (tmp_path / "t.tar.gz").write_bytes(data)
    assert len(pictures(shard(tmp_path / "out", tmp_path / "t.tar.gz"))) == 3
    assert not (tmp_path / "out.spool").exists()


def test_a_damaged_header_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    """tarfile, and so webdataset, ends quietly at such a header: two samples of three are lost."""
    tar = write_tar(tmp_path / "t.tar", some_samples(3))
    data = bytearray(tar.read_bytes())
    second = next(info for info in headers_of(tar) if info.name.startswith("000001"))
    data[second.offset + 20] ^= 1
    tar.write_bytes(bytes(data))
    assert len(yielded(str(tar))) == 1
    with pytest.raises(FormatError, match=r"t\.tar is not a tar archive, or is damaged: a header's checksum"):
        shard(tmp_path / "out", tar)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    samples = some_samples(4, suffix="jpg")
    samples[2]["jpg"] = samples[2]["jpg"][:-40]
    tar = write_tar(tmp_path / "t.tar", samples)
    with pytest.raises(FormatError, match=r"--max-bad allows 0: t: 000002\.jpg: corrupt JPEG"):
        shard(tmp_path / "out", tar)
    assert len(pictures(shard(tmp_path / "out", tar, max_bad=1))) == 3


def test_mistakes_are_named_all_at_once(tmp_path: Path) -> None:
    image = encoded(picture(0), "jpg")
    members = {
        "a.jpg": image,
        "a.cls": b"1",
        "b.cls": b"2",
        "c.jpg": image,
        "c.png": image,
        "d.jpg": image,
        "d.cls": b"-7",
        "e.jpg": image,
        "f.jpg": image,
        "f.JPG": image,
        "f.cls": b"1",
        "a.txt": b"again",
        "g.00.jpg": image,
        "g.01.jpg": image,
    }
    write_members(tmp_path / "t.tar", members)
    with pytest.raises(FormatError) as raised:
        shard(tmp_path / "out", tmp_path / "t.tar")
    text = str(raised.value)
    assert "7 mistakes" in text
    for line in (
        "t.tar, sample b: no image (it has cls;",
        "t.tar, sample c: 2 images may be meant (c.jpg, c.png)",
        "t.tar, sample d: its label is -7",
        "t.tar, sample e: no label, others of train have one",
        "t.tar: f.JPG: duplicate file name",
        "t.tar, sample a: its files lie in two places",
        "t.tar, sample g: it has 2 images, the first sample has one",
    ):
        assert line in text
    assert not (tmp_path / "out").exists()


def test_keys_that_begin_anew_in_every_tar(tmp_path: Path) -> None:
    for name in ("x-0", "x-1"):
        write_tar(tmp_path / f"{name}.tar", some_samples(2))
    found = shard(tmp_path / "out", tmp_path / "x-{0..1}.tar")
    assert list(found.images("train").keys) == ["x-0_000000", "x-0_000001", "x-1_000000", "x-1_000001"]


def test_an_empty_tar_among_others(tmp_path: Path) -> None:
    """As img2dataset leaves it where every download failed."""
    write_tar(tmp_path / "s-0.tar", [])
    write_tar(tmp_path / "s-1.tar", some_samples(3))
    (tmp_path / "._s-1.tar").write_bytes(b"\0\5\x16\7")  # as macOS puts beside files on other systems' disks
    code, _ = run("--source", tmp_path, "--workers", 0, "--out", tmp_path / "out")
    assert code == 0
    assert len(pictures(ShardSet.open(tmp_path / "out"))) == 3
    code, said = run("--source", tmp_path / "s-0.tar", "--out", tmp_path / "none")
    assert code == 2
    assert "has no samples with images" in said


def test_the_same_tar_twice_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", some_samples(2))
    with pytest.raises(UsageError, match=r"t\.tar is given twice"):
        shard(tmp_path / "out", tmp_path / "t.tar", f"val={tmp_path}/../{tmp_path.name}/t.tar")


def test_a_tar_beside_itself_in_another_packing_is_refused(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t-0.tar", some_samples(2))
    (tmp_path / "t-0.tar.gz").write_bytes(gzip.compress(tar.read_bytes()))
    with pytest.raises(UsageError, match=r"t-0\.tar and t-0\.tar\.gz may be one tar, packed in two ways; move one"):
        shard(tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["opetus-0", "koe-0"], True),
        (["a/0", "b/0"], True),
        (["train-0", "train-1"], False),
        ("wxyz", False),
    ],
)
def test_tars_of_a_few_names_may_be_splits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: list[str], said: bool
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / f"{name}.tar", some_samples(1))
    places = [str(tmp_path / f"{name}.tar") for name in names]
    assert len(tars_of(places)) == len(names)
    assert ("are all train; if they are splits, give each its own" in caplog.text) == said
    caplog.clear()
    tars_of([f"train={place}" for place in places])
    assert not caplog.records


def test_labels_by_name_and_by_field(tmp_path: Path) -> None:
    image = encoded(picture(0))
    named = [{"__key__": f"{i}", "png": image, "cls": name.encode()} for i, name in enumerate(["dog", "cat", "dog"])]
    found = shard(tmp_path / "named", write_tar(tmp_path / "n.tar", named))
    assert found.info.classes == ("cat", "dog")
    assert found.images("train").labels.tolist() == [1, 0, 1]
    named[1]["cls"], named[2]["cls"] = "caf\xe9".encode(), "cafe\u0301".encode()
    with pytest.raises(FormatError, match=r"'cafe.u0301' and 'caf.xe9' are one name, .*, in two spellings"):
        shard(tmp_path / "spelled", write_tar(tmp_path / "s.tar", named))
    fields = [{"__key__": f"{i}", "png": image, "json": {"kind": str(i)}} for i in (10, 9)]
    assert shard(tmp_path / "texts", write_tar(tmp_path / "x.tar", fields), label="kind").info.classes == ("9", "10")
    floats = [{"__key__": f"{i}", "png": image, "cls": f"{i}.0".encode()} for i in (2, 0)]  # as np.savetxt writes them
    assert shard(tmp_path / "floats", write_tar(tmp_path / "l.tar", floats)).images("train").labels.tolist() == [2, 0]
    fields = [{"__key__": f"{i}", "png": image, "json": {"kind": i, "exif": float("nan")}} for i in (2, 0)]
    tar = write_tar(tmp_path / "f.tar", fields)
    assert shard(tmp_path / "fields", tar, label="kind").images("train").labels.tolist() == [2, 0]
    assert shard(tmp_path / "none", tar).images("train").labels.tolist() == [-1, -1]
    given = shard(tmp_path / "given", tar, label="kind", classes=("a", "b", "c"))
    assert given.info.classes == ("a", "b", "c")
    with pytest.raises(FormatError, match="label is 2, which is none of the 2 of --classes"):
        shard(tmp_path / "few", tar, label="kind", classes=("a", "b"))


def test_splits(tmp_path: Path) -> None:
    for name in ("train-0", "val-0"):
        write_tar(tmp_path / f"{name}.tar", some_samples(4))
    with pytest.raises(UsageError, match="names say that they are train and val, and all would be train"):
        shard(tmp_path / "out", tmp_path)
    found = shard(tmp_path / "out", f"train={tmp_path}/train-*.tar", f"val={tmp_path}/val-*.tar")
    assert found.splits == ("train", "val")
    share = shard(tmp_path / "share", tmp_path / "train-0.tar", val_fraction=0.25)
    assert [len(share.images(split).keys) for split in ("train", "val")] == [3, 1]
    with pytest.raises(UsageError, match="--val-fraction is for training tars alone"):
        shard(tmp_path / "no", f"val={tmp_path}/val-0.tar", val_fraction=0.5)


def test_a_tar_is_no_training_by_default_that_says_otherwise(tmp_path: Path) -> None:
    """In whichever word of its name; folders tell where there are several."""
    for name in ("in1k-validation-0", "in1k-train-0", "train/0", "val/0", "trainval-0", "latest-0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_tar(tmp_path / f"{name}.tar", some_samples(2))
    write_tar(tmp_path / "my_eval.tar", some_samples(2))
    for lone in ("in1k-validation-0.tar", "my_eval.tar"):
        with pytest.raises(UsageError, match=f"{lone} is val by its name, and would be train; say which"):
            shard(tmp_path / "out", tmp_path / lone)
    for mixed in (f"{tmp_path}/in1k-*.tar", f"{tmp_path}/{{train,val}}/0.tar"):
        with pytest.raises(UsageError, match="names say that they are train and val"):
            shard(tmp_path / "out", mixed)
    said = (("said", f"train={tmp_path}/in1k-validation-0.tar"), ("both", f"{tmp_path}/trainval-0.tar"))
    for out, source in (*said, ("word", f"{tmp_path}/latest-0.tar"), ("folder", f"{tmp_path}/val")):
        assert shard(tmp_path / out, source).splits == ("train",)


class Bomb:
    def __reduce__(self) -> tuple:
        return os.mkdir, (f"{os.environ['BOMB']}",)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "went-off"))
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb()], object), allow_pickle=True)
    sample = {"png": encoded(picture(0)), "pkl": pickle.dumps(Bomb()), "pth": pickle.dumps(Bomb())}
    tar = write_tar(tmp_path / "t.tar", [{"__key__": "a", **sample, "npy": objects.getvalue()}])
    assert len(pictures(shard(tmp_path / "out", tar))) == 1
    raw = write_tar(tmp_path / "raw.tar", [{"__key__": "a", "npy": objects.getvalue()}])
    with pytest.raises(FormatError, match="sample a: no image"):
        shard(tmp_path / "raw", raw)
    assert not (tmp_path / "went-off").exists()


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_refused(tmp_path: Path, kind: bytes) -> None:
    write_members(tmp_path / "t.tar", {"a.jpg": encoded(picture(0), "jpg")})
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = kind, "a.jpg"
    with tarfile.open(tmp_path / "t.tar", "a") as tar:
        tar.addfile(link)
    with pytest.raises(FormatError, match=r"holds b\.jpg as a .*link, which webdataset passes over"):
        shard(tmp_path / "out", tmp_path / "t.tar")


NASTY = {
    "marked bad": ({"a.jpg": b"", "a.__bad__": b"1"}, r"holds a\.__bad__: suffixes that begin with __"),
    "of no key": ({"a.__key__": b"b"}, "suffixes that begin with __"),
    "two dots": ({"a..jpg": b""}, r"sample a: no image \(it has \.jpg"),
    "an empty label": ({"a.jpg": b"", "a.cls": b" "}, "sample a: its label is ''"),
    "a label in Latin-1": ({"a.jpg": b"", "a.cls": b"\xe9"}, "sample a: its cls is not UTF-8"),
    "a large label": ({"a.jpg": b"", "a.cls": b"9" * 5000}, "sample a: "),
    "a folder above": ({"../a.jpg": b""}, r"holds \.\./a\.jpg, a name with"),
    "nothing": ({}, "has no samples with images"),
    "no suffix": ({"README": b"hello"}, "has no samples with images"),
}


@pytest.mark.parametrize("kind", NASTY)
def test_nasty_samples(tmp_path: Path, kind: str) -> None:
    members, text = NASTY[kind]
    image = encoded(picture(0), "jpg")
    tar = write_members(tmp_path / "t.tar", {name: data or image for name, data in members.items()})
    with pytest.raises(FormatError, match=text):
        shard(tmp_path / "out", tar)
    assert not (tmp_path / "out").exists()


def test_names_that_leave_a_folder_are_only_names(tmp_path: Path) -> None:
    image = encoded(picture(0), "jpg")
    tar = write_members(tmp_path / "t.tar", {"/etc/a.jpg": image, ".b/b.jpg": image, "x\ny.jpg": image})
    found = shard(tmp_path / "out", tar)
    assert len(set(found.images("train").keys)) == 3 == len(yielded(str(tar), "jpg"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.tar"]


def test_one_of_several_images(tmp_path: Path) -> None:
    sample = {"__key__": "a", "left.png": encoded(picture(1)), "right.png": encoded(picture(2)), "seg.png": b"-"}
    tar = write_tar(tmp_path / "t.tar", [sample])
    with pytest.raises(FormatError, match=r"no image \(it has left\.png, right\.png, seg\.png"):
        shard(tmp_path / "none", tar)
    np.testing.assert_array_equal(pictures(shard(tmp_path / "out", tar, image="right.png"))[0], picture(2))


def test_our_own_sets_again(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", some_samples(5))
    names = ("cat", "dog", "axolotl", "never seen")
    first = shard(tmp_path / "first", tmp_path / "t.tar", samples_per_shard=2, classes=names)
    again = shard(tmp_path / "again", tmp_path / "first")
    assert again.info.classes == names
    assert list(again.images("train").keys) == list(first.images("train").keys)
    assert again.images("train").labels.tolist() == first.images("train").labels.tolist()
    for one, other in zip(pictures(again), pictures(first), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_content_under_the_same_names_is_another_set(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", some_samples(3, suffix="bmp"))
    shard(tmp_path / "out", tar)
    write_tar(tar, some_samples(3, suffix="bmp"))
    shard(tmp_path / "out", tar)  # the same bytes, written anew
    write_tar(tar, [{**sample, "bmp": encoded(picture(9), "bmp")} for sample in some_samples(3, suffix="bmp")])
    with pytest.raises(UsageError, match="the source's files have other bytes than then"):
        shard(tmp_path / "out", tar)


def test_the_file_of_classes_is_in_the_command_that_gives_the_set_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", some_samples(4))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    words = ["shard", "webdataset", "--source", tar, "--classes", tmp_path / "names.txt", "--out", tmp_path / "out"]
    assert CliRunner().invoke(cli.seqjepa_data_app, [*map(str, words), "--workers", "0"]).exit_code == 0
    info = ShardSet.open(tmp_path / "out").info
    assert info.classes == ("a", "b", "c")
    assert "--classes names.txt" in info.provenance["command"]


def test_a_command_gives_what_the_file_gives(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", some_samples(4))
    plain = shard(tmp_path / "plain", tar)
    for number, command in enumerate((f"cat {tar}", f"gzip -c {tar}")):
        found = shard(tmp_path / f"out{number}", f"pipe:{command}")
        assert list(found.images("train").keys) == list(plain.images("train").keys)
        for one, other in zip(pictures(found), pictures(plain), strict=True):
            np.testing.assert_array_equal(one, other)
        assert str(tmp_path) not in str(found.info.provenance)
        assert not (tmp_path / f"out{number}.spool").exists()


def test_a_pipe_of_the_shell(tmp_path: Path) -> None:
    """As `--source <(zcat t.tar.gz)` gives it: a file that can be read but once."""
    tar = write_tar(tmp_path / "t.tar", some_samples(4))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(tar.read_bytes()))
    writer.start()
    found = pictures(shard(tmp_path / "out", tmp_path / "pipe"))
    writer.join()
    assert len(found) == 4
    assert not (tmp_path / "out.spool").exists()


@pytest.mark.parametrize("end", ["exit 3", "kill -9 $$"])
def test_a_command_that_fails_is_an_error(tmp_path: Path, end: str) -> None:
    tar = write_tar(tmp_path / "t.tar", some_samples(4))
    with pytest.raises(FailureError, match="broke off: exit code"):
        shard(tmp_path / "out", f"pipe:cat {tar}; {end}")
    assert [path.name for path in tmp_path.iterdir()] == ["t.tar"]


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.seqjepa_data_app, ["shard", "webdataset", *map(str, words)])
    return result.exit_code, result.output


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches URLs with curl")
@pytest.mark.parametrize("promises", [True, False])
def test_a_connection_that_breaks(tmp_path: Path, promises: bool) -> None:
    """The same command goes on with the tar that broke off, and the set is the same byte for byte. A server that does
    not say how long its answer is cannot be told from one that ends: then the tar itself tells.
    """
    tars = {f"s-{i}.tar": write_tar(tmp_path / f"in/s-{i}.tar", some_samples(3, 3 * i)).read_bytes() for i in range(3)}
    with serving(Server(tars, cut={"s-1.tar": 5000}, promises=promises)) as server:
        words = ["--source", f"{server.url}/s-{{0..2}}.tar?token=secret", "--workers", 0, "--out"]
        code, text = run(*words, tmp_path / "out")
        assert code == (1 if promises else 2)
        assert f"s-1.tar?token=secret {'broke off: cut in the middle' if promises else 'is cut short'}" in text
        assert sorted(path.name for path in (tmp_path / "out.spool").iterdir() if path.suffix != ".tar") == [MARK]
        assert not (tmp_path / "out").exists()
        code, text = run(*words, tmp_path / "out")
        assert code == 0
        assert server.asked == ["s-0.tar", "s-1.tar", "s-1.tar", "s-2.tar"]
        assert run(*words, tmp_path / "whole")[0] == 0
    assert same_folders(tmp_path / "out", tmp_path / "whole")
    assert "secret" not in (tmp_path / "out/_meta/dataset.json").read_text()
    assert not (tmp_path / "out.spool").exists()


def test_builders_copy_each_tar_once_and_the_last_one_clears_up(tmp_path: Path) -> None:
    for number in range(6):
        write_tar(tmp_path / f"in/s-{number}.tar", some_samples(2, 2 * number))
    shard(tmp_path / "whole", str(tmp_path / "in/s-{0..5}.tar"))
    (tmp_path / "log").touch()
    source = f"pipe:echo x >> {tmp_path}/log; sleep 0.1; cat {tmp_path}/in/s-{{0..5}}.tar"
    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(shard, tmp_path / "out", source, samples_per_shard=2) for _ in range(3)]:
            done.result()
    assert (tmp_path / "log").read_text() == "x\n" * 6
    assert len(pictures(ShardSet.open(tmp_path / "out"))) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "log", "out", "whole"]


def test_where_there_are_no_locks_one_build_copies_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    tar = write_tar(tmp_path / "t.tar", some_samples(2))
    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    tars, first = TarOptions((f"pipe:cat {tar}",)).tars, Spool(tmp_path / "spool")
    assert len(first.plain(tars)) == 1
    with pytest.raises(UsageError, match="another build copies tars into"):
        Spool(tmp_path / "spool").plain(tars)
    first.remove()
    assert not (tmp_path / "spool").exists()


@pytest.mark.skipif(shutil.which("curl") is None, reason="webdataset fetches URLs with curl")
def test_what_a_server_does_not_have(tmp_path: Path) -> None:
    with serving(Server({"s.tar": b"<html>not a tar</html>"})) as server:
        assert "the server says no" in run("--source", f"{server.url}/t.tar", "--out", tmp_path / "out")[1]
        code, text = run("--source", f"{server.url}/s.tar", "--out", tmp_path / "out")
        assert code == 2
        assert "s.tar is cut short, or not a tar" in text
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "t.tar", some_samples(2))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("…")
    with pytest.raises(UsageError, match="mine is not empty and holds no copies of ours"):
        shard(tmp_path / "out", f"pipe:cat {tar}", spool=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nowhere-{0..3}.tar", "nowhere-0.tar is not there"),
        ("ftpx://host/a.tar", "ftpx: is not known"),
        ("{0..", "write e.g. shards-"),
        ("t-{0..99999999}.tar", "names 100,000,000 tars, at most 1,000,000 are read; write e.g. shards-"),
        ("{a,b}/{0000..9999}-{000..999}.tar", "names 20,000,000 tars, at most 1,000,000"),
        ("", "--source is empty"),
        ("val=", "names nothing in one place"),
        ("t.tar::", "names nothing in one place"),
        (".", "holds no .tar"),
    ],
)
def test_sources_that_are_none(tmp_path: Path, source: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run("--source", source, "--out", tmp_path / "out")
    assert code == 2
    assert text in said


def test_no_cut_and_no_flip_passes_as_a_shorter_set(tmp_path: Path) -> None:
    """At every place: the whole listing, or an error; for a flipped bit a content may be another one, none is gone."""
    whole = write_tar(tmp_path / "t.tar", some_samples(3, suffix="bmp")).read_bytes()
    expected = listed(tmp_path / "t.tar")
    last = headers_of(tmp_path / "t.tar")[-1]
    end = CUTS["before the end mark"](last) + BLOCK
    for size in [*range(0, len(whole), 211), end - 1, end]:
        (tmp_path / "t.tar").write_bytes(whole[:size])
        if size >= end:
            assert listed(tmp_path / "t.tar") == expected
        else:
            with pytest.raises(FormatError):
                listed(tmp_path / "t.tar")
    rng = np.random.default_rng(0)
    headers = [info.offset for info in headers_of_bytes(whole)]
    for at in [*rng.integers(0, end, 100), *(offset + int(rng.integers(BLOCK)) for offset in headers)]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << int(rng.integers(8))
        (tmp_path / "t.tar").write_bytes(bytes(flipped))
        with contextlib.suppress(FormatError):
            assert [place[:3] for place in listed(tmp_path / "t.tar")] == [place[:3] for place in expected]


def listed(tar: Path) -> list[tuple[str, int, int, int]]:
    """(key, place, bytes, label) of each image."""
    source = WebdatasetImages(TarOptions((str(tar),)), Spool(tar.with_name("spool")))
    return [(record.key, record.position, record.length, record.label) for record in source.records()]


def headers_of_bytes(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return tar.getmembers()


def spools_together(tmp_path: Path, tar: Path, number: int, ends: bool) -> bool:
    """One spool begins, and before its number-th system call another, which may end; whether there was such a call."""
    tars, folder, others = TarOptions((f"pipe:cat {tar}",)).tars, tmp_path / f"spool-{number}", []

    def begin() -> None:
        others.append(Spool(folder))
        assert len(others[0].plain(tars)) == 1
        if ends:
            others[0].remove()

    late = Spool(folder)
    with before_call(folder, number, begin) as between:
        late._claim()
    if between.acted:
        assert others[0].plain(tars) == late.plain(tars)
        for spool in (*others, late):
            spool.remove()
    else:
        late.release()
    assert not folder.exists()
    return between.acted


@pytest.mark.parametrize("ends", [False, True])
def test_builds_that_begin_to_copy_at_the_same_moment(tmp_path: Path, ends: bool) -> None:
    tar, number = write_tar(tmp_path / "t.tar", some_samples(2)), 0
    while spools_together(tmp_path, tar, number, ends):
        number += 1
    assert number > 3


def test_who_ends_leaves_the_lock_of_who_came_later(tmp_path: Path) -> None:
    path = tmp_path / "spool" / "lock"
    first, second = _shared(path), _shared(path)
    assert first is not None
    assert second is not None
    assert not first.alone()
    assert second.alone()
    second.release()  # with its file
    third = _shared(path)
    first.release()
    assert third is not None
    assert path.exists()
    assert third.alone()
    third.release()
    assert not path.exists()
