"""ShardWriter writes one shard; a Part remembers a finished one, in one small Parquet file in `_meta/parts/`.

A part is published before its tar, so every tar under its final name has one. A shard is finished if both exist and
the tar's sha256 is the part's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from shards.building.workers import overtaken
from shards.errors import FormatError, UsageError
from shards.index import IndexRow, rows_to_table, table_from_bytes, table_to_bytes
from shards.json_fields import json_object, take
from shards.layout import SHARD_NAME, Layout
from shards.machine.files import AtomicFile, sha256_of_file, write_atomic
from shards.metadata import entry_from_json
from shards.sample import Sample, members
from shards.schema import ShardEntry, Spec
from shards.stats import PixelStats
from shards.tar import BLOCK, END, header, padding

if TYPE_CHECKING:
    import pyarrow as pa


class ShardWriter:
    """Writes one shard. A context manager: commits on a clean exit, leaves nothing behind after an exception.

    Made by SetBuilder.open_shard; `on_commit` hears of the finished part, `disk_full_named` guards every write, `build`
    says whose it is.
    """

    def __init__(
        self,
        layout: Layout,
        name: str,
        spec: Spec,
        classes: int,
        on_commit: Callable[[ShardPart], None],
        disk_full_named: Callable[[], AbstractContextManager[None]],
        build: str,
    ) -> None:
        self.name, self._build = name, build
        self._layout, self._spec, self._classes = layout, spec, classes
        self._on_commit, self._disk_full_named = on_commit, disk_full_named
        self._suffixes = spec.suffixes()
        self._rows: list[IndexRow] = []
        self._stats = PixelStats()
        self._digest = hashlib.sha256()
        self._size = 0
        with disk_full_named():
            self._file = AtomicFile(layout.shard(name), layout.tmp)

    def add(self, sample: Sample, stats: PixelStats | None = None) -> None:
        """Appends a sample, of the type that belongs to the spec. FormatError: not a valid one.

        stats: the sums over its pixels, of distinct views only; a map has none.
        """
        contents = members(sample, self._spec)
        self._check_label_and_meta(sample)
        offsets, chunks = [], []
        at = self._size
        for suffix, data in zip(self._suffixes, contents, strict=True):
            offsets.append(at + BLOCK)
            chunks += [header(sample.key + suffix, len(data)), data, bytes(padding(len(data)))]
            at += BLOCK + len(data) + padding(len(data))
        self._write(b"".join(chunks))
        self._rows.append(IndexRow.of(sample, self._spec, offsets, [len(data) for data in contents]))
        self._stats += stats or PixelStats()

    def close(self) -> None:
        """Commits: the part first, then the tar under its final name. UsageError: nothing was added."""
        if not self._rows:
            self.abort()
            raise UsageError(f"shard {self.name} has no samples")
        self._write(END)
        entry = ShardEntry(self.name, len(self._rows), self._size, self._digest.hexdigest(), self._build)
        part = ShardPart(entry, self._stats)
        try:
            with self._disk_full_named():
                self._file.seal()
                write_part(self._layout, part, self._rows, self._spec)
                self._file.publish()
        except BaseException as error:
            self.abort()
            if isinstance(error, FileNotFoundError) and not self._layout.tmp.exists():
                raise overtaken(self._layout) from error
            raise
        self._on_commit(part)

    def abort(self) -> None:
        """Forgets the shard. Idempotent."""
        self._file.discard()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _write(self, data: bytes) -> None:
        try:
            with self._disk_full_named():
                self._file.write(data)
        except BaseException:
            self.abort()
            raise
        self._digest.update(data)
        self._size += len(data)

    def _check_label_and_meta(self, sample: Sample) -> None:
        if not -1 <= sample.label < self._classes:
            raise FormatError(f"sample {sample.key!r}: label {sample.label}, there are {self._classes} classes")
        first = self._rows[0].meta if self._rows else sample.meta
        if [(k, type(v)) for k, v in first.items()] != [(k, type(v)) for k, v in sample.meta.items()]:
            raise FormatError(f"sample {sample.key!r}: meta {sample.meta} is unlike {first} of the sample before")


RECORD = b"part"


@dataclass(frozen=True)
class ShardPart:
    """One finished shard: its entry for dataset.json and the sums over its pixels."""

    entry: ShardEntry
    stats: PixelStats


def write_part(layout: Layout, part: ShardPart, rows: list[IndexRow], spec: Spec) -> None:
    record = {**asdict(part.entry), "stats": part.stats.to_json()}
    table = rows_to_table(rows, spec).replace_schema_metadata({RECORD: json.dumps(record).encode()})
    write_atomic(layout.part(part.entry.name), table_to_bytes(table), layout.tmp)


def read_rows(layout: Layout, part: ShardPart, spec: Spec) -> pa.Table:
    """The index rows of a part, without its record."""
    path = layout.part(part.entry.name)
    table = table_from_bytes(path.read_bytes(), spec, part.entry.samples, str(path), part=True)
    return table.replace_schema_metadata(None)


def new_parts(layout: Layout, build: str, known: Collection[str]) -> Iterator[ShardPart]:
    """Of the shards of `build` that are not `known`: those that have a part, and a tar of the size that it says."""
    for path in sorted(layout.parts.glob("*.parquet")):
        if path.stem not in known and (part := new_part(layout, build, path.stem)):
            yield part


def new_part(layout: Layout, build: str, name: str) -> ShardPart | None:
    """What one shard of `build` left; None: it is not finished."""
    with contextlib.suppress(FormatError, OSError):
        if SHARD_NAME.fullmatch(name):
            size, part = layout.shard(name).stat().st_size, _read_part(layout, name)
            return part if part.entry.build in ("", build) and part.entry.bytes == size else None
    return None


def damaged_parts(layout: Layout, parts: Sequence[ShardPart]) -> list[ShardPart]:
    """Those whose tar has not the bytes that they say. Hashes each once."""
    size = sum(part.entry.bytes for part in parts)
    bar = tqdm(total=size, unit="B", unit_scale=True, desc="check finished shards", disable=None if parts else True)
    with bar:
        return [part for part in parts if not _is_whole(layout, part.entry, bar.update)]


def _read_part(layout: Layout, name: str) -> ShardPart:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.part(name)
    try:
        record = json_object((pq.read_schema(path).metadata or {}).get(RECORD, b""), str(path))
    except pa.ArrowException as error:
        raise FormatError(f"{path} is not a part: {error}") from error
    return ShardPart(entry_from_json(record, name), PixelStats.from_json(take(record, "stats", dict)))


def _is_whole(layout: Layout, entry: ShardEntry, on_bytes: Callable[[int], object]) -> bool:
    with contextlib.suppress(OSError):
        return sha256_of_file(layout.shard(entry.name), on_bytes) == entry.sha256
    return False
