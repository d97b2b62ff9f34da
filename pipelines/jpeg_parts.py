"""A JPEG's file in parts, and oddities of the file that say nothing of its pixels taken out of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = {0xC0, 0xC1}
JFIF, ADOBE, SCAN, END = 0xE0, 0xEE, 0xDA, 0xD9
RESTARTS = range(0xD0, 0xD8)
LEADING = 4  # bytes of a marker and its segment's length


@dataclass(frozen=True)
class Part:
    """`marker` and its segment (`head`, as stored), or entropy-coded data (`data`), which end at the next part."""

    marker: int | None
    head: bytes = b""
    data: bytes = b""


def frame_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels. Raises ValueError for what has no frame header."""
    for part in _parts(data):
        if part.marker in FRAMES and len(part.head) >= 10:
            return int.from_bytes(part.head[5:7], "big"), int.from_bytes(part.head[7:9], "big")
    raise ValueError("no frame header")


def tidied(data: bytes) -> list[Part]:
    """Parts up to the end mark, without bytes between segments, and without what libjpeg warns of but does not use.

    Scan parameters of a sequential JPEG (there is one choice), a JFIF version, an Adobe transform that nobody defined.
    Raises ValueError for a file that has no end mark.
    """
    parts = list(_parts(data))
    if not parts or parts[-1].marker != END:
        raise ValueError("cut short: it has no end mark")
    frame = next((part for part in parts if part.marker in FRAMES), Part(None))
    components = frame.head[9] if len(frame.head) > 9 else 0
    return [_plain(part, frame.marker, components) for part in parts]


def joined(parts: list[Part]) -> bytes:
    return b"\xff\xd8" + b"".join(part.head + part.data for part in parts)


def without_last(part: Part, count: int) -> Part:
    """Entropy-coded data without its last bytes."""
    return replace(part, data=part.data[:-count])


def _parts(data: bytes) -> Iterator[Part]:
    at, in_scan = 2, False
    while (found := NEXT_MARKER.search(data, at)) is not None:
        if in_scan:
            yield Part(None, data=data[at : found.start()])
        marker, begin = data[found.end() - 1], found.end()
        if marker in ALONE or marker == END:
            yield Part(marker, bytes((0xFF, marker)))
            at, in_scan = begin, in_scan and marker in RESTARTS
            if marker == END:
                return
            continue
        length = int.from_bytes(data[begin : begin + 2], "big")
        if length < 2 or begin + length > len(data):
            return
        yield Part(marker, bytes((0xFF, marker)) + data[begin : begin + length])
        at, in_scan = begin + length, marker == SCAN


def _plain(part: Part, frame: int | None, components: int) -> Part:
    head = bytearray(part.head)
    if part.marker == SCAN and frame in SEQUENTIAL and len(head) >= LEADING + 4:
        head[-3:] = b"\x00\x3f\x00"  # all 64 coefficients, at full precision
    elif part.marker == JFIF and head[4:9] == b"JFIF\0" and len(head) > 10:
        head[9:11] = b"\x01\x01"
    elif part.marker == ADOBE and head[4:9] == b"Adobe" and len(head) > 15 and head[15] > 2:
        head[15] = 1 if components == 3 else 2  # as libjpeg takes it
    return replace(part, head=bytes(head))
