"""Tiny ImageNet as it is distributed: a zip, a tar of it, or the folder tiny-imagenet-200/.

train/<wnid>/images/*.JPEG; val/images/*.JPEG with val/val_annotations.txt; wnids.txt, whose line numbers are the
labels; words.txt, the classes' names. The images of test/ have no labels and are left out.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipelines.archives import LeftOut
from pipelines.sources import ImageRecord
from pipelines.sources.decode import decode_image
from pipelines.sources.file_source import file_keys
from pipelines.sources.files import (
    FileEntry,
    FileList,
    FileReader,
    content_of,
    digest_of_file,
    list_files,
    stamp_of_files,
)
from pipelines.sources.split_folders import refuse_twofold, split_of
from shards.errors import FormatError

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
WNID = re.compile(r"n\d{8}")
WANTED = "tiny-imagenet-200/, its .zip, or a plain .tar of it"


@dataclass(frozen=True)
class Labelled:
    """The images of a split in ascending order of name, and the WordNet id of each."""

    entries: list[FileEntry]
    wnids: list[str]


class TinyImageNetSource:
    """`path` is a folder, a plain .tar or a .zip. Classes are in the order of wnids.txt, whatever is there of them."""

    name = "tiny-imagenet"

    def __init__(self, path: Path):
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "reader": self.reader}  # a worker needs no listing

    @property
    def options(self) -> dict[str, Any]:
        return {}

    @cached_property
    def files(self) -> FileList:
        return list_files(self.path)

    @cached_property
    def reader(self) -> FileReader:
        return self.files.reader

    @property
    def left_out(self) -> int:
        """Files that are no images, and the images of the unlabelled test split."""
        return self.files.left_out + len(self.files.images) - sum(len(split.entries) for split in self.splits.values())

    @property
    def others(self) -> LeftOut:
        return self._others

    @cached_property
    def _others(self) -> LeftOut:
        if unlabelled := self.left_out - self.files.left_out:
            self.files.others.notes.append(f"{unlabelled} images of other splits than train and val were left out")
        return self.files.others

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        """Of words.txt ("goldfish, Carassius auratus"), else WordNet ids; ids are added to names that occur twice."""
        lines = self._lines(WORDS) or []
        words = {wnid: name.strip() for wnid, tab, name in (line.partition("\t") for line in lines) if name.strip()}
        names = [words.get(wnid, wnid) for wnid in self.wnids]
        counts = Counter(names)
        return tuple(
            name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in zip(self.wnids, names, strict=True)
        )

    @cached_property
    def wnids(self) -> list[str]:
        lines = self._lines(WNIDS)
        if lines is None:
            raise FormatError(f"{self.path} holds no {WNIDS}, whose line numbers are the labels; give {WANTED}")
        if not lines or len(set(lines)) != len(lines) or not all(WNID.fullmatch(line) for line in lines):
            raise FormatError(f"{self.path}: {WNIDS} is not one different WordNet id a line; fetch it again")
        return lines

    @cached_property
    def splits(self) -> dict[str, Labelled]:
        """Raises FormatError: an image without a label, or with one that is not in wnids.txt; Val/ beside val/."""
        refuse_twofold({entry.name.partition("/")[0] for entry in self.files.images})
        found = {"train": self._train(), "val": self._val()}
        known = set(self.wnids)
        for split in found.values():
            for entry, wnid in zip(split.entries, split.wnids, strict=True):
                if wnid not in known:
                    raise FormatError(f"{self.path}: {entry.name} belongs to {wnid!a}, which is not in {WNIDS}")
        if not found["train"].entries and not found["val"].entries:
            raise FormatError(f"{self.path} holds no train/<wnid>/images/ and no val/images/; give {WANTED}")
        return found

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """A sha256 over names, labels and, in an archive, places of all images, and the classes; one of the content."""
        digest = hashlib.sha256("\n".join((*self.wnids, *self.classes)).encode())
        for split in self.splits.values():
            for entry, wnid in zip(split.entries, split.wnids, strict=True):
                digest.update(f"{entry.name}\0{wnid}\0{entry.offset}\0{entry.length}\n".encode())
        images = {name: len(split.entries) for name, split in self.splits.items()}
        content = content_of(self.reader, self._labelled)
        return {
            "layout": self.name,
            "images": images,
            "listing_sha256": digest.hexdigest(),
            "content_sha256": content,
        }

    @property
    def _labelled(self) -> list[FileEntry]:
        return [entry for split in self.splits.values() for entry in split.entries]

    def records(self) -> list[ImageRecord]:
        """Keys are file names, "n01443537_0"; or paths where names recur. Meta: the file, and the WordNet id."""
        rank = {wnid: label for label, wnid in enumerate(self.wnids)}
        found = []
        for name, split in self.splits.items():
            keys = file_keys([entry.name.partition("/")[2] for entry in split.entries])
            for key, entry, wnid in zip(keys, split.entries, split.wnids, strict=True):
                meta: dict[str, str | int] = {"file": entry.name, "wnid": wnid}
                found.append(ImageRecord(key, rank[wnid], name, entry.name, entry.offset, entry.length, meta))
        return found

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3]; grey is converted. ValueError: empty, corrupt."""
        return decode_image(self.reader.read(str(record.meta["file"]), record.position, record.length))

    def digest(self, record: ImageRecord) -> str:
        return digest_of_file(self.reader, record)

    def stamp(self) -> str:
        return stamp_of_files(self.reader, self._labelled)

    def _of(self, split: str) -> list[FileEntry]:
        """Images below train/, or Train/ …"""
        return [entry for entry in self.files.images if split_of(entry.name.partition("/")[0]) == split]

    def _train(self) -> Labelled:
        entries = self._of("train")
        return Labelled(entries, [PurePosixPath(entry.name).parts[1] for entry in entries])

    def _val(self) -> Labelled:
        """By the folder in copies that were sorted into val/<wnid>/, else by val_annotations.txt."""
        entries = self._of("val")
        lines = self._lines(ANNOTATIONS)
        noted = dict(line.split("\t")[:2] for line in lines or () if "\t" in line)
        return Labelled(entries, [self._wnid(PurePosixPath(entry.name), noted, lines is None) for entry in entries])

    def _wnid(self, name: PurePosixPath, noted: dict[str, str], missing: bool) -> str:
        if len(name.parts) > 2 and WNID.fullmatch(name.parts[1]):
            return name.parts[1]
        if missing:
            raise FormatError(f"{self.path} has no {ANNOTATIONS}, which holds the labels of val/; give {WANTED}")
        if name.name not in noted:
            raise FormatError(f"{self.path}: {name} has no line in {ANNOTATIONS}; add it, or remove the image")
        return noted[name.name].strip()

    def _lines(self, name: str) -> list[str] | None:
        """Lines of a text that lies there, without blank ones; None if it does not. FormatError: unreadable, empty."""
        for note in self.files.notes:
            if note.name.casefold() == name:
                try:
                    text = self.reader.read(note.name, note.offset, note.length)
                except ValueError as error:
                    raise FormatError(f"{self.path}: {name}: {error}; fetch it again") from error
                return [line for line in text.decode("utf-8", "replace").splitlines() if line.strip()]
        return None
