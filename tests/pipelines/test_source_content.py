"""What identity rests on: the digest of a source's files, whoever reads them, and the stamp that says when to read them
again."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_3die import make_tree
from small_images import make_folder

from pipelines.archives import FolderFiles, read_content, read_file
from pipelines.sources import ImageRecord, ImageSource, content, open_source
from pipelines.sources.content import content_sha256, name_rank
from pipelines.sources.three_diebench.tree import ObjectTree


def as_documented(root: Path, names: list[str], unreadable: dict[str, str]) -> str:
    """Names and sizes in their order, then the digests of the files in the order in which their names hash."""
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        digest.update(f"{name}\0{path.stat().st_size if path.exists() else -1}\n".encode())
    for name in sorted(names, key=name_rank):
        data = f"unreadable: {unreadable[name]}".encode() if name in unreadable else (root / name).read_bytes()
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def test_the_digest_of_a_tree_is_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of small and unreadable files too, however many a thread takes at a time."""
    root = make_tree(tmp_path / "objects", ("0001", "0002"), 2, 5)
    (root / "0001/o0/image_1.jpg").write_bytes(b"")
    (root / "0001/o0/image_2.jpg").unlink()
    (root / "0001/o0/image_2.jpg").symlink_to("nowhere.jpg")
    bad = {
        "0001/o0/image_1.jpg": "empty, or larger than 32 MiB",
        "0001/o0/image_2.jpg": f"unreadable ({os.strerror(2)})",
    }
    for together in (1, 3, 1000):
        monkeypatch.setattr(content, "TOGETHER", together)
        listing = ObjectTree(root).list()
        names = [
            f"{item.name}/{file}"
            for item in listing.objects
            for k in item.view_ids
            for file in (f"image_{k}.jpg", f"latent_{k}.npy")
        ]
        assert len(names) == 40
        assert listing.identity["content_sha256"] == as_documented(root, names, bad)


def test_the_digest_of_a_folder_is_what_it_was(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "photos", [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(9)])
    (root / "dog/lost.png").symlink_to("nowhere.png")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    fingerprint = open_source("folder", root).fingerprint
    assert fingerprint["content_sha256"] == as_documented(root, names, {"dog/lost.png": "a link that leads nowhere"})


def test_what_a_node_does_not_see_is_read_here(tmp_path: Path) -> None:
    files = [(f"{i}.bin", 4) for i in range(200)]
    for name, _ in files:
        (tmp_path / name).write_bytes(name.encode())

    def read(position: int, name: str) -> bytes:
        if position == 7:
            raise ValueError("damaged")
        return read_file(tmp_path / name)

    def named(name: str) -> bytes:
        if hash_of(name) % 3 == 0 or name == "7.bin":
            raise ValueError("unreadable on this node")
        return read_file(tmp_path / name)

    assert content_sha256(files, read, named) == content_sha256(files, read)
    assert content_sha256(files, read) != content_sha256(files, lambda _, name: read_file(tmp_path / name))


def hash_of(name: str) -> int:
    return name_rank(name)[0]


def test_a_file_that_changes_after_the_listing_differs_from_the_first_stamp(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "objects", ("0001",), 1, 2)
    same, changed = ObjectTree(root), ObjectTree(root)
    first = same.stamp(same.list().objects)
    assert first == same.stamp(same.list().objects)
    objects = changed.list().objects
    os.utime(root / "0001/o0/image_1.jpg", (1e9, 1e9))
    assert changed.stamp(objects) == first, "of what was listed"
    assert changed.stamp(objects) != first


def test_the_first_stamp_of_a_folder_is_that_of_its_fingerprint(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "photos", ["cat/1.png", "dog/2.png"])
    source, other = open_source("folder", root), open_source("folder", root)
    before = other.stamp()
    assert source.fingerprint == other.fingerprint
    os.utime(root / "dog/2.png", (1e9, 1e9))
    assert source.stamp() == before
    assert source.stamp() != before


def test_names_travel_and_not_paths(tmp_path: Path) -> None:
    names = [f"image_{k}.jpg" for k in range(100)]
    files = pickle.loads(pickle.dumps(FolderFiles(str(tmp_path), names)))
    assert list(files) == [tmp_path / name for name in names]
    assert list(files[3:5]) == [tmp_path / "image_3.jpg", tmp_path / "image_4.jpg"]
    (tmp_path / "image_7.jpg").write_bytes(b"seven")
    assert read_content(files[7]) == b"seven"


class Blank(ImageSource):
    """Of a package of one's own: an image of one value."""

    name, classes = "blank", ()

    def records(self) -> list[ImageRecord]:
        return [ImageRecord(f"{value}", -1, "train", f"{value}", value) for value in range(2)]

    def read(self, record: ImageRecord) -> np.ndarray:
        return np.full((8, 8, 3), record.position, np.uint8)

    def stamp(self) -> str:
        return ""


def test_a_source_that_says_nothing_of_its_bytes_is_known_by_its_pixels() -> None:
    source = Blank()
    zero, one = source.records()
    assert source.digest(zero) == content.short_digest(bytes(8 * 8 * 3)) != source.digest(one)
