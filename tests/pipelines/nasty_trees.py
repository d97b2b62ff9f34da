"""Folders of images as people's disks have them: odd names, links of every kind, depth; and archives of the same."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from small_images import encoded

NAMES = (
    "plain",
    "two words",
    " leading and trailing ",
    "Übergröße",
    "e\u0301clair",  # NFD
    "\u00e9clair",  # NFC
    "猫",
    "emoji 🐈",
    "CASE",
    "case",
    "dots...",
    "..two dots",
    "-dash",
    "quote'\"",
    "semi;colon & more",
    "new\nline",
    "tab\there",
    "l" * 180,
    "%41",
    "~",
    "C:",
)
SUFFIXES = (".png", ".PNG", ".Png", ".bmp")
OTHERS = ("notes.txt", "Thumbs.db", ".DS_Store", ".hidden.png", "picture.gif")


def make_tree(root: Path, seed: int) -> Path:
    """Some classes below train/ and val/, or below nothing; every picture is another one of 2×2 pixels."""
    rng = np.random.default_rng(seed)
    splits = ["train", "val"] if rng.random() < 0.6 else [""]
    classes = rng.choice(NAMES, 3, replace=False)
    pictures: list[Path] = []
    for split in splits:
        for name in classes:
            for _ in range(int(rng.integers(1, 4))):
                deep = Path(*rng.choice(NAMES, int(rng.integers(0, 3))))
                file = root / split / str(name) / deep / (str(rng.choice(NAMES)) + str(rng.choice(SUFFIXES)))
                if file not in pictures and not file.exists():
                    file.parent.mkdir(parents=True, exist_ok=True)
                    pixels = rng.integers(0, 256, (2, 2, 3), dtype=np.uint8)
                    file.write_bytes(encoded(pixels, file.suffix.lower().strip(".")))
                    pictures.append(file)
    _link(rng, root, splits, pictures)
    for other in rng.choice(OTHERS, 2, replace=False):
        (pictures[0].parent / str(other)).write_bytes(b"something else")
    return root


def _link(rng: np.random.Generator, root: Path, splits: list[str], pictures: list[Path]) -> None:
    """Hard and symbolic links to pictures, to links, to folders; a loop, and one that leads nowhere."""
    for number in range(int(rng.integers(0, 7))):
        target = pictures[int(rng.integers(len(pictures)))]
        place = pictures[int(rng.integers(len(pictures)))].parent / f"link {number}.png"
        kind = rng.choice(["hard", "symbolic", "folder", "dotted"])
        if kind == "hard":
            os.link(target, place, follow_symlinks=False)
        elif kind == "symbolic":
            place.symlink_to(os.path.relpath(target, place.parent))
        elif kind == "folder":
            place.with_suffix("").symlink_to(os.path.relpath(target.parent, place.parent))
        else:  # up to the root and down again
            place.symlink_to(f"./{os.path.relpath(root, place.parent)}/./{target.relative_to(root)}")
        if kind != "folder" and rng.random() < 0.7:
            pictures.append(place)  # for links to links
    if rng.random() < 0.5:
        os.symlink("itself", root / splits[0] / "itself")
    if rng.random() < 0.5:
        os.symlink("../gone", pictures[0].parent / "nowhere")


def make_tar(folder: Path, path: Path, kind: int, rng: np.random.Generator) -> Path:
    """In random order, with links as links; a hard link may lie before its target, whose content the other one has."""
    inodes: dict[int, str] = {}
    files = [entry for entry in sorted(folder.rglob("*")) if entry.is_symlink() or not entry.is_dir()]
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w", format=kind) as tar:
        for at in rng.permutation(len(files)):
            file, name = files[at], f"./{files[at].relative_to(folder)}"
            info = tar.gettarinfo(file, name)
            first = inodes.setdefault(file.lstat().st_ino, name)
            if first != name and not file.is_symlink():
                info.type, info.linkname, info.size = tarfile.LNKTYPE, first, 0
            elif info.type == tarfile.LNKTYPE:
                info.type, info.size = tarfile.REGTYPE, file.stat().st_size
            if info.isreg():
                with file.open("rb") as content:
                    tar.addfile(info, content)
            else:
                tar.addfile(info)
    return path


class UnflaggedInfo(zipfile.ZipInfo):
    """UTF-8 names without the flag that says so, as Info-ZIP and macOS write them."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802
        return self.filename.encode("utf-8", "surrogateescape"), self.flag_bits


def make_zip(folder: Path, path: Path, rng: np.random.Generator, flagged: bool, links: bool = True) -> Path:
    files = [entry for entry in sorted(folder.rglob("*")) if entry.is_symlink() or not entry.is_dir()]
    with zipfile.ZipFile(path, "w") as archive:
        for at in rng.permutation(len(files)):
            file = files[at]
            info = (zipfile.ZipInfo if flagged else UnflaggedInfo)(str(file.relative_to(folder)))
            info.create_system, info.compress_type = 3, int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
            if file.is_symlink() and (links or not file.is_file()):
                info.external_attr = 0o120777 << 16
                archive.writestr(info, os.readlink(file))
            else:
                info.external_attr = 0o100644 << 16
                archive.writestr(info, file.read_bytes())
    return path
