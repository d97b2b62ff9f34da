"""One shard on its way to disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from shards.errors import FormatError, UsageError
from shards.files import AtomicFile
from shards.index import IndexRow
from shards.layout import Layout
from shards.parts import Part, write_part
from shards.sample import Sample, members
from shards.schema import ShardEntry, Spec
from shards.stats import PixelStats
from shards.tar import BLOCK, END, header, padding


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
        on_commit: Callable[[Part], None],
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
        part = Part(entry, self._stats)
        try:
            with self._disk_full_named():
                self._file.seal()
                write_part(self._layout, part, self._rows, self._spec)
                self._file.publish()
        except BaseException:
            self.abort()
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
