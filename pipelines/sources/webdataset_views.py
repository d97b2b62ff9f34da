"""webdataset tars → the table that TableSource builds a `views` set from: sequences, their frames, where those lie."""

from __future__ import annotations

import heapq
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.archives import Content, printable
from pipelines.sources.choose import RULE, validation_share
from pipelines.sources.content import content_sha256, file_stats, name_rank, stamp_of
from pipelines.sources.files import FileReader
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.table import PlacedFile, ViewTable
from pipelines.sources.tar_files import Spool
from pipelines.sources.tar_samples import TarSamples, read_raw
from pipelines.sources.tar_views import FrameWalk, SequenceOptions, TarFrames
from pipelines.sources.webdataset import RAW, Labels, TarOptions
from shards.errors import FormatError
from shards.layout import Layout
from shards.metadata import read_info
from shards.schema import DatasetInfo, ParamField, ViewSpec

OWN_PARAMS = "params"  # name of the member that holds them in our own sets


def wants_views(asked: TarOptions, how: SequenceOptions, spool: Spool) -> bool:
    """Whether options ask for sequences, or the first sample has several images."""
    if how.asked:
        return True
    first = asked.tars[:1]
    mistakes = Mistakes()
    for sample in TarSamples(first, spool.plain(first), asked.image).read(mistakes):
        return sample.views[0].number is not None
    mistakes.raise_any(str(asked.path))
    raise FormatError(f"{first[0].where} has no samples")


def tar_table(asked: TarOptions, how: SequenceOptions, spool: Spool) -> ViewTable:
    """Reads all samples once. FormatError: a tar that is cut or damaged; the first 20 mistakes of samples."""
    own = own_set(asked)
    if own is not None and isinstance(own.spec, ViewSpec):
        chunks = "sequence" if own.spec.chunked and not how.sequence and not how.key else how.sequence
        how = replace(how, columns=(OWN_PARAMS,), ordered=own.spec.ordered, sequence=chunks)
    samples = TarSamples(asked.tars, spool.plain(asked.tars), asked.image)
    labels = Labels(asked.label, asked.classes or (own.classes if own else None))
    walk = FrameWalk(samples, how, labels)
    frames = walk.run()
    order = np.lexsort((np.asarray(frames.steps), np.asarray(frames.of)))
    _refuse_twice(walk, frames, order)
    names = _label_names(labels, frames, walk.mistakes)
    walk.mistakes.raise_any(str(asked.path))
    if not len(order):
        raise FormatError(f"{asked.path} has no samples with images; the tars are empty, or hold other things")
    fields, actions = tuple(ParamField(name, "1") for name in frames.columns), None
    if own is not None and isinstance(own.spec, ViewSpec):
        fields, actions = _own_fields(own.spec, fields, asked), own.spec.actions
    samples.others.warn(asked.path)
    pictures = TarPictures(samples, frames, order)
    return ViewTable(
        sequences=_sequence_names(frames, how),
        of=np.asarray(frames.of, np.int32)[order],
        steps=_steps(frames, order, how.ordered),
        ordered=how.ordered,
        params=np.asarray(frames.params, np.float32).reshape(len(order), len(fields))[order],
        fields=fields,
        splits=_splits(asked, frames, names),
        labels=names,
        pictures=pictures,
        actions=actions,
        settled={**how.to_json(), **({} if asked.val_fraction is None else {"val_fraction_rule": RULE})},
        where=pictures.name,
    )


def own_set(asked: TarOptions) -> DatasetInfo | None:
    """What a finished set of ours says, if all tars are those of one."""
    folders = {None if tar.is_stream else Path(tar.url).parent for tar in asked.tars}
    folder = folders.pop()
    if folders or folder is None or not Layout(folder).info.is_file():
        return None
    return read_info(folder)


def _own_fields(spec: ViewSpec, found: tuple[ParamField, ...], asked: TarOptions) -> tuple[ParamField, ...]:
    if len(spec.params) != len(found):
        raise FormatError(
            f"{asked.path}: its dataset.json says {len(spec.params)} parameters, samples have {len(found)}"
        )
    return spec.params


def _refuse_twice(walk: FrameWalk, frames: TarFrames, order: np.ndarray) -> None:
    of, steps = np.asarray(frames.of)[order], np.asarray(frames.steps)[order]
    keys = pa.chunked_array(frames.keys, pa.large_string())
    for at in np.flatnonzero((np.diff(of) == 0) & (np.diff(steps) == 0)).tolist():
        where = [walk.samples.where(frames.tar[row], str(keys[row])) for row in order[at : at + 2].tolist()]
        name = printable(frames.names[of[at]])
        walk.mistakes.add(f"{where[1]}: its sequence {name} has step {steps[at]} already ({where[0]})")


def _steps(frames: TarFrames, order: np.ndarray, ordered: bool) -> np.ndarray:
    """int32 [R]. Steps in time are divided by what divides all their differences: every fifth frame leaves no gaps."""
    of, steps = np.asarray(frames.of)[order], np.asarray(frames.steps, np.int64)[order]
    between = np.diff(steps)[np.diff(of) == 0]
    divisor = int(np.gcd.reduce(between)) if ordered and len(between) else 1
    if divisor > 1:
        first = steps[np.searchsorted(of, of)]
        steps = first // divisor + (steps - first) // divisor
    return steps.astype(np.int32)


def _label_names(labels: Labels, frames: TarFrames, mistakes: Mistakes) -> list[str | None]:
    """Names of the sequences' labels; numbers with zeros in front, so that their order is that of the names."""
    classes = labels.classes(frames.labels, mistakes)
    digits = len(str(len(classes) - 1)) if all(name.isdigit() for name in classes) else 0
    return [
        None if label is None else (classes[label] if isinstance(label, int) else label).zfill(digits)
        for label in frames.labels
    ]


def _sequence_names(frames: TarFrames, how: SequenceOptions) -> list[str]:
    """Of samples that are sequences of their own the keys, where they all differ."""
    if how.sequence is not None or how.key is not None:
        return frames.names
    keys = [name.partition("/")[2] for name in frames.names]
    return keys if len(set(keys)) == len(keys) else frames.names


def _splits(asked: TarOptions, frames: TarFrames, labels: Sequence[str | None]) -> list[str]:
    if asked.val_fraction is None:
        return frames.splits
    chosen = validation_share(frames.names, [str(label) for label in labels], asked.val_fraction)
    return ["val" if validation else "train" for validation in chosen]


@dataclass(frozen=True)
class RawPixels:
    """A .npy of uint8 [H, W, 3], read as a bitmap."""

    file: PlacedFile

    def read(self) -> bytes:
        """ValueError: it holds anything else."""
        buffer = io.BytesIO()
        Image.fromarray(read_raw(self.file.read())).save(buffer, "BMP")
        return buffer.getvalue()


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
