"""JPEG → RGB pixels, the very ones that PIL gives. What decoders read whole is not corrupt; what lost pixels is.

libjpeg reads damaged files too, and warns. Some of its warnings are about pixels ("premature end of data segment"),
others about the file alone: scan parameters that a sequential JPEG has no use for, bytes between its segments or left
over before the next mark, a JFIF version. It tells the first one only. So a file with a harmless oddity is decoded once
more without it, until nothing is left to warn of, or pixels are found missing.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from contextvars import ContextVar

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.jpeg_parts import RESTARTS, Part, frame_size, joined, tidied, without_last

Pixels = np.ndarray  # uint8 [H, W, 3], RGB in the order the source file has

LARGEST_SIDE = 8192
PLAIN = ("YCbCr", "Gray", "RGB")  # what simplejpeg converts as PIL does; CMYK it does not
LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
INCONSISTENT = "Inconsistent progression sequence"
UNKNOWN_SAMPLING = "Could not determine subsampling"
FEW_BYTES = 16  # left over in front of a restart mark, as webcams leave one or two
MOST_TRIES = 200

_doubts: ContextVar[list[str] | None] = ContextVar("doubts", default=None)


@contextlib.contextmanager
def doubts() -> Iterator[list[str]]:
    """Gathers, while inside, what decode_jpeg has to say of pictures that it reads and that may yet be damaged."""
    found: list[str] = []
    token = _doubts.set(found)
    try:
        yield found
    finally:
        _doubts.reset(token)


def check_size(height: int, width: int) -> None:
    """Raises ValueError for more than 8192 a side."""
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise ValueError(f"{width}×{height} pixels; at most {LARGEST_SIDE} a side")


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width) in pixels from the header alone. Raises ValueError for what is not a JPEG, or too large."""
    try:
        height, width = (int(side) for side in simplejpeg.decode_jpeg_header(data)[:2])
    except ValueError:
        if data[:2] != b"\xff\xd8":
            raise
        height, width = frame_size(data)
    check_size(height, width)
    return height, width


def decode_jpeg(data: bytes) -> Pixels:
    """RGB uint8 [H, W, 3]; grey and CMYK are converted as PIL does. Raises ValueError if damaged or cut short.

    Pixels are identical to PIL's; unlike PIL it also refuses damage that libjpeg only warns about.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return _decode_odd(data)
    check_size(int(height), int(width))
    if colours not in PLAIN:
        return _decode_odd(data)
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:
        return _decode_odd(data)


def _decode_odd(data: bytes) -> Pixels:
    """By PIL itself, once it is clear that no pixels are missing."""
    try:
        check_size(*frame_size(data))
        doubt = _refuse_loss(tidied(data))
        if doubt and (found := _doubts.get()) is not None:
            found.append(f"{doubt}: it may be damaged, and is read as PIL reads it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return np.array(image.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise ValueError("corrupt JPEG (of a kind that is not read)") from error
    except (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"corrupt JPEG ({error})") from error


def _refuse_loss(parts: list[Part]) -> str:
    """Takes off the bytes that are left over behind entropy-coded data, one place after the other.

    Raises ValueError for whatever else libjpeg has to warn of then. Returns what is doubtful, if anything.
    """
    begin = tries = spare = 0
    while (why := _warning(parts)) is not None:
        if why.startswith(INCONSISTENT):
            return f"its scans do not belong together ({why})"
        if UNKNOWN_SAMPLING in why:
            break
        left_over = LEFT_OVER.fullmatch(why)
        if left_over is None:
            raise ValueError(why)
        count, marker = int(left_over[1]), int(left_over[2], 16)
        worse = why
        for at in range(begin, len(parts) - 1):
            if parts[at + 1].marker != marker or not _can_spare(parts[at], count, marker):
                continue
            trial = [*parts[:at], without_last(parts[at], count), *parts[at + 1 :]]
            tries += 1
            next_why = _warning(trial)
            if next_why is None or LEFT_OVER.fullmatch(next_why):
                spare = max(spare, count if not _is_padding(parts[at], count) else 0)
                parts, begin = trial, at
                break
            worse = next_why
        else:
            raise ValueError(worse)
        if tries > MOST_TRIES:
            raise ValueError(why)
    return f"{spare} bytes are left over behind its pixels" if spare > FEW_BYTES else ""


def _can_spare(part: Part, count: int, marker: int) -> bool:
    """Bytes in front of a restart mark may be what a damaged interval left of itself: few do, or mere padding."""
    if len(part.data) < count:
        return False
    return marker not in RESTARTS or count <= FEW_BYTES or _is_padding(part, count)


def _is_padding(part: Part, count: int) -> bool:
    return len(set(part.data[-count:])) == 1


def _warning(parts: list[Part]) -> str | None:
    try:
        simplejpeg.decode_jpeg(joined(parts), colorspace="RGB", strict=True)
    except ValueError as error:
        return str(error)
    return None
