"""What a source is: records of what is there, in a stable order, and the content of any of them. Opens one by name.

A source is cheap to make and to pickle; it lists what it holds when first asked. A source of images is read at random,
so that worker processes can share the work; a source of views is read in its own order, which may be that of a stream.
Shards with maps and the maps themselves find each other by split and key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.archives import Content, LeftOut
from pipelines.sources.content import short_digest
from pipelines.sources.files import holds_parquet
from shards.errors import UsageError
from shards.schema import ActionSpec, ParamField
from shards.stores.store import as_address

IMAGE_SOURCES = {
    "stl10": "pipelines.sources.stl10:Stl10Source",
    "imagenet": "pipelines.sources.imagenet:ImageNetSource",
    "cifar100": "pipelines.sources.cifar100:Cifar100Source",
    "tiny-imagenet": "pipelines.sources.tiny_imagenet:TinyImageNetSource",
    "folder": "pipelines.sources.folder:FolderSource",
}
PARQUET = "pipelines.sources.parquet_images:ParquetSource"


@dataclass(frozen=True)
class ImageRecord:
    """One image of a source, before it is read.

    key       of its sample: unique in its split, a pure function of the image's place in the source
    label     rank in the source's `classes`, −1 for none
    split     "train", "val", "test" or "unlabeled"
    name      for messages: what a user would look for
    position  where it begins in the file that holds it: row of an STL-10 file, byte of a tar; 0 in a file of its own
    length    bytes in a tar, 0 otherwise
    meta      "file": the path relative to the source, with "/" …
    """

    key: str
    label: int
    split: str
    name: str
    position: int
    length: int = 0
    meta: dict[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewsRecord:
    """One object of a source of views, before it is read: all of its views make one sample.

    key, label and meta as in ImageRecord; `split` None: left out. `name` is for messages.
    view_ids  numbers of the views, ascending
    chunk     of a sequence that takes several records in a row: which part of it this one is; 0 begins one
    missing   what the object should have and has not, by name: "image_3.jpg: its latent is missing"
    """

    key: str
    label: int
    split: str | None
    name: str
    view_ids: Sequence[int]
    missing: tuple[str, ...] = ()
    meta: dict[str, str | int] = field(default_factory=dict)
    chunk: int = 0


class Target(Protocol):
    """What size images become, and whether by "squash" or "crop": a Frame of build/encode.py."""

    @property
    def height(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def fit(self) -> str | None: ...


class Frames(Protocol):
    """Images that a worker decodes in their order, as those of a video. It is pickled on its way there."""

    def __len__(self) -> int: ...

    def load(self, target: Target | None = None, size: tuple[int, int] | None = None) -> Iterator[np.ndarray]:
        """uint8 [H, W, 3] of each, in the target's size where one is given. `size`: (height, width) that each must have
        before.

        ValueError: what is wrong with it; nothing comes after that.
        """
        ...

    def again(self, before: Frames) -> int | None:
        """How many frames have to be decoded once more if not the decoder that has just given `before` gives these.
        None: it is of no use to them."""
        ...

    def digest(self) -> str:
        """32 digits that differ where the images do."""
        ...


@dataclass(frozen=True)
class ViewsContent:
    """What a worker needs to make the sample of `record`: `views[i]` and `params[i]` belong to its `view_ids[i]`.

    views   image files, as bytes or as what the worker reads; JPEG where `view_file` ends with ".jpg"
    params  .npy files of P floats, as bytes or paths; or the parameters themselves, float32 [n, P]
    view_file, params_file  names of these files, "image_{}.jpg", for messages
    names   of the images, for messages, where they follow no pattern; these may be of any kind whatever their suffix
    """

    record: ViewsRecord
    views: Sequence[Content] | Frames
    params: Sequence[Content] | np.ndarray
    view_file: str = "image_{}.jpg"
    params_file: str = "latent_{}.npy"
    names: Sequence[str] = ()

    @property
    def name(self) -> str:
        return self.record.name


class Source(ABC):
    """What building a shard set asks of any source.

    name     of the command: `seqjepa-data shard <name>`
    options  what of the command line belongs to the source, by name; None for what was not given
    classes  names, in the order of the labels
    """

    name: str
    path: Path
    classes: tuple[str, ...]

    @property
    def options(self) -> dict[str, Any]:
        return {}


class ImageSource(Source):
    """A source of images.

    fingerprint  JSON values that tell two sources apart at little cost, wherever they lie
    others       which files it holds beside its images, for one line at the end of a build
    """

    fingerprint: dict[str, Any]
    others: LeftOut = LeftOut()

    @property
    def left_out(self) -> int:
        """How many files it holds beside its images."""
        return self.others.total

    @property
    def set_name(self) -> str:
        """What its sets are called."""
        return self.name

    @abstractmethod
    def records(self) -> list[ImageRecord]:
        """All splits, in a stable order. Raises FormatError or UsageError if the layout is not what it should be."""

    @abstractmethod
    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3] RGB; grey, palette, CMYK and alpha converted. ValueError says what is wrong with it."""

    def stored(self, record: ImageRecord) -> bytes:
        """Its bytes as they are stored; of a source that does not say, its pixels. ValueError: they cannot be read."""
        return self.read(record).tobytes()

    def digest(self, record: ImageRecord) -> str:
        """short_digest of its bytes; of no bytes, for an image that cannot be read."""
        try:
            return short_digest(self.stored(record))
        except ValueError:
            return short_digest(b"")

    @abstractmethod
    def stamp(self) -> str:
        """Differs, on this machine, whenever a file of the source may have been written to."""


