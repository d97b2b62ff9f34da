"""Image files as RGB pixels: JPEG, PNG, WebP and BMP of any mode, with bounded size.

Pixels are those of `PIL.Image.open(…).convert("RGB")`, which is what published pipelines use: alpha is dropped, not
blended, and EXIF orientation is left alone. PIL also reads JPEGs that have lost pixels; `decode_jpeg` refuses them.
libjpeg reads damaged files too, and warns. Some of its warnings are about pixels ("premature end of data segment"),
others about the file alone: scan parameters that a sequential JPEG has no use for, bytes between its segments or left
over before the next marker, a JFIF version. It reports only the first one. So a file with a harmless oddity is decoded
once more without it, until nothing is left to warn of, or pixels are found missing.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg
from PIL import Image

from shards.pixels import PIL_ERRORS, rgb_of

NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff]", re.DOTALL)
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a segment
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SEQUENTIAL = {0xC0, 0xC1}
JFIF, ADOBE, SCAN, END = 0xE0, 0xEE, 0xDA, 0xD9
RESTARTS = range(0xD0, 0xD8)
LEADING = 4  # bytes of a marker and its segment's length


@dataclass(frozen=True)
class JpegPart:
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


def tidied(data: bytes) -> list[JpegPart]:
    """Parts up to the end mark, without bytes between segments, and without what libjpeg warns of but does not use.

    Scan parameters of a sequential JPEG (there is one choice), a JFIF version, an Adobe transform of other colours.
    Raises ValueError for a file that has no end mark.
    """
    parts = list(_parts(data))
    if not parts or parts[-1].marker != END:
        raise ValueError("cut short: it has no end mark")
    frame = next((part for part in parts if part.marker in FRAMES), JpegPart(None))
    components = frame.head[9] if len(frame.head) > 9 else 0
    return [_plain(part, frame.marker, components) for part in parts]


def joined(parts: list[JpegPart]) -> bytes:
    return b"\xff\xd8" + b"".join(part.head + part.data for part in parts)


def _parts(data: bytes) -> Iterator[JpegPart]:
    at, in_scan = 2, False
    while (found := NEXT_MARKER.search(data, at)) is not None:
        if in_scan:
            yield JpegPart(None, data=data[at : found.start()])
        marker, begin = data[found.end() - 1], found.end()
        if marker in ALONE or marker == END:
            yield JpegPart(marker, bytes((0xFF, marker)))
            at, in_scan = begin, in_scan and marker in RESTARTS
            if marker == END:
                return
            continue
        length = int.from_bytes(data[begin : begin + 2], "big")
        if length < 2 or begin + length > len(data):
            return
        yield JpegPart(marker, bytes((0xFF, marker)) + data[begin : begin + length])
        at, in_scan = begin + length, marker == SCAN


def _plain(part: JpegPart, frame: int | None, components: int) -> JpegPart:
    head = bytearray(part.head)
    if part.marker == SCAN and frame in SEQUENTIAL and len(head) >= LEADING + 4:
        head[-3:] = b"\x00\x3f\x00"  # all 64 coefficients, at full precision
    elif part.marker == JFIF and head[4:9] == b"JFIF\0" and len(head) > 10:
        head[9:11] = b"\x01\x01"
    elif part.marker == ADOBE and head[4:9] == b"Adobe" and len(head) > 15 and head[15]:
        head[15] = 1 if components == 3 else 2  # as libjpeg takes any but 0
    return replace(part, head=bytes(head))


Pixels = np.ndarray  # uint8 [H, W, 3], RGB in the order the source file has

LARGEST_SIDE = 8192
PLAIN = ("YCbCr", "Gray", "RGB")  # what simplejpeg converts as PIL does; CMYK it does not
LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
INCONSISTENT = "Inconsistent progression sequence"
UNKNOWN_SAMPLING = "Could not determine subsampling"
FEW_BYTES = 16  # left over in front of a restart mark, as webcams leave one or two
MOST_TRIES = 200
EXIF, HEADERS = b"Exif\0\0", 1 << 16  # bytes of a JPEG in which its EXIF begins
ORIENTATION, TURNS = 0x0112, range(2, 9)
OPAQUE = 255
SPARSE = 16  # steps of pixels that are looked at first
DARK = 1 << 12  # of 16 bits: what cameras of 12 bits write

_doubts: ContextVar[list[str] | None] = ContextVar("doubts", default=None)


@contextlib.contextmanager
def doubts() -> Iterator[list[str]]:
    """Gathers, while inside, what is to be said of pictures that are read: JPEGs that may be damaged, moving pictures,
    such as their EXIF turns, such as one sees through."""
    found: list[str] = []
    token = _doubts.set(found)
    try:
        yield found
    finally:
        _doubts.reset(token)


def _say(doubt: str) -> None:
    if (found := _doubts.get()) is not None:
        found.append(doubt)


def _say_turned(exif: Image.Exif) -> None:
    if (turn := exif.get(ORIENTATION)) in TURNS:
        _say(f"its EXIF turns it (orientation {turn}), which is left alone")


def _say_transparent(image: Image.Image) -> None:
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    if _doubts.get() is not None and has_alpha and np.array(image.convert("RGBA"))[..., 3].min() < OPAQUE:
        _say("it has transparent pixels, whose colours are taken as they lie in the file")


def say_if_empty(pixels: Pixels) -> None:
    """Of a picture [H, W, 3] of one colour, as of a render that failed."""
    some = pixels[::SPARSE, ::SPARSE]
    if (some == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all():
        _say(f"all its pixels are {tuple(pixels[0, 0].tolist())}")


def _look_at_exif(jpeg: bytes) -> None:
    if _doubts.get() is None or (at := jpeg.find(EXIF, 0, HEADERS)) < 0:
        return
    exif = Image.Exif()
    with warnings.catch_warnings(), contextlib.suppress(*PIL_ERRORS):
        warnings.simplefilter("ignore")  # of EXIF that is cut short
        exif.load(jpeg[at : at + HEADERS])
        _say_turned(exif)


def check_size(height: int, width: int) -> None:
    """Raises ValueError for more than 8192 a side."""
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise ValueError(f"{width}×{height} pixels; at most {LARGEST_SIDE} a side")


def centre_part(height: int, width: int, like: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the largest centred part with the proportions of `like`, (height, width)."""
    scale = min(height / like[0], width / like[1])
    kept_height, kept_width = max(1, round(like[0] * scale)), max(1, round(like[1] * scale))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return slice(top, top + kept_height), slice(left, left + kept_width)


