from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from small_3die import jpeg, latent, make_tar, make_tree, npy, smooth_image

from pipelines import archives
from pipelines.archives import read_content
from pipelines.sources.three_diebench import ThreeDIEBenchSource, open_objects, tar
from pipelines.sources.three_diebench.tree import ListedObject, SpreadSample
from shards.errors import FailureError, FormatError


def contents(source, objects: list[ListedObject], positions: list[int]) -> dict:
    return {
        objects[position].name: ([read_content(c) for c in images], [read_content(c) for c in latents])
        for position, images, latents in source.read(objects, positions)
    }


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Gaps in the view numbers, an object with fewer views, orphans, and files that are none of ours."""
    root = make_tree(tmp_path / "tree", views=3)
    for k in (5, 12):
        (root / "0001/o1" / f"image_{k}.jpg").write_bytes(jpeg(smooth_image(k)))
        (root / "0001/o1" / f"latent_{k}.npy").write_bytes(npy(latent(k)))
    (root / "0002/o0/latent_1.npy").unlink()
    (root / "0002/o2/image_0.jpg").unlink()
    (root / "0002/o2/image_01.jpg").write_text("not a view number")
    (root / "0002/o2/notes.txt").write_text("hello")
    (root / "readme.txt").write_text("hello")
    return root


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_tree_and_tar_hold_the_same(tree: Path, tmp_path: Path, suffix: str) -> None:
    ours = open_objects(tree)
    streamed = open_objects(make_tar(tree, tmp_path / f"set{suffix}"))
    here, there = ours.list(), streamed.list()
    assert sorted(there.objects, key=lambda o: o.name) == here.objects
    listed = {o.name: o for o in here.objects}
    assert listed["0001/o1"].view_ids == (0, 1, 2, 5, 12)
    assert listed["0002/o0"] == ListedObject("0002/o0", (0, 2), ("image_1.jpg",))
    assert listed["0002/o2"] == ListedObject("0002/o2", (1, 2), ("latent_0.npy",))
    everything = list(range(6))
    assert contents(ours, here.objects, everything) == contents(streamed, there.objects, everything)
    assert [name for name, _ in here.sample] == [name for name, _ in there.sample]


def test_files_that_are_no_views_are_named(tree: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "0001/o0/.hidden").write_text("hello")
    said = "3 files were left out: 2 files that are no image_<k>.jpg or latent_<k>.npy (%s), 1 hidden"
    open_objects(tree).list()
    assert said % "0002/o2/image_01.jpg, 0002/o2/notes.txt" in caplog.text
    caplog.clear()
    open_objects(make_tar(tree, tmp_path / "t.tar", prefix=".")).list()
    assert "2 files that are no image_<k>.jpg" in caplog.text
    assert "0002/o2/image_01.jpg" in caplog.text


def test_only_wanted_objects_are_delivered(tree: Path, tmp_path: Path) -> None:
    for source in (open_objects(tree), open_objects(make_tar(tree, tmp_path / "t.tar"))):
        objects = source.list().objects
        assert [position for position, *_ in source.read(objects, [1, 4])] == [1, 4]
        assert list(source.read(objects, [])) == []


def test_a_folder_around_the_root_does_not_matter(tree: Path) -> None:
    inner, outer = open_objects(tree).list(), open_objects(tree.parent).list()
    assert inner.objects == outer.objects
    assert inner.identity == outer.identity


def test_identity_of_a_tree_changes_with_its_names(tree: Path) -> None:
    before = open_objects(tree).list().identity
    (tree / "0001/o0/image_2.jpg").unlink()
    assert open_objects(tree).list().identity != before


def test_an_object_in_two_places_of_a_tar(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("0001/o0/image_0.jpg", "0001/o1/image_0.jpg", "0001/o1/latent_0.npy", "0001/o0/latent_0.npy"):
            tar.add(tree / name, f"root/{name}")
    with pytest.raises(FormatError, match=r"0001/o0 lie in more than one place.*unpack"):
        open_objects(tmp_path / "t.tar").list()


def test_two_trees_in_a_tar(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tree, "one")
        tar.add(tree, "two")
    with pytest.raises(FormatError, match="two trees"):
        open_objects(tmp_path / "t.tar").list()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("of_objects", [False, True])
def test_folders_of_splits_around_a_layout(tmp_path: Path, packed: bool, of_objects: bool) -> None:
    """train/ and val/ around classes, or in their place; they say what to do, and what the page says is done."""
    for split in ("train", "val") if not of_objects else ():
        make_tree(tmp_path / "in" / split, objects=2, views=1)
        for folder in sorted((tmp_path / "in" / split).glob("*/*")):
            folder.rename(f"{folder}{split}")
    if of_objects:
        make_tree(tmp_path / "in", ("train", "val"), objects=2, views=1)
    source = tmp_path / "in"
    if packed:
        source = tmp_path / "in.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(tmp_path / "in", "in")
    told = "folders of splits are no part of it: move all classes into one, and list the objects of val"
    with pytest.raises(FormatError, match=told):
        ThreeDIEBenchSource(source, val_fraction=0.5).records()
    if not of_objects:
        page = (Path(__file__).parents[2] / "docs/3diebench-layout.md").read_text()
        commands = [line.strip() for line in page.splitlines() if line.startswith(("      mkdir", "      cp"))]
        subprocess.run(
            "; ".join(commands).replace("python", sys.executable), shell=True, check=True, cwd=tmp_path / "in"
        )
        records = ThreeDIEBenchSource(tmp_path / "in/all").records()
        assert {record.name: record.split for record in records} == {
            f"{synset}/o{o}{split}": split
            for synset in ("0001", "0002")
            for o in range(2)
            for split in ("train", "val")
        }


def test_links_in_a_tar_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stream cannot go back to what they lead to; what is no view is counted."""
    tree = make_tree(tmp_path / "tree", objects=1)
    make_tar(tree, tmp_path / "t.tar")
    for name, kind, target, message in (
        (
            "0001/o0/image_9.jpg",
            tarfile.SYMTYPE,
            "image_0.jpg",
            "as a link to 'image_0.jpg', which cannot",
        ),
        ("0001/o0/image_9.jpg", tarfile.LNKTYPE, "Some Root/0001/o0/image_0.jpg", "as a hard link to"),
        ("0001/o0/image_9.jpg", tarfile.FIFOTYPE, "", "as a fifo, which cannot"),
        ("0001/o1", tarfile.SYMTYPE, "o0", "the link 'Some Root/0001/o1' to 'o0', a folder of views"),
        ("0003", tarfile.SYMTYPE, "../x/0001", "a folder of views; unpack it"),
        ("readme", tarfile.SYMTYPE, "doc/readme", None),
    ):
        link = tarfile.TarInfo(f"Some Root/{name}")
        link.type, link.linkname = kind, target
        make_tar(tree, tmp_path / "t.tar")
        with tarfile.open(tmp_path / "t.tar", "a") as tar:
            tar.addfile(link)
        if message is None:
            assert len(open_objects(tmp_path / "t.tar").list().objects) == 2
        else:
            with pytest.raises(FormatError, match=message):
                open_objects(tmp_path / "t.tar").list()
    assert "1 file was left out: 1 link (Some Root/readme)" in caplog.text


