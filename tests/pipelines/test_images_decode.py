"""Pixels of image files are PIL's, whatever their mode; what is damaged, empty or huge is an error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from small_images import encoded, picture

from pipelines.sources.decode import decode_image

RGB = Image.fromarray(picture(1))


def bytes_of(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oracle(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    "data",
    [
        bytes_of(RGB, "JPEG"),
        bytes_of(RGB, "JPEG", progressive=True, subsampling=0),
        bytes_of(RGB.convert("L"), "JPEG"),
        bytes_of(RGB.convert("CMYK"), "JPEG"),
        bytes_of(RGB, "PNG"),
        bytes_of(RGB.convert("L"), "PNG"),
        bytes_of(RGB.convert("P"), "PNG"),
        bytes_of(RGB.convert("1"), "PNG"),
        bytes_of(Image.merge("RGBA", (*RGB.split(), RGB.convert("L"))), "PNG"),
        bytes_of(Image.merge("LA", (RGB.convert("L"), RGB.convert("L"))), "PNG"),
        bytes_of(RGB, "WEBP", lossless=True),
        bytes_of(RGB, "BMP"),
    ],
)
def test_pixels_are_pils(data: bytes) -> None:
    pixels = decode_image(data)
    assert pixels.dtype == np.uint8
    assert np.array_equal(pixels, oracle(data))


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    """PIL warns of these when they are converted directly."""
    image = RGB.convert("P")
    assert np.array_equal(
        decode_image(bytes_of(image, "PNG", transparency=b"\x00\x80\xff")), np.asarray(image.convert("RGB"))
    )


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    grey = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    found = decode_image(bytes_of(Image.fromarray(grey), "PNG"))
    assert np.array_equal(found, np.arange(256).reshape(16, 16, 1).repeat(3, 2))


def test_orientation_is_left_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = bytes_of(RGB, "JPEG", exif=exif)
    assert decode_image(data).shape == (24, 32, 3)
    assert np.array_equal(decode_image(data), oracle(data))


def test_the_content_counts_not_the_name() -> None:
    """One of ImageNet's .JPEG files is a PNG."""
    assert np.array_equal(decode_image(encoded(picture(2), "png")), picture(2))


def test_a_few_bytes_before_the_end_mark_do_no_harm() -> None:
    data = bytes_of(RGB, "JPEG")
    assert np.array_equal(decode_image(data[:-2] + bytes(7) + data[-2:]), oracle(data))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a JPEG"),
        (b"some text", "not a JPEG, PNG, WebP or BMP image$"),
        (bytes_of(RGB, "GIF"), "not a JPEG, PNG, WebP or BMP image, but GIF"),
        (bytes_of(RGB, "TIFF"), "but TIFF"),
        (b"\0\0\0\x20ftypavif", "but HEIC or AVIF"),
        (b"\xff\n\xfa\x1f", "but JPEG XL"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (bytes_of(RGB, "JPEG")[:-60], "corrupt JPEG"),
        (bytes_of(RGB.convert("CMYK"), "JPEG")[:-60], "corrupt"),
        (bytes_of(RGB, "PNG")[:200], "corrupt"),
        (bytes_of(RGB, "BMP")[:200], "corrupt"),
        (b"\xff\xd8\xff" + bytes(50), "not a JPEG|corrupt"),
    ],
)
def test_what_is_damaged_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_image(data)


@pytest.mark.parametrize("side", [9000, 20000, 2_000_000_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(bytes(100))
    chunks = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, pixels))
    with pytest.raises(ValueError, match="8192"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunks)
