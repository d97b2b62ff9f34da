"""Other pixels under the same names are another set; a copy is the same one, whenever and wherever it was made."""

from __future__ import annotations

import dataclasses
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_3die import jpeg, make_tree, same_folders, shard_3diebench, smooth_image
from small_3die import make_tar as make_3die_tar
from small_images import encoded, make_folder, make_tar, picture

from pipelines.build.fill import OpenShard
from pipelines.build.images import shard_images
from pipelines.saliency.build import build_saliency
from pipelines.saliency.models import ModelChoice
from pipelines.sources import content, open_source
from shards.errors import FormatError, UsageError
from shards.layout import Layout
from shards.machine.files import write_atomic
from shards.metadata import info_to_bytes, read_info
from shards.reader import ShardSet
from shards.verify import verify

A, B = "n01440764", "n02123045"
NAMES = {
    "folder": [f"{kind}/{i}.bmp" for kind in ("cat", "dog") for i in range(3)],
    "imagenet": [f"train/{wnid}/{wnid}_{i}.bmp" for wnid in (A, B) for i in range(3)],
    "tiny-imagenet": [f"train/{wnid}/images/{wnid}_{i}.bmp" for wnid in (A, B) for i in range(3)],
}

QUICK = {"device": "cpu", "workers": 0}


def make_source(kind: str, root: Path) -> Path:
    """Bitmaps, which have one size whatever they show."""
    make_folder(root, NAMES[kind], 6, 8)
    if kind == "tiny-imagenet":
        (root / "wnids.txt").write_text(f"{A}\n{B}\n")
    return root


