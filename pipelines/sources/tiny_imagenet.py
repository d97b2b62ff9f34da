"""Tiny ImageNet as it is distributed: a zip, a tar of it, or the folder tiny-imagenet-200/.

train/<wnid>/images/*.JPEG; val/images/*.JPEG with val/val_annotations.txt; wnids.txt, whose line numbers are the
labels; words.txt, the classes' names. The images of test/ have no labels and are left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from pipelines.archives import LeftOut
from pipelines.sources.file_source import Arrangement, FileSource, noted_labels
from pipelines.sources.files import FileEntry, FileList, content_of
from pipelines.sources.imagenet import WNID, refuse_copies
from pipelines.sources.keys import file_keys
from pipelines.sources.split_folders import refuse_twofold, split_of
from shards.errors import FormatError

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
WANTED = "tiny-imagenet-200/, its .zip, or a plain .tar of it"


class TinyImageNetSource(FileSource):
    """`path` is a folder, a plain .tar or a .zip. Classes are in the order of wnids.txt, whatever is there of them.

    Keys are file names, "n01443537_0"; or paths where names recur. Meta: the file, and the WordNet id.
    """

    name = "tiny-imagenet"

    def arrange(self, files: FileList) -> Arrangement:
        """Raises FormatError: an image without a label, or with one that is not in wnids.txt; Val/ beside val/."""
        refuse_twofold({entry.name.partition("/")[0] for entry in files.images})
        names = [PurePosixPath(entry.name) for entry in files.images]
        tops = [split_of(name.parts[0]) if len(name.parts) > 1 else None for name in names]
        splits = [top if top in ("train", "val") else None for top in tops]
        refuse_copies("/".join(name.parts[1:]) for name, split in zip(names, splits, strict=True) if split == "val")
        labels = [self._label(name, split) for name, split in zip(names, splits, strict=True)]
        for name, label in zip(names, labels, strict=True):
            if label is not None and label not in self.ranked:
                raise FormatError(f"{self.path}: {name} belongs to {label!a}, which is not in {WNIDS}")
        if not any(splits):
            raise FormatError(f"{self.path} holds no train/<wnid>/images/ and no val/images/; give {WANTED}")
        return Arrangement(splits, labels, [entry.name.partition("/")[2] for entry in files.images], file_keys)

    def _label(self, name: PurePosixPath, split: str | None) -> str | None:
        """WordNet id; of val/ by the folder in copies that were sorted into val/<wnid>/, else by its annotations."""
        if split is None:
            return None
        if split == "train" or (len(name.parts) > 2 and WNID.fullmatch(name.parts[1])):
            return name.parts[1]
        if self._noted is None:
            raise FormatError(f"{self.path} has no {ANNOTATIONS}, which holds the labels of val/; give {WANTED}")
        if name.name not in self._noted:
            raise FormatError(f"{self.path}: {name} has no line in {ANNOTATIONS}; add it, or remove the image")
        return self._noted[name.name]

    @cached_property
    def _noted(self) -> dict[str, str] | None:
        lines = self._lines(ANNOTATIONS)
        pairs = (line.split("\t")[:2] for line in lines or [] if "\t" in line)
        noted = noted_labels(((name, label.strip()) for name, label in pairs), f"{self.path}: {ANNOTATIONS}")
        return None if lines is None else noted

    @cached_property
    def ranked(self) -> dict[str, int]:
        """WordNet ids of wnids.txt with their line numbers."""
        lines = self._lines(WNIDS)
        if lines is None:
            raise FormatError(f"{self.path} holds no {WNIDS}, whose line numbers are the labels; give {WANTED}")
        if not lines or len(set(lines)) != len(lines) or not all(WNID.fullmatch(line) for line in lines):
            raise FormatError(f"{self.path}: {WNIDS} is not one different WordNet id a line; fetch it again")
        return {wnid: number for number, wnid in enumerate(lines)}

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of words.txt ("goldfish, Carassius auratus"), else WordNet ids; ids are added to names that occur twice."""
        lines = self._lines(WORDS) or []
        words = {wnid: name.strip() for wnid, tab, name in (line.partition("\t") for line in lines) if name.strip()}
        names = {wnid: words.get(wnid, wnid) for wnid in self.ranked}
        counts = Counter(names.values())
        return tuple(name if counts[name] == 1 else f"{name} ({wnid})" for wnid, name in names.items())

    @cached_property
    def others(self) -> LeftOut:
        if unlabelled := self.arrangement.splits.count(None):
            self.files.others.notes.append(f"{unlabelled} images of other splits than train and val were left out")
        return self.files.others

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """A sha256 over names, labels and, in an archive, places of all images, and the classes; one of the content."""
        digest = hashlib.sha256("\n".join((*self.ranked, *self.classes)).encode())
        arranged = zip(self.files.images, self.arrangement.splits, self.arrangement.labels, strict=True)
        labelled = sorted((split, entry.name, entry, label) for entry, split, label in arranged if split is not None)
        for _, _, entry, label in labelled:
            digest.update(f"{entry.name}\0{label}\0{entry.offset}\0{entry.length}\n".encode())
        return {
            "layout": self.name,
            "images": {split: self.arrangement.splits.count(split) for split in ("train", "val")},
            "listing_sha256": digest.hexdigest(),
            "content_sha256": content_of(self.reader, [entry for _, _, entry, _ in labelled]),
        }

    def meta(self, entry: FileEntry, label: str | None) -> dict[str, str | int]:
        return {"file": entry.name, "wnid": str(label)}

    def _lines(self, name: str) -> list[str] | None:
        """Lines of a text that lies there, without blank ones; None if it does not. FormatError: unreadable, empty."""
        note = next((note for note in self.files.notes if note.name.casefold() == name), None)
        if note is None:
            return None
        text = self.files.read_note(note, f"{self.path}: {name}", "fetch it again").decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()]
