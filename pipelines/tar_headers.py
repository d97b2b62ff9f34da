"""What the header blocks of a tar say: ustar, GNU and pax."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipelines.archive_member import FOLDER, HARD_LINK, LINK
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
    return zlib.adler32(blanked) & 0xFFFF == (number(header[148:156], path) + 1) % ADLER_MODULUS


def number(field: bytes, path: Path) -> int:
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


def name_of(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return text(name)


def target_of(header: bytes) -> str:
    return text(header[157:257].partition(b"\0")[0])


def text(data: bytes) -> str:
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
        yield key.decode("utf-8", "replace"), text(value)
        position += int(digits)
