"""Sparse members of a tar: files stored without their holes, in GNU's own format and in its three pax formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pipelines.tar_headers import BLOCK, SPARSE, octal

Pieces = list[tuple[int, int]]  # (byte at which it belongs, bytes), ascending

ENTRY = 24  # of GNU's own format: two numbers of twelve octal digits
LARGEST_MAP = 16 << 20  # bytes


@dataclass(frozen=True)
class Sparse:
    """`size` with the holes. `pieces` None: the stored content begins with the list of them (pax 1.0)."""

    size: int
    pieces: Pieces | None

    def expand(self, stored: bytes) -> bytes:
        """The file's bytes; holes are zeros. Raises ValueError if the pieces do not fit."""
        pieces, at = (self.pieces, 0) if self.pieces is not None else _leading_map(stored)
        _check(pieces, self.size, len(stored) - at)
        whole = bytearray(self.size)
        for offset, length in pieces:
            whole[offset : offset + length] = stored[at : at + length]
            at += length
        return bytes(whole)


def sparse_of(header: bytes, extended: Mapping[str, str], more: Callable[[], bytes]) -> Sparse | None:
    """What a header and its pax records say; None for a file stored whole. `more()` reads the next block.

    Raises ValueError for what is malformed or of another program.
    """
    if header[156:157] == SPARSE:
        return _gnu(header, more)
    if extended.get("GNU.sparse.major"):
        if (extended["GNU.sparse.major"], extended.get("GNU.sparse.minor")) != ("1", "0"):
            raise ValueError(f"a sparse file of format {extended['GNU.sparse.major']}, known are 0.0, 0.1 and 1.0")
        return Sparse(int(extended.get("GNU.sparse.realsize", "0")), None)
    if "GNU.sparse.map" in extended:
        return Sparse(int(extended.get("GNU.sparse.size", "0")), _pairs(extended["GNU.sparse.map"].split(",")))
    return None


def _gnu(header: bytes, more: Callable[[], bytes]) -> Sparse:
    """Four pieces in the header, then blocks of 21."""
    if header[257:263] != b"ustar ":
        raise ValueError("a sparse file that GNU tar did not write")
    numbers, goes_on = _entries(header[386:482]), header[482]
    while goes_on:
        block = more()
        numbers += _entries(block[: 21 * ENTRY])
        goes_on = block[21 * ENTRY]
        if len(numbers) * 12 > LARGEST_MAP:
            raise ValueError("a sparse file of too many pieces")
    return Sparse(octal(header[483:495]), _pairs(numbers))


def _entries(data: bytes) -> list[int]:
    entries = [data[at : at + ENTRY] for at in range(0, len(data), ENTRY)]
    return [octal(half) for entry in entries if entry[0] for half in (entry[:12], entry[12:])]


def _leading_map(stored: bytes) -> tuple[Pieces, int]:
    """Decimal numbers, one a line: how many pieces, then offset and bytes of each; filled up to whole blocks."""
    count, _, _ = stored[:20].partition(b"\n")
    wanted = 1 + 2 * min(int(count), LARGEST_MAP)
    lines = stored[:LARGEST_MAP].split(b"\n", wanted)[:wanted]
    if len(lines) != wanted:
        raise ValueError("its list of pieces is cut short")
    used = sum(len(line) + 1 for line in lines)
    return _pairs(lines[1:]), used + -used % BLOCK


def _pairs(numbers: list[int] | list[str] | list[bytes]) -> Pieces:
    values = [int(value) for value in numbers]
    if len(values) % 2:
        raise ValueError("its list of pieces is cut short")
    return list(zip(values[::2], values[1::2], strict=True))


def _check(pieces: Pieces, size: int, stored: int) -> None:
    ends = [(0, 0), *((offset, offset + length) for offset, length in pieces)]
    ordered = all(before[1] <= after[0] <= after[1] <= size for before, after in pairwise(ends))
    if not ordered or sum(length for _, length in pieces) != stored:
        raise ValueError("its pieces do not fit into each other")
