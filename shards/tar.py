"""Reproducible ustar members, and a walker over a tar in memory.

A member is a 512-byte header, the data, and zeros up to the next multiple of 512; two blocks of zeros end the file.
Owner, mode and time are constants, so that equal content gives equal bytes (POSIX.1-1988, "ustar").
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.errors import DamageError

BLOCK = 512
END = bytes(2 * BLOCK)
MAX_MEMBER = 8**11 - 1  # what eleven octal digits hold: 8 GiB
MAX_NAME = 100

# mode, uid, gid | size, time, checksum (blanks while summing), type, link, magic, and nothing more
_OWNER = b"0000644\x000000000\x000000000\x00"
_REST = b"00000000000\x00        0" + bytes(100) + b"ustar\x0000" + bytes(247)
_CHECKSUM = slice(148, 156)


@dataclass(frozen=True)
class Member:
    """One member of a tar: `offset` and `length` of its data in bytes, from the start of the file."""

    name: str
    offset: int
    length: int


def padding(length: int) -> int:
    """Zeros that follow `length` bytes of data, up to the block's end."""
    return -length % BLOCK


def header(name: str, length: int) -> bytes:
    """The 512 bytes that precede `length` bytes of data. ValueError: a name or length that ustar cannot hold."""
    raw = name.encode("ascii")
    if not 0 < len(raw) < MAX_NAME or not 0 <= length <= MAX_MEMBER:
        raise ValueError(f"a tar member of {length} bytes cannot be called {name!r}")
    block = raw.ljust(MAX_NAME, b"\0") + _OWNER + b"%011o\0" % length + _REST
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(block) + block[_CHECKSUM.stop :]


def headers(names: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """header() of M members at once: names (bytes, "S") and lengths [M] → uint8 [M, 512]."""
    blocks = np.tile(np.frombuffer(header("x", 0), np.uint8), (len(names), 1))
    blocks[:, :MAX_NAME] = names.astype(f"S{MAX_NAME}").view(np.uint8).reshape(-1, MAX_NAME)
    blocks[:, 124:135] = _octal(lengths, 11)
    blocks[:, _CHECKSUM] = ord(" ")
    blocks[:, 148:154] = _octal(blocks.sum(1, dtype=np.int64), 6)
    blocks[:, 154] = 0
    return blocks


def _octal(values: np.ndarray, digits: int) -> np.ndarray:
    shifts = 3 * np.arange(digits - 1, -1, -1)
    return ord("0") + (values.astype(np.int64)[:, None] >> shifts & 7)


class StoredTar:
    """A tar on the disk, read piece by piece: a map of a file that shrinks ends the process (SIGBUS).

    A context manager. DamageError: it became shorter after it was opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("rb", buffering=0)
        self._size = os.fstat(self._file.fileno()).st_size

    def __enter__(self) -> StoredTar:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        data = os.pread(self._file.fileno(), max(0, stop - start), start)
        if len(data) < stop - start:
            raise DamageError(f"{self.path.name}: became shorter while it was read")
        return data

    def blocks(self, numbers: np.ndarray) -> np.ndarray:
        """uint8 [*numbers.shape, 512]"""
        data = [self[block * BLOCK : (block + 1) * BLOCK] for block in numbers.ravel().tolist()]
        return np.frombuffer(b"".join(data), np.uint8).reshape(*numbers.shape, BLOCK)


def walk_members(data: bytes | StoredTar) -> Iterator[Member]:
    """The members of a whole tar, in order.

    Unlike plain tar readers it never takes a cut for an end: DamageError names the offset of whatever is not a
    regular ustar member, runs past the end, or is missing.
    """
    at, size = 0, len(data)
    while True:
        block = data[at : at + BLOCK]
        if len(block) < BLOCK:
            raise DamageError(f"cut at byte {size}: no end marker")
        if not block.strip(b"\0"):
            break
        member = _parse(block, at)
        at = member.offset + member.length + padding(member.length)
        if at > size:
            raise DamageError(f"cut at byte {size}: {member.name} ends at {at}")
        yield member
    if data[at : at + 3 * BLOCK] != END:
        raise DamageError(f"malformed end marker at byte {at}")


def _parse(block: bytes, at: int) -> Member:
    try:
        if block[257:263] != b"ustar\0" or block[156:157] != b"0":
            raise ValueError("not a regular ustar member")
        if block[_CHECKSUM] != b"%06o\0 " % (sum(block) - sum(block[_CHECKSUM]) + 8 * 32):
            raise ValueError("header checksum differs")
        name = block[:MAX_NAME].rstrip(b"\0").decode("ascii")
        return Member(name, at + BLOCK, int(block[124:135], 8))
    except ValueError as error:
        raise DamageError(f"malformed header at byte {at}: {error}") from error


def begins_with(tar: StoredTar, offsets: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """bool [M]: does the data at `offsets` [M] of a tar of whole blocks begin with its row of `expected`?

    expected: uint8 [M, k], or [1, k] for all. Data that would run past the end of the tar does not.
    """
    span, last = -(-expected.shape[1] // BLOCK), len(tar) // BLOCK - 1
    where = offsets[:, None] // BLOCK + np.arange(span)
    found = tar.blocks(np.minimum(where, last)).reshape(len(offsets), -1)[:, : expected.shape[1]]
    return (found == expected).all(1) & (where[:, -1] <= last)
