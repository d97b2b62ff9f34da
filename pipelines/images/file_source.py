"""Image files as a source: a list of files, and a rule that says which split and class each belongs to."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.images.decode import decode_image
from pipelines.images.file_content import content_of, digest_of_file, stamp_of_files
from pipelines.images.file_list import FileList, FileReader, list_files
from pipelines.images.keys import unique_keys
from pipelines.images.source import ImageRecord
from pipelines.left_out import LeftOut, shown

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Arrangement:
    """Of each image of a list: its split (None: left out), its class (None for none), and its path below the split.

    keys: one for each of such paths; file_keys where names alone tell most data sets' images apart.
    """

    splits: list[str | None]
    labels: list[str | None]
    places: list[str]
    keys: Callable[[Sequence[str]], list[str]] = unique_keys


Rule = Callable[[FileList], Arrangement]


class FileSource:
    """`path` is a folder or a plain tar. Classes are the sorted names that the rule gives, over all splits together.

    told: what else is in the fingerprint.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        rule: Rule,
        options: dict[str, Any] | None = None,
        told: dict[str, Any] | None = None,
    ):
        self.name, self.path, self.rule = name, path, rule
        self.options, self.told = options or {}, told or {}

    def __getstate__(self) -> dict[str, Any]:
        """A worker is handed the records that it reads; the listing of a million files stays here."""
        given = {name: getattr(self, name) for name in ("name", "path", "rule", "options", "told")}
        return {**given, "reader": self.reader}

    @cached_property
    def files(self) -> FileList:
        return list_files(self.path)

    @cached_property
    def reader(self) -> FileReader:
        return self.files.reader

    @property
    def left_out(self) -> int:
        """Files that are no images, and images that belong to no split."""
        return self.files.left_out + self.arrangement.splits.count(None)

    @property
    def others(self) -> LeftOut:
        return self.files.others

    @cached_property
    def arrangement(self) -> Arrangement:
        return self.rule(self.files)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._classes

    @cached_property
    def _classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label in self.arrangement.labels if label is not None}))

    @property
    def fingerprint(self) -> dict[str, Any]:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """A sha256 over the names of all files, with split and class, in an archive also place; one of the content."""
        digest = hashlib.sha256()
        arranged = zip(self.files.images, self.arrangement.splits, self.arrangement.labels, strict=True)
        for entry, split, label in arranged:
            digest.update(f"{entry.name}\0{split}\0{label}\0{entry.offset}\0{entry.length}\n".encode())
        return {
            "layout": self.name,
            "images": len(self.files.images),
            **self.told,
            "listing_sha256": digest.hexdigest(),
            "content_sha256": content_of(self.reader, self.files.images),
        }

    def records(self) -> list[ImageRecord]:
        """Training first, then the other splits; in a split by name."""
        rank = {name: label for label, name in enumerate(self.classes)}
        entries, arranged = self.files.images, self.arrangement
        found = []
        there = {name for name in arranged.splits if name is not None}
        for split in sorted(there, key=lambda name: (name != "train", name)):
            chosen = [position for position, name in enumerate(arranged.splits) if name == split]
            keys = arranged.keys([arranged.places[position] for position in chosen])
            for key, position in zip(keys, chosen, strict=True):
                entry, label = entries[position], arranged.labels[position]
                meta: dict[str, str | int] = {"file": entry.name}
                number = -1 if label is None else rank[label]
                found.append(ImageRecord(key, number, split, shown(entry.name), entry.offset, entry.length, meta))
        return found

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3]. ValueError: empty, corrupt, too large."""
        return decode_image(self.reader.read(str(record.meta["file"]), record.position, record.length))

    def digest(self, record: ImageRecord) -> str:
        return digest_of_file(self.reader, record)

    def stamp(self) -> str:
        return stamp_of_files(self.reader, self.files.images)
