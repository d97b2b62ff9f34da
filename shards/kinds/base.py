"""What one kind of shard set adds to what all kinds have in common.

Common to all: a key, a label, meta, members named by suffix of which the last two are the label (`.cls`) and a JSON
object, their offsets and lengths. A kind is a frozen dataclass around its spec; `kind_of(spec)` finds it.

Shape letters: S samples, m members of a sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from shards.schema import DatasetInfo
from shards.tar import StoredTar

Columns = dict[str, np.ndarray]
"""A kind's own index columns by name: [S], or [S, width]."""


@dataclass(frozen=True)
class Column:
    """One of a kind's own index columns: a number a sample, or with `width` that many."""

    dtype: str
    width: int | None = None


class StoredSplit(Protocol):
    """What a kind sees of a split whose index was read (SplitTable)."""

    @property
    def offsets(self) -> np.ndarray: ...  # int64 [S, m]

    @property
    def lengths(self) -> np.ndarray: ...  # int32 [S, m]

    @property
    def columns(self) -> Columns: ...


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of set. Class variables, then writing, the index, checking, and what is said about the set."""

    spec: Any
    sample_type: ClassVar[type]
    reserved: ClassVar[frozenset[str]] = frozenset()  # names in the JSON that samples' meta may not use

    @property
    def has_pixels(self) -> bool:
        """Whether a sample holds pixels, whose mean and deviation stand in dataset.json."""
        return True

    @classmethod
    @abstractmethod
    def from_json(cls, record: dict[str, Any]) -> Kind:
        """The inverse of dataclasses.asdict(spec). FormatError: a field that is missing or out of bounds."""

    @abstractmethod
    def problem(self, sample: Any) -> str | None:
        """Why `sample` does not fit the spec; None if it does. Key, label and meta are checked elsewhere."""

    @abstractmethod
    def members(self, sample: Any) -> list[bytes]:
        """The contents of a valid sample's members, without the label and the JSON."""

    def row(self, sample: Any) -> dict[str, Any]:
        """A valid sample's values of columns()."""
        return {}

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the sample's JSON holds besides its meta, from its values of columns()."""
        return {}

    def columns(self) -> dict[str, Column]:
        """The kind's own index columns, in order."""
        return {}

    @abstractmethod
    def faults(self, columns: Columns, lengths: np.ndarray) -> dict[str, np.ndarray]:
        """What must not be in an index: words for "sample X has …" → bool [S]. lengths: int64 [S, m]."""

    @abstractmethod
    def differs(self, tar: StoredTar, split: StoredSplit, samples: np.ndarray) -> np.ndarray:
        """bool, one for each of `samples`: members in the tar that the index or spec belie."""

    @abstractmethod
    def member_records(self) -> list[dict[str, Any]]:
        """For dataset.json: name, dtype, shape, axes of the members, the label's and the JSON's at the end."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For `info`: the spec as JSON values."""

    @abstractmethod
    def describe_split(self, split: StoredSplit) -> dict[str, Any]:
        """For `info`: counts and sizes of a split."""

    @abstractmethod
    def card_summary(self, info: DatasetInfo) -> str:
        """For the data card: one sentence."""

    @abstractmethod
    def card_members(self) -> list[str]:
        """For the data card: one line a member, and after an empty line whatever table belongs to them."""


LABEL_RECORD = {"dtype": "ASCII integer", "meaning": "rank in classes, -1 for none"}
LABEL_LINE = "* `KEY.cls`: the class as an ASCII number, rank in `classes` of `_meta/dataset.json`, -1 for none"


def classes_in_words(info: DatasetInfo) -> str:
    return f"{len(info.classes)} classes" if info.classes else "no classes"