def test_a_second_tar_behind_the_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = make_tar(make_tree(tmp_path / "a", ("0001",)), tmp_path / "a.tar")
    second = make_tar(make_tree(tmp_path / "b", ("0002",)), tmp_path / "b.tar.gz")
    with gzip.open(tmp_path / "both.tar.gz", "wb") as both:
        both.write(first.read_bytes())
        both.write(gzip.decompress(second.read_bytes()))
    assert {item.synset for item in open_objects(tmp_path / "both.tar.gz").list().objects} == {"0001", "0002"}
    first.write_bytes(first.read_bytes() + b"x" * 600)
    assert len(open_objects(first).list().objects) == 3
    assert "is no tar, and was not read" in caplog.text


def test_odd_things_in_a_tree(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A link to itself is left out and named; a fifo is never waited for."""
    tree = make_tree(tmp_path / "tree", ("0001",), 1, 2)
    os.symlink("latest", tree / "latest")
    os.mkfifo(tree / "0001/o0/image_7.jpg")
    (tree / "0001/o0/latent_7.npy").write_bytes(npy(latent(7)))
    source = open_objects(tree)
    listed = source.list()
    assert "1 file was left out: 1 link to itself (latest)" in caplog.text
    ((_, images, _),) = source.read(listed.objects, [0])
    with pytest.raises(ValueError, match="not a file"):
        read_content(images[2])


def test_no_such_source_and_wrong_layout(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not there"):
        open_objects(tmp_path / "none")
    (tmp_path / "empty" / "a" / "b").mkdir(parents=True)
    with pytest.raises(FormatError, match=r"<synset>/<object>/image_<k>.jpg"):
        open_objects(tmp_path / "empty").list()
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a/b/c.txt"), io.BytesIO())
    with pytest.raises(FormatError, match=r"<synset>/<object>/image_<k>.jpg"):
        open_objects(tmp_path / "t.tar").list()


def test_a_tar_that_changed_is_noticed(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    source = open_objects(make_tar(tree, tmp_path / "t.tar", seed=0))
    objects = source.list().objects
    make_tar(tree, tmp_path / "t.tar", seed=5)
    with pytest.raises(FailureError, match="changed"):
        list(source.read(objects, range(len(objects))))


def test_too_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree(tmp_path / "tree", objects=1)
    (tree / "0001/o0/image_1.jpg").write_bytes(bytes(5000))
    for module in (archives, tar):
        monkeypatch.setattr(module, "LARGEST_FILE", 4000)
    for source in (open_objects(tree), open_objects(make_tar(tree, tmp_path / "t.tar"))):
        objects = source.list().objects
        position = [o.name for o in objects].index("0001/o0")
        ((_, images, _),) = source.read(objects, [position])
        assert read_content(images[0])
        with pytest.raises(ValueError, match="larger"):
            read_content(images[1])


def test_spread_sample_does_not_depend_on_order() -> None:
    names = [f"a/b/image_{k}.jpg" for k in range(500)]
    drawn = []
    for order in (names, names[::-1]):
        sample = SpreadSample(20)
        for name in order:
            if sample.wants(rank := sample.rank(name)):
                sample.add(rank, name, name.encode())
        drawn.append(sample.items())
    assert drawn[0] == drawn[1]
    assert [name for name, _ in drawn[0]] == sorted(names, key=sample.rank)[:20]


def renamed(tree: Path, name: str) -> Path:
    """Each image_<k>.jpg called otherwise; `name` has a place for k."""
    for file in sorted(tree.glob("*/*/image_*.jpg")):
        file.rename(file.with_name(name.format(int(file.stem.partition("_")[2]))))
    return tree


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_{}.png", r"its pictures are PNG \(0001/o0/image_0\.png\), and views have to be JPEG .*convert them"),
        ("image_{:02d}.jpg", r"\(it has 0001/o0/image_00\.jpg\); give the folder .*3diebench-layout\.md"),
        ("image_{}.jpeg", r"\(it has 0001/o0/image_0\.jpeg\)"),
    ],
)
def test_a_wrong_layout_says_why(tmp_path: Path, name: str, message: str) -> None:
    tree = renamed(make_tree(tmp_path / "tree", ("0001",), objects=1, views=1), name)
    for source in (open_objects(tree), open_objects(make_tar(tree, tmp_path / "t.tar", prefix="."))):
        with pytest.raises(FormatError, match=message):
            source.list()
    flat = tmp_path / "flat"
    (tree / "0001/o0").rename(flat)  # an object without a class
    with pytest.raises(FormatError, match=message.replace("0001/o0/", "")):
        open_objects(flat).list()
