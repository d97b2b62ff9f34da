"""Pickles as Python 2 and its NumPy wrote CIFAR's: protocol 2, text as byte strings, an array's bytes in one piece.

Only what those files hold is written: tables of texts, numbers, lists of them, and one array of bytes, which may come
in pieces. Python 3's own pickler would spell bytes in another way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BEGIN, END = b"\x80\x02", b"."
MARK, TUPLE, CALL, SET_STATE = b"(", b"t", b"R", b"b"
FALSE, NONE = b"\x89", b"N"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n("


@dataclass(frozen=True)
class ByteRows:
    """uint8 [count, width], row by row: `rows` yields bytes of one or more rows."""

    count: int
    width: int
    rows: Iterable[bytes]


Value = str | int | list[str] | list[int] | ByteRows


def python2_pickle(table: dict[str, Value]) -> Iterator[bytes]:
    """The file, in pieces. ValueError: rows that are not `count` times `width` bytes."""
    yield BEGIN + b"}" + MARK
    for key, value in table.items():
        yield _scalar(key)
        if isinstance(value, ByteRows):
            yield from _array(value)
        elif isinstance(value, list):
            yield b"]" + MARK + b"".join(map(_scalar, value)) + b"e"
        else:
            yield _scalar(value)
    yield b"u" + END


def _scalar(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    data = value.encode()
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _array(value: ByteRows) -> Iterator[bytes]:
    empty = MARK + _scalar(0) + TUPLE
    yield ARRAY + empty + _scalar("b") + TUPLE + CALL
    dtype = DTYPE + _scalar("u1") + _scalar(0) + _scalar(1) + TUPLE + CALL
    order = MARK + _scalar(3) + _scalar("|") + 3 * NONE + _scalar(-1) + _scalar(-1) + _scalar(0) + TUPLE
    shape = MARK + _scalar(value.count) + _scalar(value.width) + TUPLE
    length = value.count * value.width
    yield MARK + _scalar(1) + shape + dtype + order + SET_STATE + FALSE + b"T" + struct.pack("<i", length)
    written = 0
    for rows in value.rows:
        written += len(rows)
        yield rows
    if written != length:
        raise ValueError(f"{written} bytes of rows, {length} were announced")
    yield TUPLE + SET_STATE
