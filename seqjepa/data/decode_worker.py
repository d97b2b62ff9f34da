"""Decodes stored images into memory. Imported by the loader, and run as a script by the ring's worker processes.

A worker needs numpy and simplejpeg only: no torch, no package of ours, no re-import of the trainer's __main__. It
finds a Setup in shared memory, reads jobs from stdin (shared by all workers), decodes into shared memory, and answers
on stdout. The end of stdin ends it, so that nothing is left behind when the trainer is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import simplejpeg

# One member to read: where its bytes are.
ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("shard", "<i4")])
JOB = struct.Struct("<ii")  # slot, rows of its table
REPLY = struct.Struct("<iii500s")  # slot, row that failed or -1, errno, why in UTF-8; small enough for one atomic write
_PAGE = 4096
_MADV_POPULATE_WRITE = 23  # Linux 5.14; Python's mmap has no name for it
_MAX_OPEN = 512


class RowError(Exception):
    """The bytes of one row of a table cannot be turned into what they should be. number: the system's errno, or 0."""

    def __init__(self, row: int, reason: str, number: int = 0) -> None:
        super().__init__(reason)
        self.row = row
        self.number = number


@dataclass(frozen=True)
class Setup:
    """What a worker has to know. A slot is `rows` images uint8 [height, width, 3], then for each of `extras` that many
    bytes a row (the values of an .npy, as they are stored), then the table of ROWs to read: for each row its image,
    then its extras. open_files: shards that stay open; 0 where their files come and go. info: set_sha256.
    """

    shard_paths: list[str]
    encoding: str
    height: int
    width: int
    rows: int
    slots: int = 0
    extras: Sequence[int] = ()
    open_files: int = _MAX_OPEN
    info: str = ""

    @classmethod
    def of(cls, index: Any, rows: int, extras: Sequence[int] = ()) -> Setup:
        """For the images of a SplitIndex or ImageIndex, the number of slots to be replaced. DamageError: the set was
        made anew since the index was read."""
        paths = [str(path) for path in index.shard_paths]
        info = set_sha256(paths)
        index.require_same()
        return cls(paths, index.encoding, index.height, index.width, rows, extras=extras, info=info)

    @property
    def members(self) -> int:
        """ROWs of the table for each row of a slot."""
        return 1 + len(self.extras)

    @property
    def starts(self) -> list[int]:
        """Where in a slot the images, each of the extras and the table start, and where the slot ends."""
        sizes = [self.height * self.width * 3, *self.extras, self.members * ROW.itemsize]
        return list(accumulate((-(-self.rows * size // _PAGE) * _PAGE for size in sizes), initial=0))

    @property
    def slot_bytes(self) -> int:
        return self.starts[-1]

    def regions(self, memory: mmap.mmap, slot: int) -> list[np.ndarray]:
        """In shared memory: images uint8 [rows, height, width, 3], then each of the extras uint8 [rows, bytes]."""
        shapes = [(self.height, self.width, 3), *((size,) for size in self.extras)]
        starts = (slot * self.slot_bytes + start for start in self.starts)
        return [
            np.ndarray((self.rows, *shape), np.uint8, memory, start)
            for shape, start in zip(shapes, starts, strict=False)
        ]

    def table(self, memory: mmap.mmap, slot: int) -> np.ndarray:
        """ROW [rows · members] in shared memory."""
        start = slot * self.slot_bytes + self.starts[self.members]
        return np.ndarray((self.rows * self.members,), ROW, memory, start)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


def set_of(paths: Sequence[str]) -> str:
    """The dataset.json of the set that shards are of: a build removes it before any of them, and writes it last."""
    return os.path.join(os.path.dirname(paths[0]), "_meta", "dataset.json")


def set_sha256(paths: Sequence[str]) -> str:
    """Of set_of; "" where there is none."""
    with contextlib.suppress(OSError), open(set_of(paths), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
    return ""


class ShardFiles:
    """Reads shard files, opened when first needed; at most `limit` stay open. limit 0: none does, and of a file that is
    removed nothing stays on the disk. Nothing is mapped: a map of a file that shrinks ends the process (SIGBUS).

    info: set_sha256 of when the index was read. Of a set that was made anew since, no shard is opened: in raw sets the
    same places hold other pixels, and labels would be those of the set before."""

    def __init__(self, paths: list[str], limit: int = _MAX_OPEN, info: str = "") -> None:
        self._paths = paths
        self._limit = limit
        self._info = info
        self._checked: tuple[int, ...] = ()
        self._open: OrderedDict[int, int] = OrderedDict()  # file descriptors by shard

    def __len__(self) -> int:
        return len(self._open)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # while Python ends, `os` may be gone
        for fd in self._open.values():
            close(fd)

    def read(self, shard: int, offset: int, length: int) -> bytes:
        """Raises OSError, and ValueError where the shard has no such bytes."""
        fd = self._open.get(shard)
        if fd is None:
            fd = self._open[shard] = os.open(self._paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            self._check_set()
        elif self._limit < len(self._paths):
            self._open.move_to_end(shard)
        data = os.pread(fd, length, offset)
        end = offset + length if len(data) == length else os.fstat(fd).st_size
        if len(self._open) > self._limit:
            os.close(self._open.popitem(last=False)[1])
        if len(data) != length:
            raise ValueError(f"the shard ends at byte {end}, the index wants {offset + length}")
        return data

    def _check_set(self) -> None:
        """After a shard is opened, which stays what it is. ValueError: the set is another; the shard is closed."""
        with contextlib.suppress(OSError):
            found = os.stat(set_of(self._paths)) if self._info and self._limit else None
            stamp = (found.st_ino, found.st_mtime_ns) if found else ()
            if stamp == self._checked or set_sha256(self._paths) == self._info:
                self._checked = stamp
                return
        os.close(self._open.popitem()[1])
        raise ValueError("the set was made anew while it was read: run the command again")


def fill(table: np.ndarray, regions: list[np.ndarray], files: ShardFiles, encoding: str) -> None:
    """Fill the first n rows of all regions of a slot (images, then extras) from the ROWs of `table` [n · members].

    Raises RowError.
    """
    members = len(regions)
    for member, region in enumerate(regions):
        rows = table[member::members]
        try:
            decode_rows(rows, region[: len(rows)], files, encoding if member == 0 else "raw")
        except RowError as error:
            raise RowError(error.row * members + member, str(error), error.number) from error


def decode_rows(table: np.ndarray, views: np.ndarray, files: ShardFiles, encoding: str) -> None:
    """Fill views uint8 [n, H, W, 3] from the n stored members that `table` (ROW [n]) points at. Raises RowError.

    encoding "raw": of an .npy of any type and shape the values' bytes, so views may as well be uint8 [n, bytes].
    """
    decode = _decode_jpeg if encoding == "jpeg" else _copy_npy
    row = 0
    try:
        for data, view in zip(_members(table, files), views, strict=True):
            decode(data, view)
            row += 1
    except (ValueError, OSError) as error:
        raise RowError(row, str(error), getattr(error, "errno", None) or 0) from error


def _members(table: np.ndarray, files: ShardFiles) -> Iterator[bytes]:
    for offset, length, shard in table.tolist():
        yield files.read(shard, offset, length)


def _decode_jpeg(data: bytes, view: np.ndarray) -> None:
    image = simplejpeg.decode_jpeg(data, buffer=view)
    if image.shape != view.shape:
        raise ValueError(
            f"the image is {image.shape[0]} × {image.shape[1]}, the set's are {view.shape[0]} × {view.shape[1]}"
        )


def _copy_npy(data: bytes, view: np.ndarray) -> None:
    header = len(data) - view.nbytes
    if header < 10 or data[:6] != b"\x93NUMPY":
        raise ValueError(f"not an .npy with {view.nbytes} bytes of values")
    view.reshape(-1)[:] = np.frombuffer(data, np.uint8, view.nbytes, header)


def read_exactly(fd: int, size: int) -> bytes:
    """size bytes, or fewer where the other end has closed."""
    parts = bytearray()
    while len(parts) < size and (part := os.read(fd, size - len(parts))):
        parts += part
    return bytes(parts)


def _serve(memory: mmap.mmap, setup: Setup, answers: int) -> None:
    files = ShardFiles(setup.shard_paths, setup.open_files, setup.info)
    while len(job := read_exactly(0, JOB.size)) == JOB.size:
        slot, rows = JOB.unpack(job)
        failed, number, reason = -1, 0, ""
        try:
            fill(setup.table(memory, slot)[:rows], setup.regions(memory, slot), files, setup.encoding)
        except RowError as error:
            failed, number, reason = error.row, error.number, str(error)
        os.write(answers, REPLY.pack(slot, failed, number, reason.encode("utf-8", "backslashreplace")[:500]))


def main(memory_fd: int, start: int, size: int) -> None:
    """memory_fd: shared memory, which holds the slots and then, at `start`, `size` bytes of Setup."""
    answers = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    memory = mmap.mmap(memory_fd, start + size)
    setup = Setup(**json.loads(memory[start:]))
    # Map the whole ring at once, instead of by a page fault for each 4 KiB of each slot that this process first meets:
    # faults take a quarter of the decoding time until every worker has met every slot.
    with contextlib.suppress(OSError, ValueError):  # systems that cannot: go on
        memory.madvise(_MADV_POPULATE_WRITE)
    try:
        _serve(memory, setup, answers)
    except BrokenPipeError:
        sys.exit(0)  # nobody is waiting any more


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