def check_view_size(found: tuple[int, ...], size: tuple[int, int] | None) -> None:
    """Raises ValueError unless (height, width) is the size of the others; None: any will do."""
    if size is not None and found != size:
        raise ValueError(f"{found[1]}×{found[0]} pixels, the others have {size[1]}×{size[0]}")


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
    _look_at_exif(data)
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
        if doubt:
            _say(f"{doubt}: it may be damaged, and is read as PIL reads it")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
                return np.array(image.convert("RGB"))
    except Image.UnidentifiedImageError as error:
        raise ValueError("corrupt JPEG (of a kind that is not read)") from error
    except (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError) as error:
        raise ValueError(f"corrupt JPEG ({error})") from error


def _refuse_loss(parts: list[JpegPart]) -> str:
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
            trial = [*parts[:at], replace(parts[at], data=parts[at].data[:-count]), *parts[at + 1 :]]
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


def _can_spare(part: JpegPart, count: int, marker: int) -> bool:
    """Bytes in front of a restart mark may be what a damaged interval left of itself: few do, or mere padding."""
    if len(part.data) < count:
        return False
    return marker not in RESTARTS or count <= FEW_BYTES or _is_padding(part, count)


def _is_padding(part: JpegPart, count: int) -> bool:
    return len(set(part.data[-count:])) == 1


def _warning(parts: list[JpegPart]) -> str | None:
    try:
        simplejpeg.decode_jpeg(joined(parts), colorspace="RGB", strict=True)
    except ValueError as error:
        return str(error)
    return None


SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp")
FORMATS = ("PNG", "WEBP", "BMP")
SIGNATURES = {"PNG": b"\x89PNG\r\n", "BMP": b"BM"}
OTHERS = {
    rb"GIF8": "GIF",
    rb"II\*\0|MM\0\*": "TIFF",
    rb"\xff\n|\0\0\0\x0cJXL ": "JPEG XL",
    rb"(?s:....)ftyp": "HEIC or AVIF",
    rb"<": "HTML or SVG",
    rb"version https://git-lfs": "a pointer to one, which git lfs pull fetches",
}


def decode_image(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3], at most 8192 a side. Raises ValueError: not an image, too large, damaged or cut short."""
    if data[:2] == b"\xff\xd8":
        return decode_jpeg(data)
    with warnings.catch_warnings():  # PIL warns of sizes that are checked here, and of palettes
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.height, image.width)
                if (frames := getattr(image, "n_frames", 1)) > 1:
                    _say(f"the first of its {frames} frames is read")
                if "exif" in image.info:
                    _say_turned(image.getexif())
                _say_transparent(image)
                if image.mode.startswith("I") and (most := int(image.getextrema()[1])) < DARK:  # type: ignore[operator]
                    _say(f"its 16 bits go to {most} alone, nearly black: scale them to 65535, or to 8 bits")
                return rgb_of(image)
        except Image.UnidentifiedImageError as error:
            raise ValueError(_unknown(data)) from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"more than {LARGEST_SIDE} pixels a side") from error
        except ValueError:  # as check_size has it
            raise
        except PIL_ERRORS as error:
            raise ValueError(f"corrupt image ({error})") from error


def _unknown(data: bytes) -> str:
    for name, begin in SIGNATURES.items():
        if data.startswith(begin):
            return f"corrupt {name} (its header cannot be read)"
    other = next((what for begin, what in OTHERS.items() if re.match(begin, data)), "")
    return f"not a JPEG, PNG, WebP or BMP image{f', but {other}' if other else ''}"


def bitmap_of(pixels: np.ndarray) -> bytes:
    """An image file of uint8 [H, W, 3] that decode_image reads: without loss, and made and read at once."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()
