"""What a source of images is: records of what is there, in a stable order, and the pixels of any one of them.

A source is cheap to make and to pickle; it lists what it holds when first asked, and reads at random, so that worker
processes can share the work. Shards with maps and the maps themselves find each other by split and key.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.archives import LeftOut
from pipelines.build.plan import evenly
from pipelines.build.watch import SourceWatch


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
    """`fingerprint` tells two sources apart at little cost, wherever they lie. `left_out` counts other files.

    `stamp` differs, on this machine, whenever a file may have been written to.
    """

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
    def others(self) -> LeftOut:
        """What it holds beside its images, for one line at the end of a build."""
        ...

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

    def digest(self, record: ImageRecord) -> str:
        """short_digest of its bytes as they are stored; of no bytes, for an image that cannot be read."""
        ...

    def stamp(self) -> str: ...


def images_watch(source: ImageSource, records: Sequence[ImageRecord]) -> SourceWatch:
    """Of a build whose positions are those of `records`."""
    before = source.fingerprint

    def same() -> bool:
        return copy.copy(source).fingerprint == before  # a copy has read nothing yet

    return SourceWatch(source.path, source.stamp, same, lambda position: source.digest(records[position]))


def limited(records: Sequence[ImageRecord], limit: int | None) -> list[ImageRecord]:
    """At most `limit` records of each split, evenly over the same classes, in their order; all of them for None."""
    kept = evenly([record.split for record in records], [record.label for record in records], limit)
    return [record for record, keep in zip(records, kept, strict=True) if keep]
