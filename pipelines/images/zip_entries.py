"""Files in a zip archive: listed once, then any one read by its place, without the archive's directory."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from shards.environment import pass_environment_on
from shards.errors import FormatError

HEADER = struct.Struct("<4s5H3L2H")  # a file's own header; its name and extra field follow, then its content
SIGNATURE = b"PK\x03\x04"
ENCRYPTED = 1
STORED, DEFLATED = 0, 8


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == SIGNATURE


def walk_zip(path: Path) -> Iterator[tuple[str, int, int]]:
    """(name, byte at which its header begins, bytes of its packed content) of each file. FormatError: cut, damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.header_offset, entry.compress_size
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        pass_environment_on(error)
        raise FormatError(f"{path} is a zip archive that is cut short or damaged ({error}); fetch it again") from error


def unpack(path: Path, offset: int, packed: int, largest: int) -> bytes:
    """Content of the file whose header begins at `offset`. ValueError: damaged, encrypted, too large."""
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        head = file.read(HEADER.size)
        if len(head) < HEADER.size or head[:4] != SIGNATURE:
            raise ValueError("cut short or damaged: the archive has no file at its place")
        _, _, flags, method, _, _, checksum, _, _, name_length, extra_length = HEADER.unpack(head)
        file.seek(name_length + extra_length, 1)
        data = file.read(packed)
    if flags & ENCRYPTED or method not in (STORED, DEFLATED):
        raise ValueError(f"packed in a way that is not read (method {method}, flags {flags}); zip it again plainly")
    if len(data) != packed:
        raise ValueError("cut short: the archive ends inside it")
    data = _inflated(data, largest) if method == DEFLATED else data
    if checksum and zlib.crc32(data) != checksum:  # 0: it was written after the content, and an image checks itself
        raise ValueError("damaged: its checksum differs")
    return data


def _inflated(data: bytes, largest: int) -> bytes:
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpacked = stream.decompress(data, largest + 1)
    except zlib.error as error:
        raise ValueError(f"damaged ({error})") from error
    if len(unpacked) > largest:
        raise ValueError(f"more than {largest} bytes")
    if not stream.eof:
        raise ValueError("cut short or damaged: its packed content does not end")
    return unpacked
