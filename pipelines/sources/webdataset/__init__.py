"""webdataset tars of anybody's as a source: one image a sample → an `image` set.

Keys become sample keys, `cls` (or a JSON field) the label. The tars are listed once, header by header, and every image
is then read at its place, by whatever worker. What is no plain tar on this disk is copied into one first
(spool.py); webdataset itself opens streams and groups members (samples.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import LeftOut, printable
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.content import content_sha256, file_stats, stamp_of
from pipelines.sources.decode import decode_image
from pipelines.sources.files import FileReader, stored_size
from pipelines.sources.keys import unique_keys
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.subset import RULE, train_or_val
from pipelines.sources.webdataset.columns import NO_LABEL, Label, Labels
from pipelines.sources.webdataset.options import NAME, TarOptions, no_samples
from pipelines.sources.webdataset.samples import RAW, Member, TarSamples, read_raw
from pipelines.sources.webdataset.spool import Spool


@dataclass(frozen=True)
class TarRecord(ImageRecord):
    """`path`: of the plain tar that holds it."""

    path: str = ""


@dataclass(frozen=True)
class ListedImage:
    """One sample of one image: in which tar, under which key, where."""

    tar: int
    key: str
    member: Member
    label: Label
    split: str


class WebdatasetImages(ImageSource):
    """One image a sample. Streams are copied into `spool` when something is first asked of it.

    Classes are those that are given, else numbers up to the largest, or names in their order.
    """

    name = NAME

    def __init__(self, asked: TarOptions, spool: Spool):
        self.asked = asked
        self.path = asked.path
        self._spool = spool

    def __getstate__(self) -> dict[str, Any]:
        """A worker is told by each record where it lies."""
        return {"path": self.path}

    @property
    def options(self) -> dict[str, Any]:
        return self.asked.to_json()

    @property
    def set_name(self) -> str:
        return self.asked.set_name

    @cached_property
    def samples(self) -> TarSamples:
        return TarSamples(self.asked.tars, self._spool.plain(self.asked.tars), self.asked.image)

    @cached_property
    def listing(self) -> tuple[list[ListedImage], tuple[str, ...]]:
        """(images in the order of the tars, classes). FormatError: the first 20 mistakes."""
        mistakes, labels = Mistakes(), Labels(self.asked.label, self.asked.known_classes)
        found: list[ListedImage] = []
        for sample in self.samples.read(mistakes):
            try:
                if len(sample.views) > 1:
                    raise ValueError(f"it has {len(sample.views)} images, the first sample has one")
                tar = self.asked.tars[sample.tar]
                label = labels.of(self.samples, sample)
                found.append(ListedImage(sample.tar, sample.key, sample.views[0].member, label, tar.split))
            except ValueError as error:
                mistakes.add(f"{self.samples.where(sample.tar, sample.key)}: {error}")
        labelled = {image.split for image in found if image.label is not None}
        for image in found:
            if image.label is None and image.split in labelled:
                where = self.samples.where(image.tar, image.key)
                mistakes.add(f"{where}: no label, others of {image.split} have one")
        classes = labels.classes((image.label for image in found), mistakes)
        mistakes.raise_any(str(self.path))
        if not found:
            raise no_samples(self.asked)
        if self.asked.val_fraction is not None:
            names = [f"{self.asked.tars[image.tar].name}/{image.key}" for image in found]
            splits = train_or_val(names, [image.label for image in found], self.asked.val_fraction)
            found = [replace(image, split=split) for image, split in zip(found, splits, strict=True)]
        return found, classes

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.listing[1]

    @property
    def others(self) -> LeftOut:  # type: ignore[override]
        return self.samples.others

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """A sha256 over tars, members, splits, labels and places; one of the content (content.py)."""
        digest, files = hashlib.sha256(), []
        images, _ = self.listing
        for image in images:
            tar, member = self.asked.tars[image.tar], image.member
            place = f"{tar.name}\0{member.name}\0{image.split}\0{image.label}\0{member.offset}\0{member.length}\n"
            digest.update(place.encode())
            files.append((f"{tar.name}/{member.name}", stored_size(member.length)))
        paths = self.samples.paths

        def read(position: int, name: str) -> bytes:
            member = images[position].member
            return FileReader(paths[images[position].tar]).read(member.name, member.offset, member.length)

        return {
            "layout": self.name,
            "images": len(images),
            **({} if self.asked.val_fraction is None else {"val_fraction_rule": RULE}),
            "listing_sha256": digest.hexdigest(),
            "content_sha256": content_sha256(files, read),
        }

    def records(self) -> list[ImageRecord]:
        """Training first, then the other splits; in a split in the order of the tars."""
        images, classes = self.listing
        number = {name: rank for rank, name in enumerate(classes)}
        found = []
        splits = sorted({image.split for image in images}, key=lambda name: (name != "train", name))
        for split in splits:
            chosen = [image for image in images if image.split == split]
            keys = sample_keys([(self.asked.tars[image.tar].name, image.key) for image in chosen])
            for key, image in zip(keys, chosen, strict=True):
                label = number[image.label] if isinstance(image.label, str) else image.label
                meta: dict[str, str | int] = {"tar": self.asked.tars[image.tar].name, "file": image.member.name}
                name = f"{self.asked.tars[image.tar].name}: {printable(image.member.name)}"  # goes into provenance
                place = (image.member.offset, image.member.length)
                path = str(self.samples.paths[image.tar])
                found.append(TarRecord(key, NO_LABEL if label is None else label, split, name, *place, meta, path))
        return found

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3]. ValueError: empty, corrupt, too large."""
        data = self.stored(record)
        return read_raw(data) if str(record.meta["file"]).lower().endswith(RAW) else decode_image(data)

    def stamp(self) -> str:
        return stamp_of(file_stats(self.samples.paths))

    def stored(self, record: ImageRecord) -> bytes:
        assert isinstance(record, TarRecord)
        return FileReader(Path(record.path)).read(str(record.meta["file"]), record.position, record.length)


def sample_keys(places: Sequence[tuple[str, str]]) -> list[str]:
    """One key for each (tar, key): the keys themselves where they all differ, else tar and key."""
    keys = [key for _, key in places]
    return unique_keys(keys if len(set(keys)) == len(keys) else [f"{tar}/{key}" for tar, key in places])
