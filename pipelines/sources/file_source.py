"""Sample keys from places below a split: "n01/images/7.JPEG" → "n01_images_7".

Image files as a source: a list of files, and a rule that says which split and class each belongs to.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import LeftOut, shown
from pipelines.sources import ImageRecord
from pipelines.sources.decode import decode_image
from pipelines.sources.files import FileList, FileReader, content_of, digest_of_file, list_files, stamp_of_files
from shards.errors import FormatError

KEY_LENGTH = 80
DIGEST_LENGTH = 12


def file_keys(paths: Sequence[str]) -> list[str]:
    """Keys from file names ("val/n01/x_1.JPEG" → "x_1") if all names differ, else from the whole paths ("n01_x_1").

    `paths` lie below one split. ImageNet's names differ, those of ImageNet-Sketch and ImageNet-R begin anew in every
    class. FormatError as for unique_keys.
    """
    names = [path.rpartition("/")[2] for path in paths]
    return unique_keys(names if len(set(names)) == len(names) else paths)


def unique_keys(places: Sequence[str]) -> list[str]:
    """One key for each place: a path with "/" and a suffix, different from all others.

    Folders and name joined by "_", without the suffix. What a key cannot hold is spelled "-" and told apart by a hash
    of the place; so are places that would share a key ("a/b_c.jpg" and "a_b/c.png"). FormatError: two share one still.
    """
    plain = [_plain(place) for place in places]
    counts = Counter(plain)
    keys = [key if counts[key] == 1 else _marked(key, place) for key, place in zip(plain, places, strict=True)]
    first: dict[str, str] = {}
    for key, place in zip(keys, places, strict=True):
        if first.setdefault(key, place) is not place:
            raise FormatError(f"{first[key]} and {place} would both have the key {key!r}; rename one of them")
    return keys


def _plain(place: str) -> str:
    stem = re.sub(r"\.[^./]*$", "", place)
    if re.fullmatch(r"[A-Za-z0-9_/-]+", stem) and len(stem) <= KEY_LENGTH:
        return stem.replace("/", "_")
    return _marked(re.sub(r"[^A-Za-z0-9_-]", "-", stem.replace("/", "_")), place)


def _marked(key: str, place: str) -> str:
    digest = hashlib.sha256(place.encode()).hexdigest()[:DIGEST_LENGTH]
    return f"{key[: KEY_LENGTH - DIGEST_LENGTH - 1]}-{digest}"


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
