"""webdataset tars of anybody's as a source: one image a sample → an `image` set.

Keys become sample keys, `cls` (or a JSON field) the label. The tars are listed once, header by header, and every image
is then read at its place, by whatever worker. What is no plain tar on this disk is copied into one first
(tar_files.py); webdataset itself opens streams and groups members (tar_samples.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from pipelines.archives import LeftOut, printable
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.choose import RULE, check_fraction, validation_share
from pipelines.sources.content import content_sha256, file_stats, short_digest, stamp_of
from pipelines.sources.decode import decode_image
from pipelines.sources.file_source import unique_keys
from pipelines.sources.files import FileReader
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.tar_files import SCHEME, SPLITS, Spool, TarFile, tars_of
from pipelines.sources.tar_samples import Member, TarSample, TarSamples, read_raw
from shards.errors import FormatError, UsageError
from shards.layout import Layout
from shards.metadata import read_info
from shards.schema import DatasetInfo

NAME = "webdataset"
RAW = ".npy"
PIPE = "pipe:"
LARGEST_LABEL = 1_000_000
NO_LABEL = -1

Label = int | str | None


@dataclass(frozen=True)
class TarOptions:
    """What of the command line says how tars are read.

    sources       as given, each with or without "SPLIT=" in front; `split` for those without
    label         JSON field that holds the label; None: `cls`
    classes       names of the labels, in the order of their numbers; None: the names or numbers that are there
    image         which members are the images (TarSamples)
    val_fraction  this share of each class (or of the sequences) is validation
    """

    sources: tuple[str, ...]
    split: str = "train"
    label: str | None = None
    classes: tuple[str, ...] | None = None
    image: str | None = None
    val_fraction: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.val_fraction is not None:
            check_fraction(self.val_fraction)

    @cached_property
    def tars(self) -> list[TarFile]:
        """UsageError: a tar that is not there; --val-fraction beside splits."""
        tars = tars_of(self.sources, self.split)
        if self.val_fraction is not None and {tar.split for tar in tars} != {"train"}:
            raise UsageError("--val-fraction is for training tars alone; these say which split they are")
        return tars

    @cached_property
    def own(self) -> DatasetInfo | None:
        """What a finished set of ours says, if all tars are those of one."""
        folders = {None if tar.is_stream else Path(tar.url).parent for tar in self.tars}
        folder = folders.pop()
        if folders or folder is None or not Layout(folder).info.is_file():
            return None
        return read_info(folder)

    @property
    def known_classes(self) -> tuple[str, ...] | None:
        if self.classes is not None or self.label is not None or self.own is None:
            return self.classes
        return self.own.classes or None

    @property
    def path(self) -> Path:
        """Stands for the source in messages and names: the folder of its first tar, or its address."""
        first = self.tars[0]
        if first.url.startswith(PIPE):
            return Path(PIPE.rstrip(":"))
        return Path(_public_url(first.url)) if first.is_stream else Path(first.url).parent

    @property
    def set_name(self) -> str:
        """The folder of its first tar; of a stream the tar's name without its number."""
        first = self.tars[0]
        return first.name.rstrip("0123456789").rstrip("-_.") or NAME if first.is_stream else self.path.resolve().name

    def to_json(self) -> dict[str, Any]:
        """For a set's provenance: no folders, and nothing of a command or address that may be secret."""
        shown = [_public(source) for source in self.sources]
        given = {"label": self.label, "image": self.image, "val_fraction": self.val_fraction}
        return {"source": shown, "split": self.split if self.split != "train" else None, **given}


def _public(source: str) -> str:
    """As it was given, without folders, and without what may be secret: a command, a user's name, what follows "?"."""
    named, _, rest = source.partition("=")
    split, where = (f"{named}=", rest) if named in SPLITS else ("", source)
    return split + "::".join(map(_public_url, where.split("::")))


def _public_url(url: str) -> str:
    if url.startswith(PIPE):
        return f"{PIPE}…"
    if not SCHEME.match(url):
        return Path(url).name
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def no_samples(asked: TarOptions) -> FormatError:
    return FormatError(f"{asked.path} has no samples with images; the tars are empty, or hold other things")


def read_classes(path: Path) -> tuple[str, ...]:
    """Names, one a line, in the order of their numbers. UsageError: unreadable, an empty line, one name twice."""
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {path} cannot be read ({error}); give a text file, a name a line") from error
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise UsageError(f"--classes {path}: line {names.index('') + 1 if names else 1} is empty; each names a class")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--classes {path}: {printable(twice)} stands twice")
    return tuple(names)


