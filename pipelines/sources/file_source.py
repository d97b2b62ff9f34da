"""Image files as a source: a list of files, of which a data set's own module says each one's split and class."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import LeftOut, printable
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.decode import decode_image
from pipelines.sources.files import TEXTS, FileEntry, FileList, FileReader, content_of, list_files
from pipelines.sources.keys import unique_keys
from shards.errors import FormatError


@dataclass(frozen=True)
class Arrangement:
    """Of each image of a list: its split (None: left out), its class (None for none), and its path below the split.

    keys: one for each of such paths; file_keys where names alone tell most data sets' images apart.
    """

    splits: Sequence[str | None]
    labels: Sequence[str | None]
    places: Sequence[str]
    keys: Callable[[Sequence[str]], list[str]] = unique_keys


def noted_labels(pairs: Iterable[tuple[str, str]], where: str) -> dict[str, str]:
    """Label of each image that a text beside them names. FormatError: two for one."""
    labels: dict[str, str] = {}
    for image, label in pairs:
        if (other := labels.setdefault(image, label)) != label:
            shown = " and ".join(map(printable, (other, label)))
            raise FormatError(f"{where}: {printable(image)} has the labels {shown}; remove the line of one")
    return labels


class FileSource(ImageSource):
    """`path` is a folder or a plain tar or zip. Classes are the sorted labels of all splits together.

    A data set's own class gives the `name` and says how files are arranged, and what of the texts among them it reads.
    """

    texts: tuple[str, ...] = TEXTS
    listed: str = ""

    def __init__(self, path: Path):
        self.path = path

    @abstractmethod
    def arrange(self, files: FileList) -> Arrangement:
        """Raises UsageError or FormatError where split and class of an image cannot be told."""

    def __getstate__(self) -> dict[str, Any]:
        """A worker is handed the records that it reads; the listing of a million files stays here."""
        cached = {name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)}
        return {**{name: value for name, value in vars(self).items() if name not in cached}, "reader": self.reader}

    @cached_property
    def files(self) -> FileList:
        return list_files(self.path, self.texts)

    @cached_property
    def reader(self) -> FileReader:
        return self.files.reader

    @cached_property
    def arrangement(self) -> Arrangement:
        return self.arrange(self.files)

    @property
    def left_out(self) -> int:
        """Files that are no images, and images that belong to no split."""
        return self.files.others.total + self.arrangement.splits.count(None)

    @property
    def others(self) -> LeftOut:
        return self.files.others

    @property
    def ranked(self) -> Sequence[str]:
        """Labels in the order of their numbers."""
        return self.classes

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({label for label in self.arrangement.labels if label is not None}))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """A sha256 over the names of all files, with split and class, in an archive also place; one of the content."""
        digest = hashlib.sha256()
        arranged = zip(self.files.images, self.arrangement.splits, self.arrangement.labels, strict=True)
        for entry, split, label in arranged:
            digest.update(f"{entry.name}\0{split}\0{label}\0{entry.offset}\0{entry.length}\n".encode())
        stamp = hashlib.sha256()
        content = content_of(self.reader, self.files.images, stamp)
        self.listed = stamp.hexdigest() if self.reader.is_folder else ""
        return {
            "layout": self.name,
            "images": len(self.files.images),
            **self.rules,
            "listing_sha256": digest.hexdigest(),
            "content_sha256": content,
        }

    @property
    def rules(self) -> dict[str, Any]:
        """What else is in the fingerprint."""
        return {}

    def records(self) -> list[ImageRecord]:
        """Training first, then the other splits; in a split by name."""
        rank = {label: number for number, label in enumerate(self.ranked)}
        arranged, found = self.arrangement, []
        there = {name for name in arranged.splits if name is not None}
        for split in sorted(there, key=lambda name: (name != "train", name)):
            chosen = [position for position, name in enumerate(arranged.splits) if name == split]
            keys = arranged.keys([arranged.places[position] for position in chosen])
            for key, position in zip(keys, chosen, strict=True):
                entry, label = self.files.images[position], arranged.labels[position]
                number = -1 if label is None else rank[label]
                meta = self.meta(entry, label)
                found.append(ImageRecord(key, number, split, printable(entry.name), entry.offset, entry.length, meta))
        return found

    def meta(self, entry: FileEntry, label: str | None) -> dict[str, str | int]:
        return {"file": entry.name}

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3]. ValueError: empty, corrupt, too large."""
        return decode_image(self.stored(record))

    def stamp(self) -> str:
        """At first that of the files as the fingerprint found them: what is written to after that differs from it."""
        known, self.listed = self.listed, ""
        return known or self.reader.stamp(entry.name for entry in self.files.images)

    def stored(self, record: ImageRecord) -> bytes:
        return self.reader.read(str(record.meta["file"]), record.position, record.length)
