"""What the header blocks of a tar say: ustar, GNU and pax.

Sparse files, stored without their holes, come in GNU's own format and in three pax formats: 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipelines.archives import FOLDER, HARD_LINK, LINK
from shards.errors import FormatError

BLOCK = 512
ADLER_MODULUS = 65521
LABEL = "label"
PAX, PAX_GLOBAL, LONG_NAME, LONG_TARGET = b"xX", b"g", b"L", b"K"
DESCRIPTIONS = PAX + PAX_GLOBAL + LONG_NAME + LONG_TARGET  # of the member after them
SPARSE, VOLUME = b"S", b"M"
KINDS = {
    b"1": HARD_LINK,
    b"2": LINK,
    b"3": "character device",
    b"4": "block device",
    b"5": FOLDER,
    b"6": "fifo",
    b"D": FOLDER,
    b"V": LABEL,
}  # all others are regular files, also those that are not known (POSIX)
BODILESS = b"123456"  # whatever their size field says
KEPT = ("path", "linkpath", "size", "GNU.sparse.")
PIECES = ("GNU.sparse.offset", "GNU.sparse.numbytes")  # one of each for every piece, in turn (pax 0.0)
LARGEST_NUMBER = 1 << 60
NUMBERS = ("size", "GNU.sparse.size", "GNU.sparse.realsize")


def checksum_holds(header: bytes, path: Path) -> bool:
    """The sum of the bytes, the checksum's own field read as blanks; Adler-32's low half is that sum plus one."""
    blanked = header[:148] + b" " * 8 + header[156:]
    return zlib.adler32(blanked) & 0xFFFF == (header_number(header[148:156], path) + 1) % ADLER_MODULUS


def header_number(field: bytes, path: Path) -> int:
    """Octal text, or GNU's base-256 for members beyond 8 GiB."""
    try:
        value = octal(field)
    except ValueError as error:
        raise FormatError(f"{path} is not a tar archive (plain or gzipped), or is damaged") from error
    if not 0 <= value <= LARGEST_NUMBER:
        raise FormatError(f"{path} is damaged: a member of {value} bytes")
    return value


def octal(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") & ~(1 << (8 * len(field) - 1))
    return int(field.strip(b"\0 ") or b"0", 8)


def member_name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return decode_text(name)


def link_target(header: bytes) -> str:
    return decode_text(header[157:257].partition(b"\0")[0])


def decode_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def pax_values(data: bytes, path: Path) -> dict[str, str]:
    """Those records that matter here. The pieces of a sparse file come as "offset,bytes,offset,bytes …"."""
    values: dict[str, str] = {}
    pieces: list[str] = []
    for key, value in _pax_records(data, path):
        if key in PIECES:
            pieces.append(value)
        elif key.startswith(KEPT) and value:
            values[key] = value
    if pieces:
        values["GNU.sparse.map"] = ",".join(pieces)
    if not all(re.fullmatch(r"[0-9]{1,18}", values.get(key, "0")) for key in NUMBERS) or "\0" in values.get("path", ""):
        raise FormatError(f"{path} is damaged: a pax header is malformed")
    return values


def _pax_records(data: bytes, path: Path) -> Iterator[tuple[str, str]]:
    """`LENGTH KEY=VALUE\\n`, where LENGTH counts the whole record."""
    position = 0
    while position < len(data):
        digits, _, _ = data[position : position + 20].partition(b" ")
        if not digits.isdigit() or int(digits) <= len(digits):
            raise FormatError(f"{path} is damaged: a pax header is malformed")
        record = data[position + len(digits) + 1 : position + int(digits) - 1]
        key, _, value = record.partition(b"=")
        yield key.decode("utf-8", "replace"), decode_text(value)
        position += int(digits)


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