class ViewSource(Source):
    """A source of views with parameters.

    params         columns of the parameters, P of them
    actions        what takes a view to another, made of these columns; None: what the columns imply
    settled        what of its options has to be in a fingerprint: JSON values, known before anything is listed
    identity       JSON values that tell two sources apart, wherever they lie, and the `name` of the folder or archive
    sample         some images, spread over the source, as (name, content): they decide the size and the JPEG setting
    random_access  False for one file that is read from front to back
    ordered        view_ids are steps of a sequence
    mixed_sizes    images may differ in size, if --size says what they become; they may be of any kind
    resampler      what makes images smaller or larger, for provenance
    views_per_sample  N where a longer sequence takes several records of N views each, the last of fewer; 0: each record
                   is an object of its own, and N the most views that any has
    """

    params: tuple[ParamField, ...]
    actions: ActionSpec | None = None
    settled: dict[str, Any]
    identity: dict[str, Any]
    sample: Sequence[tuple[str, Content]]
    random_access: bool = True
    ordered: bool = False
    mixed_sizes: bool = False
    resampler: str = "PIL bilinear, antialiased"
    views_per_sample: int = 0

    @abstractmethod
    def records(self) -> list[ViewsRecord]:
        """All objects in the source's own order. Raises FormatError or UsageError as ImageSource.records."""

    @abstractmethod
    def read(self, records: Sequence[ViewsRecord], positions: Sequence[int]) -> Iterator[ViewsContent]:
        """Contents of `records[p]` for each p of `positions` (ascending), in that order."""

    @abstractmethod
    def stamp(self, records: Sequence[ViewsRecord]) -> str:
        """Differs, on this machine, whenever a file of these records may have been written to."""

    @abstractmethod
    def holds(self, records: Sequence[ViewsRecord], identity: dict[str, Any]) -> bool:
        """Whether the files of these records are still those of `identity`."""


def open_source(kind: str, path: Path | str, *, val_fraction: float | None = None) -> ImageSource:
    """A source of images by name.

    Raises UsageError for an unknown kind, a path that is not there, an option of another kind.
    """
    if kind not in IMAGE_SOURCES:
        raise UsageError(f"source {kind!r} is not known; allowed are {', '.join(IMAGE_SOURCES)}")
    if address := as_address(path):
        raise UsageError(f"{address}: {kind} is read from this machine's disks; load it first and give the path")
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} is not there; give the folder (or archive) that holds the images")
    if kind != "folder" and val_fraction is not None:
        raise UsageError(f"--val-fraction is for folders without a split of their own; {kind} has one")
    place = PARQUET if kind == "folder" and holds_parquet(path) else IMAGE_SOURCES[kind]
    module, _, name = place.partition(":")
    options = {} if kind != "folder" else {"val_fraction": val_fraction}
    return getattr(import_module(module), name)(path, **options)
