"""One stored picture: a baseline JPEG, or in raw sets an .npy of its pixels."""

from __future__ import annotations

import numpy as np

from shards.errors import FormatError
from shards.jpeg import jpeg_size
from shards.npy import npy_header
from shards.schema import Encoding


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
        size = jpeg_size(data)
    except FormatError as error:
        return str(error)
    return None if size == (height, width) else f"{size[0]}×{size[1]} pixels in a set of {height}×{width}"


def decode_pixels(data: bytes, encoding: Encoding, height: int, width: int) -> np.ndarray:
    """uint8 [H, W, 3] RGB. FormatError: anything but a whole picture of that size."""
    if encoding == "raw":
        if problem := pixels_problem(data, encoding, height, width):
            raise FormatError(problem)
        start = len(raw_header(height, width))
        return np.frombuffer(data, np.uint8, offset=start).reshape(height, width, 3).copy()
    return _decode_jpeg(data, height, width)


def _decode_jpeg(data: bytes, height: int, width: int) -> np.ndarray:
    import simplejpeg

    try:
        found = simplejpeg.decode_jpeg_header(data)[:2]
        if found != (height, width):
            raise ValueError(f"{found[0]}×{found[1]} pixels, expected {height}×{width}")
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise FormatError(str(error)) from error