class Labels:
    """Labels of samples as they come, numbers or names, and then the classes."""

    def __init__(self, field: str | None, classes: tuple[str, ...] | None):
        self.field = field
        self.known = {name: number for number, name in enumerate(classes)} if classes else None

    def of(self, tars: TarSamples, sample: TarSample) -> Label:
        """None: it has none. ValueError: no number or name, or none that --classes has."""
        if self.field is not None:
            value = tars.fields(sample).get(self.field)
        else:
            value = None if sample.cls is None else _number_or_name(tars.content(sample.tar, sample.cls))
        if value is None or value == NO_LABEL:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"its label is {value!r:.40}; a number from 0 or a name is one")
        if isinstance(value, int) and not 0 <= value < LARGEST_LABEL:
            raise ValueError(f"its label is {value}; −1 (none) to {LARGEST_LABEL - 1} are allowed")
        if self.known is None:
            return value
        number = self.known.get(value) if isinstance(value, str) else value
        if number is None or number >= len(self.known):
            raise ValueError(f"its label is {value!r:.40}, which is none of the {len(self.known)} of --classes")
        return number

    def classes(self, labels: Iterable[Label], mistakes: Mistakes) -> tuple[str, ...]:
        """Their names: those given; else numbers from 0 to the largest, or sorted names."""
        if self.known is not None:
            return tuple(self.known)
        found = {label for label in labels if label is not None}
        names = {label for label in found if isinstance(label, str)}
        if names and len(names) < len(found):
            number = next(label for label in found if isinstance(label, int))
            mistakes.add(f"some labels are numbers ({number}) and some names ({min(names)}); give --classes")
        if names:
            return tuple(sorted(names))
        return tuple(str(number) for number in range(max((int(label) for label in found), default=-1) + 1))


def _number_or_name(data: bytes) -> int | str:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("its cls is not UTF-8") from error
    return int(text) if text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() else text


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
        _refuse_few_labels(found, self.samples, mistakes)
        classes = labels.classes((image.label for image in found), mistakes)
        mistakes.raise_any(str(self.path))
        if not found:
            raise no_samples(self.asked)
        return self._divided(found), classes

    def _divided(self, found: list[ListedImage]) -> list[ListedImage]:
        if self.asked.val_fraction is None:
            return found
        names = [f"{self.asked.tars[image.tar].name}/{image.key}" for image in found]
        chosen = validation_share(names, [str(image.label) for image in found], self.asked.val_fraction)
        return [
            ListedImage(image.tar, image.key, image.member, image.label, "val" if validation else "train")
            for image, validation in zip(found, chosen, strict=True)
        ]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return self.listing[1]

    @property
    def others(self) -> LeftOut:  # type: ignore[override]
        return self.samples.others

    @property
    def left_out(self) -> int:  # type: ignore[override]
        return self.others.total

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """A sha256 over tars, members, splits, labels and places; one of the content (content.py)."""
        digest = hashlib.sha256()
        images, _ = self.listing
        for image in images:
            tar, member = self.asked.tars[image.tar], image.member
            place = f"{tar.name}\0{member.name}\0{image.split}\0{image.label}\0{member.offset}\0{member.length}\n"
            digest.update(place.encode())
        return {
            "layout": self.name,
            "images": len(images),
            **({} if self.asked.val_fraction is None else {"val_fraction_rule": RULE}),
            "listing_sha256": digest.hexdigest(),
            "content_sha256": self._content(images),
        }

    def _content(self, images: Sequence[ListedImage]) -> str:
        sizes = ((self._name(image), _size(image.member)) for image in images)
        paths = self.samples.paths

        def read(position: int, name: str) -> bytes:
            member = images[position].member
            return FileReader(paths[images[position].tar]).read(member.name, member.offset, member.length)

        return content_sha256(sizes, read)

    def _name(self, image: ListedImage) -> str:
        return f"{self.asked.tars[image.tar].name}/{image.member.name}"

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
        data = self._bytes(record)
        return read_raw(data) if str(record.meta["file"]).lower().endswith(RAW) else decode_image(data)

    def digest(self, record: ImageRecord) -> str:
        try:
            return short_digest(self._bytes(record))
        except ValueError:
            return short_digest(b"")

    def stamp(self) -> str:
        return stamp_of(file_stats(self.samples.paths))

    def _bytes(self, record: ImageRecord) -> bytes:
        assert isinstance(record, TarRecord)
        return FileReader(Path(record.path)).read(str(record.meta["file"]), record.position, record.length)


def _size(member: Member) -> int:
    return member.length if member.length >= 0 else -1 - member.length


def sample_keys(places: Sequence[tuple[str, str]]) -> list[str]:
    """One key for each (tar, key): the keys themselves where they all differ, else tar and key."""
    keys = [key for _, key in places]
    return unique_keys(keys if len(set(keys)) == len(keys) else [f"{tar}/{key}" for tar, key in places])


def _refuse_few_labels(found: Sequence[ListedImage], samples: TarSamples, mistakes: Mistakes) -> None:
    """In a split all have a label or none has."""
    labelled = {image.split for image in found if image.label is not None}
    for image in found:
        if image.label is None and image.split in labelled:
            mistakes.add(f"{samples.where(image.tar, image.key)}: no label, others of {image.split} have one")
