"""One stored picture: a baseline JPEG, or in raw sets an .npy of its pixels; and how either file must be built.

JPEG: baseline, three components, complete. .npy: version 1.0, C order, byte for byte as numpy writes it.
"""

from __future__ import annotations

import functools
import io
import re
import struct
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import FormatError
from shards.schema import Encoding

if TYPE_CHECKING:
    from PIL.Image import Image

PIL_ERRORS = (
    *(OSError, SyntaxError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError),
    struct.error,
)
"""What PIL raises of a file that is damaged, or that was closed."""


def rgb_of(image: Image) -> np.ndarray:
    """A picture of any mode → uint8 [H, W, 3], by PIL's conversion; 16 bits of grey, which that would clip, by 257.

    Alpha is dropped, EXIF orientation left alone. ValueError: floats, whose range nobody knows; what PIL raises: its
    file is damaged, or was closed.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats: make them 8 or 16 bits")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def resized(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [h, w, 3] → [H, W, 3] of another (H, W), bilinear and antialiased, as shards are made."""
    from PIL import Image

    return np.array(Image.fromarray(rgb).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def raw_header(height: int, width: int) -> bytes:
    """The .npy header of a raw picture, the same for every one of a set: H·W·3 bytes of pixels follow it."""
    return npy_header((height, width, 3), "|u1")


def raw_length(height: int, width: int) -> int:
    """Bytes of a raw picture, header and all."""
    return len(raw_header(height, width)) + height * width * 3


def encode_raw(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] → the bytes of a raw view or image (.npy)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FormatError(f"a view is uint8 [H, W, 3], found {pixels.dtype} {list(pixels.shape)}")
    return raw_header(*pixels.shape[:2]) + np.ascontiguousarray(pixels).tobytes()


def pixels_problem(data: bytes, encoding: Encoding, height: int, width: int) -> str | None:
    """Why `data` is not a picture of that size, judged by its headers; None if it is."""
    if encoding == "raw":
        fits = len(data) == raw_length(height, width) and data.startswith(raw_header(height, width))
        return None if fits else f"not the .npy of uint8 [{height}, {width}, 3]"
    try:
        size = baseline_jpeg_size(data)
    except FormatError as error:
        return str(error)
    return None if size == (height, width) else f"{size[0]}×{size[1]} pixels in a set of {height}×{width}"


def decode_pixels(data: bytes, encoding: Encoding, height: int, width: int) -> np.ndarray:
    """A JPEG, or what encode_raw returned (encoding "raw") → uint8 [height, width, 3], RGB.

    FormatError: anything but a whole picture of that size.
    """
    if encoding == "raw":
        if problem := pixels_problem(data, encoding, height, width):
            raise FormatError(problem)
        start = len(raw_header(height, width))
        return np.frombuffer(data, np.uint8, offset=start).reshape(height, width, 3).copy()
    import simplejpeg

    try:
        found = simplejpeg.decode_jpeg_header(data)[:2]
        if found != (height, width):
            raise ValueError(f"{found[0]}×{found[1]} pixels, expected {height}×{width}")
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise FormatError(str(error)) from error


_STANDALONE = {0x01, *range(0xD0, 0xD8)}
_OTHER_FRAMES = {0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}


def baseline_jpeg_size(data: bytes) -> tuple[int, int]:
    """(height, width) of a baseline RGB JPEG, from its headers alone.

    FormatError: not a JPEG, cut, progressive (it decodes three times slower), or not of three components.
    """
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        raise FormatError("not a whole JPEG (it does not start with FFD8 and end with FFD9)")
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xC0:
            bits, components = data[at + 4], data[at + 9]
            if (bits, components) != (8, 3):
                raise FormatError(f"a JPEG of {components} components of {bits} bits, allowed are 3 of 8")
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        if marker in _OTHER_FRAMES:
            raise FormatError("not a baseline JPEG")
        at += 2 if marker in _STANDALONE else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise FormatError("a JPEG without a frame header")


_SHAPE = re.compile(rb"'shape': \((\d{1,5}), (\d{1,5})\)")


def npy_bytes(array: np.ndarray) -> bytes:
    """`array` as the content of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@functools.lru_cache(maxsize=4096)
def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """What precedes the values of an array, e.g. ((96, 96), "<f2"). Little-endian on every machine."""
    buffer = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def npy_shape(data: bytes, dtype: str, max_side: int) -> tuple[int, int] | None:
    """[rows, columns] of a whole .npy of `dtype`, from its header and length alone; None: it is anything else.

    Nothing is evaluated or allocated: the header has to be the very one that numpy writes for that shape.
    """
    found = _SHAPE.search(data[:128])
    if not found:
        return None
    rows, columns = int(found[1]), int(found[2])
    if not (1 <= rows <= max_side and 1 <= columns <= max_side):
        return None
    header = npy_header((rows, columns), dtype)
    whole = len(header) + rows * columns * np.dtype(dtype).itemsize
    return (rows, columns) if len(data) == whole and data.startswith(header) else None
