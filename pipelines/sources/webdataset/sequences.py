"""webdataset tars as sequences of views with parameters: the table that TableSource builds a `views` set from.

A frame is an image; its sequence, its step and its parameters come from JSON fields, from the key, from .npy members
or from the number of the image in its sample ("03.jpg"). Rows stay NumPy and Arrow columns, however many there are.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.archives import Content, printable
from pipelines.sources.content import content_sha256, file_stats, name_rank, stamp_of
from pipelines.sources.decode import bitmap_of
from pipelines.sources.files import FileReader
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.table import PlacedFile
from pipelines.sources.webdataset.columns import Labels, SampleColumns
from pipelines.sources.webdataset.samples import RAW, TarSample, TarSamples, read_raw
from shards.errors import UsageError

OURS = ("views", "view_ids")  # in the JSON of our own sets: how many images are distinct, and their numbers


@dataclass(frozen=True)
class SequenceOptions:
    """Which samples make a sequence, in which order, and which of their numbers are parameters.

    sequence  JSON field; key: a regular expression of the whole key, whose group "sequence" (or first) names it, and
              whose group "step", if there is one, orders it. Neither: each sample is a sequence of its own
    step      JSON field. None: the images' numbers, or the order in the tars, which then means nothing unless `ordered`
    columns   which fields and arrays are parameters; None: all that are numbers
    """

    sequence: str | None = None
    key: re.Pattern[str] | None = None
    step: str | None = None
    columns: tuple[str, ...] | None = None
    ordered: bool = False

    @classmethod
    def parse(
        cls,
        sequence: str | None = None,
        key: str | None = None,
        step: str | None = None,
        columns: str | None = None,
        ordered: bool = False,
    ) -> SequenceOptions:
        """Of the command line. UsageError: options that contradict each other, no regular expression."""
        if sequence is not None and key is not None:
            raise UsageError("--sequence and --sequence-key both say what a sequence is; give one of them")
        pattern = _pattern(key) if key is not None else None
        if pattern and "step" in pattern.groupindex and step is not None:
            raise UsageError("--step and the group 'step' of --sequence-key both order a sequence; give one of them")
        if step is not None and sequence is None and pattern is None:
            raise UsageError("--step orders the samples of a sequence; give --sequence or --sequence-key as well")
        names = tuple(name.strip() for name in columns.split(",")) if columns else None
        return cls(sequence, pattern, step, names, ordered or step is not None or _has_step(pattern))

    @property
    def asked(self) -> bool:
        """Whether anything here wants views."""
        return any((self.sequence, self.key, self.step, self.columns, self.ordered))

    def to_json(self) -> dict[str, Any]:
        given = {
            "sequence": self.sequence,
            "sequence_key": self.key.pattern if self.key else None,
            "step": self.step,
            "columns": ",".join(self.columns) if self.columns else None,
            "ordered": True if self.ordered and not (self.step or _has_step(self.key)) else None,
        }
        return {name: value for name, value in given.items() if value is not None}


def _pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"--sequence-key {text!r} is no regular expression ({error}); e.g. '(.+)_([0-9]+)'") from error
    if not pattern.groups:
        raise UsageError(f"--sequence-key {text!r} has no group; e.g. '(?P<sequence>.+)_(?P<step>[0-9]+)'")
    return pattern


def _has_step(pattern: re.Pattern[str] | None) -> bool:
    return pattern is not None and "step" in pattern.groupindex


@dataclass
class TarFrames:
    """What a walk over the tars finds, a row for each image, in the tars' order.

    of       rank of its sequence in `names`        steps    number of its step
    tar, offset, length  where it lies              member   its name in the tar
    key      of its sample                          params   of the walk's columns, row after row
    """

    names: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    labels: list[int | str | None] = field(default_factory=list)
    of: array = field(default_factory=lambda: array("i"))
    steps: array = field(default_factory=lambda: array("q"))
    tar: array = field(default_factory=lambda: array("i"))
    offset: array = field(default_factory=lambda: array("q"))
    length: array = field(default_factory=lambda: array("q"))
    params: array = field(default_factory=lambda: array("d"))
    members: list[pa.Array] = field(default_factory=list)
    keys: list[pa.Array] = field(default_factory=list)


@dataclass(frozen=True)
class RawPixels:
    """A .npy of uint8 [H, W, 3], read as a bitmap."""

    file: PlacedFile

    def read(self) -> bytes:
        """ValueError: it holds anything else."""
        return bitmap_of(read_raw(self.file.read()))


class TarPictures:
    """Images of `frames`, whose rows are taken in `order`."""

    def __init__(self, samples: TarSamples, frames: TarFrames, order: np.ndarray):
        self.readers = [FileReader(path) for path in samples.paths]
        self.tars = [tar.name for tar in samples.tars]
        self.tar = np.asarray(frames.tar, np.int32)[order]
        self.offset = np.asarray(frames.offset, np.int64)[order]
        self.length = np.asarray(frames.length, np.int64)[order]
        self.member = pa.chunked_array(frames.members, pa.large_string()).take(pa.array(order)).combine_chunks()

    def name(self, row: int) -> str:
        return f"{self.tars[self.tar[row]]}: {printable(str(self.member[row]))}"

    def contents(self, rows: np.ndarray) -> Sequence[Content]:
        return [self._content(row) for row in rows.tolist()]

    def sample(self, count: int) -> list[tuple[str, Content]]:
        ranked = heapq.nsmallest(count, ((name_rank(self._place(row)), row) for row in range(len(self.tar))))
        return [(self.name(row), self._content(row)) for _, row in ranked]

    def stamp(self, rows: np.ndarray) -> str:
        return stamp_of(file_stats(self.readers[tar].path for tar in np.unique(self.tar[rows])))

    def identity(self) -> dict[str, Any]:
        sizes = np.where(self.length >= 0, self.length, -1 - self.length).tolist()
        names = (self._place(row) for row in range(len(sizes)))
        files = zip(names, sizes, strict=True)
        return {"content_sha256": content_sha256(files, lambda row, _: self._file(row).read())}

    def _place(self, row: int) -> str:
        return f"{self.tars[self.tar[row]]}/{self.member[row]}"

    def _file(self, row: int) -> PlacedFile:
        reader = self.readers[self.tar[row]]
        return PlacedFile(reader, str(self.member[row]), int(self.offset[row]), int(self.length[row]))

    def _content(self, row: int) -> Content:
        file = self._file(row)
        return RawPixels(file) if file.name.lower().endswith(RAW) else file


class FrameWalk:
    """Reads all samples once; `frames` is what was found, `mistakes` what is wrong."""

    def __init__(self, samples: TarSamples, asked: SequenceOptions, labels: Labels):
        self.samples, self.asked, self.labels = samples, asked, labels
        self.mistakes = Mistakes()
        self.frames = TarFrames()
        self.rank: dict[str, int] = {}
        self.counts: list[int] = []  # frames of each sequence so far
        reserved = {asked.sequence, asked.step, labels.field, *OURS, "chunk"}
        self.columns = SampleColumns(samples, asked.columns or (), reserved)
        self.text: tuple[int, list[str], list[str]] = (-1, [], [])  # members and keys of the tar under way

    def run(self) -> None:
        for sample in self.samples.read(self.mistakes):
            try:
                self._add(sample)
            except ValueError as error:
                self.mistakes.add(f"{self.samples.where(sample.tar, sample.key)}: {error}")
        self._flush()

    def where(self, row: int) -> str:
        """Of a frame, for messages."""
        ends = np.cumsum([len(part) for part in self.frames.keys])
        part = int(np.searchsorted(ends, row, side="right"))
        key = self.frames.keys[part][row - int(ends[part]) + len(self.frames.keys[part])]
        return self.samples.where(self.frames.tar[row], str(key))

    def tell(self, rows: np.ndarray, words: Callable[[int], str], kind: str) -> None:
        """A mistake for each of these frames."""
        self.mistakes.add_each(rows.tolist(), lambda row: f"{self.where(row)}: {words(row)}", kind)

    def _add(self, sample: TarSample) -> None:
        fields = self.samples.fields(sample)
        views, numbers = sample.views, [view.number or 0 for view in sample.views]
        ids = fields.get("view_ids")
        ours = isinstance(ids, list) and sample.views[0].number is not None and fields.get("views") == len(ids)
        if isinstance(ids, list) and ours:
            views, numbers = views[: len(ids)], [_whole(number, "view_ids") for number in ids]
        name, steps = self._placed(sample, fields, numbers)
        rows = self.columns.rows(sample, fields, len(views), ours)
        label = self.labels.of(self.samples, sample)
        rank = self._rank(name, self.samples.tars[sample.tar].split, label)
        if steps is None:
            steps = [self.counts[rank] + i for i in range(len(views))]
        self.counts[rank] += len(views)
        if sample.tar != self.text[0]:
            self._flush()
            self.text = (sample.tar, [], [])
        frames = self.frames
        for view, step, row in zip(views, steps, rows, strict=True):
            frames.of.append(rank)
            frames.steps.append(step)
            frames.tar.append(sample.tar)
            frames.offset.append(view.member.offset)
            frames.length.append(view.member.length)
            frames.params.extend(row)
            self.text[1].append(view.member.name)
            self.text[2].append(sample.key)

    def _placed(self, sample: TarSample, fields: dict[str, Any], numbers: list[int]) -> tuple[str, list[int] | None]:
        """(sequence, steps of its images; None: as they come). ValueError: a field that is not there or fits not."""
        asked, alone = self.asked, sample.views[0].number is None
        if asked.sequence is None and asked.key is None:
            if alone:
                raise UsageError(
                    f"{self.samples.where(sample.tar, sample.key)} is one image; say which samples make a sequence of "
                    "views, with --sequence FIELD or --sequence-key REGEX"
                )
            return f"{self.samples.tars[sample.tar].name}/{sample.key}", numbers
        if asked.key is not None:
            match = asked.key.fullmatch(sample.key)
            if match is None:
                raise ValueError(f"its key does not match --sequence-key {asked.key.pattern!r}")
            groups = match.groupdict()
            name = groups.get("sequence") or match[1] or ""
            step = groups.get("step") if _has_step(asked.key) else fields.get(asked.step or "")
        else:
            name, step = fields.get(asked.sequence or ""), fields.get(asked.step or "")
        if isinstance(name, float) and name.is_integer():
            name = int(name)
        if isinstance(name, bool) or not isinstance(name, int | str) or name == "":
            raise ValueError(f"its sequence is {name!r:.40}; a name or a whole number is one")
        if not asked.step and not _has_step(asked.key):
            return str(name), None if alone else numbers
        steps = step if isinstance(step, list) else [step]
        if len(steps) != len(numbers):
            raise ValueError(f"{len(steps)} steps for {len(numbers)} images")
        return str(name), [_whole(value, "step") for value in steps]

    def _rank(self, name: str, split: str, label: int | str | None) -> int:
        """ValueError: the sequence lies in two splits, or has two labels."""
        rank = self.rank.setdefault(name, len(self.rank))
        if rank == len(self.counts):
            self.frames.names.append(name)
            self.frames.splits.append(split)
            self.frames.labels.append(label)
            self.counts.append(0)
        if self.frames.splits[rank] != split:
            splits = f"{self.frames.splits[rank]} and {split}"
            raise ValueError(f"its sequence {printable(name)} lies in {splits}; a sequence is of one split")
        if self.frames.labels[rank] != label:
            raise ValueError(f"its label is {label}, its sequence {printable(name)} has {self.frames.labels[rank]}")
        return rank

    def _flush(self) -> None:
        _, members, keys = self.text
        if members:
            self.frames.members.append(pa.array(members, pa.large_string()))
            self.frames.keys.append(pa.array(keys, pa.large_string()))


def _whole(value: Any, what: str) -> int:
    """ValueError: not a whole number from 0 up, as int64 holds."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        order = "; without --step, --ordered takes samples as they lie in the tars" if what == "step" else ""
        raise ValueError(f"{what} is {value!r:.40}; whole numbers from 0 are steps{order}")
    return value
