"""The little of JPEG's structure that the format insists on: baseline, three components, whole."""

from __future__ import annotations

from shards.errors import FormatError

_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_OTHER_FRAMES = {0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a baseline RGB JPEG, from its headers alone.

    FormatError: not a JPEG, cut, progressive (it decodes three times slower), or not of three components.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise FormatError("not a whole JPEG (it does not start with FFD8 and end with FFD9)")
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xC0:
            return _frame_size(data[at : at + 10])
        if marker in _OTHER_FRAMES:
            raise FormatError("not a baseline JPEG")
        at += 2 if marker in _STANDALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise FormatError("a JPEG without a frame header")


def _frame_size(frame: bytes) -> tuple[int, int]:
    if frame[4] != 8 or frame[9] != 3:
        raise FormatError(f"a JPEG of {frame[9]} components of {frame[4]} bits, allowed are 3 of 8")
    return int.from_bytes(frame[5:7], "big"), int.from_bytes(frame[7:9], "big")
