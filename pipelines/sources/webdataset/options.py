"""What of the command line says which tars are read, and how; and what of it may be told to others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.sources.choose import check_fraction
from pipelines.sources.webdataset.files import SCHEME, SPLITS, TarFile, tars_of
from shards.errors import FormatError, UsageError
from shards.layout import Layout
from shards.metadata import read_info
from shards.schema import DatasetInfo

NAME = "webdataset"
PIPE = "pipe:"


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
