"""What a source of images is: records of what is there, in a stable order, and the pixels of any one of them.

A source is cheap to make and to pickle; it lists what it holds when first asked, and reads at random, so that worker
processes can share the work. Shards with maps and the maps themselves find each other by split and key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np

from shards.errors import UsageError

Kind = Literal["stl10", "imagenet", "cifar100", "tiny-imagenet", "folder"]


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


class ImageSource(Protocol):
    """`fingerprint` tells two sources apart at little cost, wherever they lie. `left_out` counts other files."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def fingerprint(self) -> dict[str, Any]: ...

    @property
    def left_out(self) -> int: ...

    @property
    def options(self) -> dict[str, Any]:
        """What of the command line belongs to the source, by name; None for what was not given."""
        ...

    def records(self) -> list[ImageRecord]:
        """All splits, in a stable order. Raises FormatError or UsageError if the layout is not what it should be."""
        ...

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [H, W, 3] RGB; grey, palette, CMYK and alpha converted. ValueError says what is wrong with it."""
        ...


def open_source(kind: str, path: Path | str, *, val_fraction: float | None = None) -> ImageSource:
    """A source by name. Raises UsageError for an unknown kind, a path that is not there, an option of another kind."""
    if kind not in get_args(Kind):
        raise UsageError(f"source {kind!r} is not known; there are {', '.join(get_args(Kind))}")
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} is not there; give the folder (or archive) that holds the images")
    if kind != "folder" and val_fraction is not None:
        raise UsageError(f"--val-fraction is for folders without a split of their own; {kind} has one")
    if kind == "stl10":
        from pipelines.images.stl10 import Stl10Source

        return Stl10Source(path)
    if kind == "imagenet":
        from pipelines.images.imagenet import imagenet_source

        return imagenet_source(path)
    if kind == "cifar100":
        from pipelines.images.cifar100 import Cifar100Source

        return Cifar100Source(path)
    if kind == "tiny-imagenet":
        from pipelines.images.tiny_imagenet import TinyImageNetSource

        return TinyImageNetSource(path)
    from pipelines.images.folder import folder_source

    return folder_source(path, val_fraction)


def limited(records: Sequence[ImageRecord], limit: int | None) -> list[ImageRecord]:
    """The first `limit` records of each split, in order; all of them for None."""
    if limit is None:
        return list(records)
    seen: dict[str, int] = {}
    kept = []
    for record in records:
        seen[record.split] = seen.get(record.split, 0) + 1
        if seen[record.split] <= limit:
            kept.append(record)
    return kept
