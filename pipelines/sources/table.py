"""Frames of sequences as one table, whatever layout they come from; and the source of views that builds from it.

A manifest, a LeRobot set, camera poses of a scene: each becomes a `ViewTable`. `TableSource` does the rest, once for
all: which frames make a sample, keys, classes, identity. Rows are columns of numbers: a million frames take megabytes.

Letters: R rows (frames), Q sequences, P parameters, N view slots of a sample.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.archives import Content
from pipelines.sources import Frames, ViewsContent, ViewSource, ViewsRecord
from pipelines.sources.content import name_rank
from pipelines.sources.files import FileReader
from pipelines.sources.keys import sequence_keys
from pipelines.sources.split_folders import class_names, refuse_two_spellings
from shards.errors import FormatError, UsageError
from shards.schema import MAX_PARAMS, MAX_VIEWS, ActionSpec, ActionTerm, ParamField

SAMPLE_FRAMES = 256
FEWEST, MOST = 8, 64  # views of a sample, where sequences are cut into several
SIMILAR = 0.25  # padding up to which one sample a sequence is plainer than several
LARGEST_STEP = 2**31 - 1
OVERHEAD = 1  # what a sample's other members take, in frames


class Pictures(Protocol):
    """Where the images of R rows are. It stays in the parent process; what `contents` returns travels to workers."""

    def name(self, row: int) -> str:
        """What a user would look for, e.g. "scenes/a/0001.png"."""
        ...

    def contents(self, rows: np.ndarray) -> Sequence[Content] | Frames:
        """What a worker makes the images of these rows from, in their order."""
        ...

    def sample(self, count: int) -> list[tuple[str, Content]]:
        """(name, image file) of at most `count` rows, spread over all: they decide the size and the JPEG setting."""
        ...

    def stamp(self, rows: np.ndarray) -> str:
        """Differs, on this machine, whenever a file of these rows may have been written to."""
        ...

    def identity(self) -> dict[str, Any]:
        """JSON values that tell what the files hold, wherever they lie."""
        ...


@dataclass(frozen=True)
class ViewTable:
    """Frames of sequences, R rows, sorted by sequence and step.

    sequences  [Q] different names: objects, scenes, episodes
    of         int32 [R], position of each row's sequence in `sequences`, ascending; every one has rows
    steps      int32 [R], 0 or more, ascending within a sequence
    ordered    whether steps mean an order in time (a step or timestamp column), or only count views
    params     float32 [R, P], finite
    fields     names and units of the P columns
    splits     [Q] "train", "val" … ; None leaves the sequence out
    labels     [Q] names of classes; None for none
    pictures   where the images are
    actions    what takes a frame to another, made of these columns; None: what the columns imply
    settled    JSON values: what of the options decides the result
    where      row → "metadata.csv, row 17", for messages
    """

    sequences: Sequence[str]
    of: np.ndarray
    steps: np.ndarray
    ordered: bool
    params: np.ndarray
    fields: tuple[ParamField, ...]
    splits: Sequence[str | None]
    labels: Sequence[str | None]
    pictures: Pictures
    actions: ActionSpec | None = None
    settled: dict[str, Any] = field(default_factory=dict)
    where: Callable[[int], str] = "row {}".format

    @cached_property
    def bounds(self) -> np.ndarray:
        """int64 [Q + 1]: first row of each sequence, and R."""
        return np.searchsorted(self.of, np.arange(len(self.sequences) + 1))

    @property
    def names(self) -> list[str]:
        """Of the P columns."""
        return [field.name for field in self.fields]

    @property
    def terms(self) -> tuple[ActionTerm, ...]:
        """Of the actions; none where nothing was declared."""
        return self.actions.terms if self.actions else ()

    def columns(self, names: Sequence[str]) -> np.ndarray:
        """float64 [R, n] of these columns."""
        return self.params[:, [self.names.index(name) for name in names]].astype(np.float64)

    def check(self) -> None:
        """FormatError: more columns than a set may have, an action that they do not suffice for.

        ValueError: rows are not as they are documented to be, a mistake of who made the table.
        """
        rows, same = len(self.of), np.diff(self.of) == 0
        if len(self.fields) > MAX_PARAMS:
            raise FormatError(f"{len(self.fields)} columns of parameters; a set has at most {MAX_PARAMS}")
        if self.actions is not None and (problem := self.actions.problem(self.fields)):
            raise FormatError(problem)
        if not (
            rows
            and self.params.shape == (rows, len(self.fields))
            and len(self.steps) == rows
            and (np.diff(self.of) >= 0).all()
            and (np.diff(self.steps)[same] > 0).all()
            and (np.diff(self.bounds) > 0).all()
            and self.bounds[-1] == rows
            and len(self.sequences) == len(self.splits) == len(self.labels) == len(set(self.sequences))
        ):
            raise ValueError("a table's rows must be sorted by sequence and step, and fit each other")

    def sha256(self) -> str:
        """Of everything but the images."""
        digest = hashlib.sha256(repr((self.fields, self.ordered)).encode())
        for name, split, label in zip(self.sequences, self.splits, self.labels, strict=True):
            digest.update(f"{name!r} {split!r} {label!r}\n".encode("utf-8", "surrogateescape"))
        for column in (self.of.astype("<i4"), self.steps.astype("<i4"), self.params.astype("<f4")):
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()


class TableSource(ViewSource):
    """Samples of a ViewTable's sequences.

    path              the source, for messages; its name is that of the set
    name              of the command: "manifest"
    options           of the command line, as Source.options
    views_per_sample  frames of a sample, N: a longer sequence takes several. None: chosen
    """

    mixed_sizes = True

    def __init__(
        self,
        path: Path,
        table: ViewTable,
        *,
        name: str,
        options: dict[str, Any] | None = None,
        views_per_sample: int | None = None,
    ):
        """UsageError: a number of views that is not allowed; FormatError: classes or sequences of one name in two
        spellings. Otherwise as ViewTable.check."""
        table.check()
        self.path, self.table, self.name = path, table, name
        self.given = {**(options or {}), "views_per_sample": views_per_sample}
        self.params, self.actions, self.ordered = table.fields, table.actions, table.ordered
        self.classes = class_names(table.labels)
        refuse_two_spellings(self.classes)
        refuse_two_spellings(table.sequences, "sequences")
        self.resampler = getattr(table.pictures, "resampler", self.resampler)
        lengths = np.diff(table.bounds)
        if views_per_sample is None:
            views_per_sample = choose_views_per_sample(lengths)
        elif not 1 <= views_per_sample <= MAX_VIEWS:
            raise UsageError(f"--views-per-sample {views_per_sample}: 1 to {MAX_VIEWS} is allowed")
        self.views_per_sample = views_per_sample if views_per_sample < lengths.max() else 0
        self.padding = padding_share(lengths, self.views_per_sample or int(lengths.max()))
        self.starts, self.ends, self.chunks = chunk_bounds(table.bounds, self.views_per_sample)

    @property
    def options(self) -> dict[str, Any]:
        return self.given

    @property
    def settled(self) -> dict[str, Any]:
        return {**self.table.settled, "views_per_sample": self.views_per_sample}

    @cached_property
    def identity(self) -> dict[str, Any]:
        table = self.table
        name = re.sub(r"\.zip$", "", self.path.resolve().name)
        counts = {"frames": len(table.of), "sequences": len(table.sequences), "padding": round(self.padding, 4)}
        return {"name": name, **counts, "table_sha256": table.sha256(), **table.pictures.identity()}

    @cached_property
    def sample(self) -> Sequence[tuple[str, Content]]:
        return self.table.pictures.sample(SAMPLE_FRAMES)

    def records(self) -> list[ViewsRecord]:
        """A record a sample; those of one sequence follow each other."""
        table, rank = self.table, {name: label for label, name in enumerate(self.classes)}
        keys, most = sequence_keys(table.sequences), int(self.chunks.max())
        digits = len(str(most))
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}  # most sequences have the same steps
        records = []
        for start, end, chunk in zip(self.starts.tolist(), self.ends.tolist(), self.chunks.tolist(), strict=True):
            sequence = int(table.of[start])
            name, label = table.sequences[sequence], table.labels[sequence]
            records.append(
                ViewsRecord(
                    key=keys[sequence] if not self.views_per_sample else f"{keys[sequence]}-{chunk:0{digits}d}",
                    label=-1 if label is None else rank[label],
                    split=table.splits[sequence],
                    name=name,
                    view_ids=_numbers(table.steps[start:end], shared),
                    meta={"sequence": name},
                    chunk=chunk,
                )
            )
        return records

    def read(self, records: Sequence[ViewsRecord], positions: Sequence[int]) -> Iterator[ViewsContent]:
        table = self.table
        for position in positions:
            rows = np.arange(self.starts[position], self.ends[position])
            names = [table.pictures.name(row) for row in rows.tolist()]
            yield ViewsContent(records[position], table.pictures.contents(rows), table.params[rows], names=names)

    def stamp(self, records: Sequence[ViewsRecord]) -> str:
        return self.table.pictures.stamp(np.arange(len(self.table.of)))

    def holds(self, records: Sequence[ViewsRecord], identity: dict[str, Any]) -> bool:
        now = self.table.pictures.identity()
        return now == {name: identity.get(name) for name in now}


def _numbers(steps: np.ndarray, shared: dict[tuple[int, ...], tuple[int, ...]]) -> Sequence[int]:
    first, last = int(steps[0]), int(steps[-1])
    if last - first == len(steps) - 1:
        return range(first, last + 1)
    numbers = tuple(steps.tolist())
    return shared.setdefault(numbers, numbers)


def choose_views_per_sample(lengths: np.ndarray) -> int:
    """N for sequences of `lengths` [Q] frames.

    The longest, if that is at most 64 and pads little. Otherwise what stores least of 8 … 64; of equals the largest.
    """
    longest = int(lengths.max())
    if longest <= MOST and padding_share(lengths, longest) <= SIMILAR:
        return longest
    return min(range(FEWEST, MOST + 1), key=lambda n: (_samples(lengths, n) * (n + OVERHEAD), -n))


def padding_share(lengths: np.ndarray, views: int) -> float:
    """The share of stored frames that are repetitions, where a sample has `views` slots."""
    return 1 - int(lengths.sum()) / (_samples(lengths, views) * views)


def _samples(lengths: np.ndarray, views: int) -> int:
    return int((-(-lengths // views)).sum())


def chunk_bounds(bounds: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row, row behind the last, and number in its sequence of every sample, int64 [S] each.

    bounds: int64 [Q + 1], first row of each sequence, and R. views: at most so many rows a sample; 0: a whole sequence.
    """
    lengths = np.diff(bounds)
    views = views or int(lengths.max())
    samples = -(-lengths // views)
    firsts = np.cumsum(samples) - samples
    chunk = np.arange(samples.sum()) - np.repeat(firsts, samples)
    starts = np.repeat(bounds[:-1], samples) + chunk * views
    return starts, np.minimum(starts + views, np.repeat(bounds[1:], samples)), chunk


def divided_steps(steps: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, int]:
    """Every fifth frame of a video has no gaps: steps are divided by what all their distances have in common.

    steps: int64 [R], ascending in each sequence, of: int [R], ascending → (int64 [R], the divisor). Where there is a
    divisor, or a step that no set can hold, they count from their sequence's first; LARGEST_STEP + 1: too far from it
    """
    firsts, same = steps[np.searchsorted(of, of)], np.diff(of) == 0
    distances = steps.view(np.uint64) - firsts.view(np.uint64)  # two int64 may lie further apart than one holds
    gaps = np.diff(distances)[same & (np.diff(steps) != 0)]
    divisor = int(np.gcd.reduce(gaps)) if len(gaps) else 1
    if divisor > 1 or steps.min(initial=0) < 0 or steps.max(initial=0) > LARGEST_STEP:
        steps = np.minimum(distances // np.uint64(max(divisor, 1)), LARGEST_STEP + 1).astype(np.int64)
    return steps, max(divisor, 1)


@dataclass(frozen=True)
class PlacedFile:
    """A file of a folder or archive, read where it is wanted: in a worker."""

    reader: FileReader
    name: str
    offset: int
    length: int

    def read(self) -> bytes:
        return self.reader.read(self.name, self.offset, self.length)

    def read_end(self, count: int) -> bytes:
        """The last bytes, of a tar's file without those before. ValueError as `read`."""
        if self.reader.zipped or self.length <= count:
            return self.read()[-count:]
        return self.reader.read(self.name, self.offset + self.length - count, count)


@dataclass(frozen=True)
class FilePictures:
    """An image file for each row, in a folder, a plain tar or a zip.

    names    [R] paths below the reader's root, with "/": a list, or a StringArray, which takes less memory
    offsets  int64 [R], lengths int64 [R]: as in FileEntry; of a folder zeros
    """

    reader: FileReader
    names: Sequence[Any]
    offsets: np.ndarray
    lengths: np.ndarray

    def name(self, row: int) -> str:
        return str(self.names[row])

    def at(self, rows: np.ndarray) -> FilePictures:
        """Those of some rows. `names` has to be an Arrow array."""
        return FilePictures(self.reader, self.names.take(rows), self.offsets[rows], self.lengths[rows])  # type: ignore[attr-defined]

    def contents(self, rows: np.ndarray) -> Sequence[Content]:
        if self.reader.is_folder:
            return self.reader.files(map(self.name, rows.tolist()))
        return [self._placed(row) for row in rows.tolist()]

    def sample(self, count: int) -> list[tuple[str, Content]]:
        ranked = heapq.nsmallest(count, ((name_rank(name), row) for row, name in enumerate(map(str, self.names))))
        return [(self.name(row), self.contents(np.array([row]))[0]) for _, row in ranked]

    def stamp(self, rows: np.ndarray) -> str:
        return self.reader.stamp(map(self.name, rows.tolist()))

    def identity(self) -> dict[str, Any]:
        lengths = map(int, self.lengths)
        sha256 = self.reader.content_sha256(self.names, lengths, lambda row, _: self._placed(row).read())
        return {"content_sha256": sha256}

    def _placed(self, row: int) -> PlacedFile:
        return PlacedFile(self.reader, self.name(row), int(self.offsets[row]), int(self.lengths[row]))