def make_zip(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            archive.write(file, file.relative_to(folder))
    return path


PACK: dict[str, Callable[[Path, Path], Path]] = {
    "folder": lambda folder, path: shutil.copytree(folder, path, dirs_exist_ok=True),
    "tar": make_tar,
    "zip": make_zip,
}


def repaint(file: Path, seed: int = 99) -> None:
    """Other pixels in as many bytes, at the same time."""
    before = file.stat()
    file.write_bytes(encoded(picture(seed, 6, 8), "bmp"))
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def shard(kind: str, source: Path, out: Path, **options):
    given = {"encoding": "raw", "samples_per_shard": 2, "workers": 0, **options}
    return shard_images(open_source(kind, source), out, **given)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Runs a build that is interrupted after its first shard."""

    def run(build: Callable[[], object]) -> None:
        close = OpenShard.close

        def closing(self, notes) -> None:
            close(self, notes)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(OpenShard, "close", closing)
            with pytest.raises(KeyboardInterrupt):
                build()

    return run


@pytest.mark.parametrize(
    ("kind", "container"),
    [*(("folder", container) for container in PACK), ("imagenet", "folder"), ("tiny-imagenet", "zip")],
)
def test_other_pixels_are_another_set(tmp_path: Path, kind: str, container: str, stopped: Callable) -> None:
    """Even of the same size and time: refused on a rerun, on resuming, and for maps of the others."""
    folder = make_source(kind, tmp_path / "files")
    source = PACK[container](folder, tmp_path / f"source.{container}")
    shard(kind, source, tmp_path / "set")
    stopped(lambda: shard(kind, source, tmp_path / "half"))
    build_saliency(open_source(kind, source), tmp_path / "maps", ModelChoice("spectral-residual"), **QUICK)
    for name in NAMES[kind]:
        repaint(folder / name, seed=100 + len(name))
    PACK[container](folder, source)
    for out in ("set", "half"):
        with pytest.raises(
            UsageError, match=r"another set \(the source's files have other bytes than then.*--overwrite"
        ):
            shard(kind, source, tmp_path / out)
    with pytest.raises(FormatError, match=r"holds maps of other train images than those in .*source.* \(e\.g\. "):
        shard(kind, source, tmp_path / "mapped", maps=tmp_path / "maps")
    assert not (tmp_path / "mapped").exists()
    with pytest.raises(UsageError, match="holds another set"):
        build_saliency(open_source(kind, source), tmp_path / "maps", ModelChoice("spectral-residual"), **QUICK)
    shard(kind, source, tmp_path / "half", overwrite=True)
    index = ShardSet.open(tmp_path / "half").images("train")
    for i, file in enumerate(index.meta["file"]):
        assert np.array_equal(index.read_image(i), picture(100 + len(file), 6, 8))


@pytest.mark.parametrize("container", PACK)
def test_a_copy_is_the_same_set(tmp_path: Path, container: str, stopped: Callable) -> None:
    """With other times, as cp -r and git leave it: nothing to do, a stopped build goes on, all to the same bytes."""
    folder = make_source("folder", tmp_path / "files")
    source = PACK[container](folder, tmp_path / "here" / "pets") if container == "folder" else None
    source = source or PACK[container](folder, tmp_path / f"pets.{container}")
    shard("folder", source, tmp_path / "set")
    stopped(lambda: shard("folder", source, tmp_path / "half"))
    for file in [source, *source.rglob("*")] if source.is_dir() else [source]:
        os.utime(file, (1e9, 1e9))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    shard("folder", source, tmp_path / "set")
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "set").rglob("*")}
    shard("folder", source, tmp_path / "half")
    assert same_folders(tmp_path / "set", tmp_path / "half")
    assert verify(tmp_path / "half").ok


def test_what_no_sample_saw_is_seen_when_a_build_goes_on(
    tmp_path: Path, stopped: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A million files are not all read for a fingerprint; those of finished shards are, where times have changed."""
    monkeypatch.setattr(content, "SAMPLED_FILES", 0)
    source = make_source("folder", tmp_path / "pets")
    for name in ("touched", "changed", "later"):
        stopped(lambda name=name: shard("folder", source, tmp_path / name))
    os.utime(source / "cat/0.bmp", (1e9, 1e9))
    shard("folder", source, tmp_path / "touched")
    repaint(source / "dog/2.bmp")
    shard("folder", source, tmp_path / "later")  # of the third shard: there is no earlier one with it
    assert verify(tmp_path / "later").ok
    repaint(source / "cat/1.bmp")
    with pytest.raises(UsageError, match=r"pets changed after train-000000 was made of it.*--overwrite"):
        shard("folder", source, tmp_path / "changed")
    shard("folder", source, tmp_path / "changed", overwrite=True)
    assert np.array_equal(ShardSet.open(tmp_path / "changed").images("train").read_image(1), picture(99, 6, 8))


@pytest.mark.parametrize(("name", "after"), [("cat/0.bmp", 3), ("dog/2.bmp", 3), ("cat/0.bmp", 1), ("dog/2.bmp", 1)])
def test_a_source_that_changes_while_it_is_read(
    tmp_path: Path, name: str, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind its shard, or ahead of it: then all shards are of the files as they are, but not of the fingerprint."""
    source, close, done = make_source("folder", tmp_path / "pets"), OpenShard.close, []

    def closing(self, notes) -> None:
        close(self, notes)
        done.append(self.name)
        if len(done) == after:
            repaint(source / name)

    monkeypatch.setattr(OpenShard, "close", closing)
    with pytest.raises(UsageError, match=r"changed after (train-00000.|the first shard) was made of it"):
        shard("folder", source, tmp_path / "out")
    assert not Layout(tmp_path / "out").info.exists()


def test_a_map_of_another_picture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a single one among many: no sample may have seen it, but each map says whose it is."""
    source = make_source("folder", tmp_path / "pets")
    build_saliency(open_source("folder", source), tmp_path / "maps", ModelChoice("spectral-residual"), **QUICK)
    tar = make_tar(source, tmp_path / "pets.tar")
    assert shard("folder", tar, tmp_path / "tar", maps=tmp_path / "maps").samples == 6  # the same pictures
    repaint(source / "cat/1.bmp")
    monkeypatch.setattr("pipelines.build.images.SAMPLE_IMAGES", 1)
    with pytest.raises(FormatError, match=r"1 bad so far.*cat/1\.bmp: its map is of another picture of this name"):
        shard("folder", source, tmp_path / "out", maps=tmp_path / "maps")
    assert shard("folder", source, tmp_path / "out", maps=tmp_path / "maps", max_bad=1).samples == 5


def make_older(out: Path) -> None:
    """As a program wrote it that recorded neither content nor rules yet."""
    info = read_info(out)
    fingerprint = {name: value for name, value in info.fingerprint.items() if name != "limit_rule"}
    unknown = ("content_sha256", "val_fraction_rule")
    fingerprint["source"] = {n: value for n, value in fingerprint["source"].items() if n not in unknown}
    splits = {
        name: dataclasses.replace(split, shards=tuple(dataclasses.replace(s, build="") for s in split.shards))
        for name, split in info.splits.items()
    }
    older = dataclasses.replace(info, fingerprint=fingerprint, splits=splits)
    write_atomic(Layout(out).info, info_to_bytes(older))


def test_a_finished_set_of_before_is_still_that_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it does not say cannot differ; a line says that it is not known. All else is compared as ever."""
    source = make_source("folder", tmp_path / "pets")
    shard("folder", source, tmp_path / "set")
    build_saliency(open_source("folder", source), tmp_path / "maps", ModelChoice("spectral-residual"), **QUICK)
    for out in ("set", "maps"):
        make_older(tmp_path / out)
    repaint(source / "cat/1.bmp")
    assert shard("folder", source, tmp_path / "set").samples == 6
    build_saliency(open_source("folder", source), tmp_path / "maps", ModelChoice("spectral-residual"), **QUICK)
    assert caplog.text.count("does not say what its source's files held") == 2
    with pytest.raises(UsageError, match=r"samples_per_shard: 2 there, 3 here"):
        shard("folder", source, tmp_path / "set", samples_per_shard=3)
    (source / "cat/3.bmp").write_bytes(b"another")
    with pytest.raises(UsageError, match=r"source\.images: 6 there, 7 here"):
        shard("folder", source, tmp_path / "set")


def test_sets_that_an_earlier_rule_chose_are_others(tmp_path: Path) -> None:
    """Without --limit and --val-fraction there was nothing to choose, and nothing differs."""
    source = make_source("folder", tmp_path / "pets")

    def again(out: str, **options):
        val_fraction = options.pop("val_fraction", None)
        given = {"encoding": "raw", "samples_per_shard": 2, "workers": 0, **options}
        shard_images(open_source("folder", source, val_fraction=val_fraction), tmp_path / out, **given)

    for out, options, named in (
        ("limit", {"limit": 2}, 'limit_rule: nothing there, "of each class" here'),
        ("share", {"val_fraction": 0.5}, 'val_fraction_rule: nothing there, "of each class" here'),
    ):
        again(out, **options)
        again(out, **options)
        make_older(tmp_path / out)
        with pytest.raises(UsageError, match=named):
            again(out, **options)


def test_verify_finds_shards_of_two_builds(tmp_path: Path) -> None:
    """Put together by hand: every file is whole, and they do not belong together."""
    source = make_source("folder", tmp_path / "pets")
    shard("folder", source, tmp_path / "one")
    repaint(source / "dog/0.bmp")
    shard("folder", source, tmp_path / "two")
    ours, theirs = (read_info(tmp_path / name) for name in ("one", "two"))
    name = ours.splits["train"].shards[1].name
    shutil.copy(tmp_path / "two" / f"{name}.tar", tmp_path / "one")
    pairs = zip(ours.splits["train"].shards, theirs.splits["train"].shards, strict=True)
    shards = tuple(b if b.name == name else a for a, b in pairs)
    splits = {"train": dataclasses.replace(ours.splits["train"], shards=shards)}
    write_atomic(Layout(tmp_path / "one").info, info_to_bytes(dataclasses.replace(ours, splits=splits)))
    assert verify(tmp_path / "two").ok
    assert verify(tmp_path / "one").problems == [
        "train-000001.tar: of another build (other sources or options) than train-000000.tar"
    ]


def test_parts_of_another_build_are_written_anew(tmp_path: Path, stopped: Callable) -> None:
    source = make_source("folder", tmp_path / "pets")
    shard("folder", source, tmp_path / "whole")
    stopped(lambda: shard("folder", source, tmp_path / "out"))
    repaint(source / "cat/0.bmp")
    stopped(lambda: shard("folder", source, tmp_path / "other"))
    repaint(source / "cat/0.bmp", seed=0)
    for path in ("train-000000.tar", "_meta/parts/train-000000.parquet", "_meta/parts/train-000000.json"):
        shutil.copy(tmp_path / "other" / path, tmp_path / "out" / path)
    shard("folder", source, tmp_path / "out")
    assert same_folders(tmp_path / "whole", tmp_path / "out")


def shard_3die(source: Path, out: Path):
    options = {"size": 16, "val_match": "o1", "samples_per_shard": 2, "workers": 0, "jpeg_quality": "444-95"}
    return shard_3diebench(source, out, **options)


@pytest.mark.parametrize("kind", ["tree", "tar", "tar.gz"])
@pytest.mark.parametrize("file", ["0001/o1/image_2.jpg", "0002/o0/latent_1.npy"])
def test_3diebench(tmp_path: Path, kind: str, file: str, stopped: Callable) -> None:
    tree = make_tree(tmp_path / "tree", views=3)

    def packed() -> Path:
        return tree if kind == "tree" else make_3die_tar(tree, tmp_path / f"t.{kind}")

    source = packed()
    shard_3die(source, tmp_path / "set")
    for name in ("half", "touched"):
        stopped(lambda name=name: shard_3die(source, tmp_path / name))
    for path in tree.rglob("*") if kind == "tree" else [source]:
        os.utime(path, (1e9, 1e9))
    shard_3die(source, tmp_path / "set")
    shard_3die(source, tmp_path / "touched")
    assert same_folders(tmp_path / "set", tmp_path / "touched")
    before, size = source.stat(), (tree / file).stat().st_size
    other = jpeg(smooth_image(77)) if file.endswith("jpg") else (tree / "0002/o0/latent_2.npy").read_bytes()
    (tree / file).write_bytes(other.ljust(size, b"\0")[:size])
    packed()
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    for name in ("set", "half"):
        with pytest.raises(
            UsageError, match=r"another set \(the source's .* other bytes than then|another set \(.*source_bytes"
        ):
            shard_3die(source, tmp_path / name)


def test_content_is_of_names_sizes_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{i}.png": bytes([i]) * (i + 1) for i in range(40)}

    def of(files: dict[str, bytes]) -> str:
        return content.content_sha256(((name, len(data)) for name, data in files.items()), lambda _, n: files[n])

    def sampled(size: int) -> list[int]:
        return [position for position, _ in content.sample((name, size) for name in files)]

    assert of(files) == of(dict(files))
    assert of(files) != of({**files, "7.png": b"\0" * 8})
    monkeypatch.setattr(content, "SAMPLED_FILES", 5)
    seen, unseen = sampled(1)[0], next(i for i in range(40) if i not in sampled(1))
    assert of(files) == of({**files, f"{unseen}.png": b"\0" * (unseen + 1)})
    assert of(files) != of({**files, f"{unseen}.png": b"\0" * (unseen + 2)})
    assert of(files) != of({**files, f"{seen}.png": b"\xff" * (seen + 1)})
    monkeypatch.setattr(content, "SAMPLED_BYTES", 10)
    monkeypatch.setattr(content, "FEWEST_FILES", 2)
    assert [len(sampled(size)) for size in (1, 3, 900)] == [5, 3, 2]
    monkeypatch.setattr(content, "CHUNK", 3)
    stats = list(content.file_stats([__file__, "/none"] * 40))
    assert stats == [(os.stat(__file__).st_size, *stats[0][1:]), (-1, -1, -1)] * 40


def test_pieces_of_large_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "PIECES", 3)
    monkeypatch.setattr(content, "PIECE_BYTES", 2)
    (tmp_path / "a").write_bytes(b"0123456789")
    assert content.pieces_of(tmp_path / "a") == b"014589"
    (tmp_path / "a").write_bytes(b"012345")
    assert content.pieces_of(tmp_path / "a") == b"012345"
    with pytest.raises(ValueError, match="unreadable"):
        content.pieces_of(tmp_path / "none")
