"""Image files as RGB pixels: JPEG, PNG, WebP and BMP of any mode, with bounded size.

Pixels are those of `PIL.Image.open(…).convert("RGB")`, which is what published pipelines use: alpha is dropped, not
blended. EXIF orientation is left alone, as there. JPEGs go through simplejpeg, which gives the same pixels faster and
also refuses damage that PIL lets pass.
"""

from __future__ import annotations

import io
import re
import warnings

import numpy as np
import simplejpeg
from PIL import Image

from pipelines.encode import LARGEST_SIDE

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
HARMLESS_BYTES = 16  # left over before the end mark, as some of ImageNet's files have
PLAIN_JPEG = ("YCbCr", "Gray", "RGB")


def decode_image(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3], at most 8192 a side. Raises ValueError: not an image, too large, damaged or cut short."""
    if data[:2] == b"\xff\xd8" and (pixels := _decode_jpeg(data)) is not None:
        return pixels
    with warnings.catch_warnings():  # PIL warns of sizes that are checked here, and of palettes
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(image.height, image.width)
                return _rgb(image)
        except Image.UnidentifiedImageError as error:
            raise ValueError("not a JPEG, PNG, WebP or BMP image") from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"more than {LARGEST_SIDE} pixels a side") from error
        except (OSError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:  # what PIL's readers raise
            raise ValueError(f"corrupt image ({error})") from error


def _decode_jpeg(data: bytes) -> np.ndarray | None:
    """None for what simplejpeg cannot convert as PIL does (CMYK), or cannot tell what it is."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(int(height), int(width))
    if colours not in PLAIN_JPEG:
        return None
    try:
        return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError as error:
        extra = re.fullmatch(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", str(error))
        if extra and int(extra[1]) <= HARMLESS_BYTES:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", strict=False)
        raise ValueError(f"corrupt JPEG ({error})") from error


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits of grey: PIL's own conversion would clip them
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def _check_size(height: int, width: int) -> None:
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise ValueError(f"{width}×{height} pixels; at most {LARGEST_SIDE} a side")
