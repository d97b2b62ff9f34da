"""Whether a video file is all there, by the sizes of its outermost parts: FFmpeg reads a cut file as a shorter one.

MP4 (ISO/IEC 14496-12, 4.2): boxes of a 32-bit size and four letters; size 1: a 64-bit size follows; 0: up to the end.
Matroska, WebM (RFC 8794, RFC 9559): elements of an id and a size, whose bits are all set where it is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pipelines.archives import readable

MOST_BOXES = 1 << 20
FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
EBML, SEGMENT, CLUSTER = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"


def whole_file(path: Path) -> None:
    """ValueError: a part reaches beyond the end of the file, or it is of another kind."""
    with readable(), path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        (_matroska if file.read(4) == EBML else _boxes)(file, size)


def _boxes(file: BinaryIO, size: int) -> None:
    at, names = 0, set()
    for _ in range(MOST_BOXES):
        if at == size:
            break
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        elif length == 0:
            length = size - at
        if not names and name not in FIRST:
            raise ValueError("not an MP4 or Matroska file, or damaged")
        if len(head) < 8 or length < 8:
            raise ValueError(_cut(size))
        names.add(name)
        at += length
        if at > size:
            raise ValueError(_cut(size))
    if b"moov" not in names:
        raise ValueError(_cut(size))


def _matroska(file: BinaryIO, size: int) -> None:
    """Walks over every element, also into the segment and its clusters, whose sizes a live stream leaves open."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        id_length = _length_of(head[0], 4)
        number_length = _length_of(head[id_length], 8) if len(head) > id_length else 0
        if len(head) < id_length + number_length:
            raise ValueError(_cut(size))
        value = int.from_bytes(head[id_length : id_length + number_length], "big")
        most = (1 << 7 * number_length) - 1
        unknown, value = value & most == most, value & most
        at += id_length + number_length
        if head[:id_length] not in (SEGMENT, CLUSTER):
            at += value
        if at > size or (head[:id_length] == SEGMENT and not unknown and at + value > size):
            raise ValueError(_cut(size))


def _length_of(first: int, most: int) -> int:
    """Bytes of a number whose first byte this is. ValueError: it begins none."""
    length = 9 - first.bit_length()
    if length > most:
        raise ValueError("not a Matroska file, or damaged")
    return length


def _cut(size: int) -> str:
    return f"it is cut: the parts that it lists reach beyond its {size} bytes; copy it again"
