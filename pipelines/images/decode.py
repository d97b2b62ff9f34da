"""Image files as RGB pixels: JPEG, PNG, WebP and BMP of any mode, with bounded size.

Pixels are those of `PIL.Image.open(…).convert("RGB")`, which is what published pipelines use: alpha is dropped, not
blended. EXIF orientation is left alone, as there. JPEGs go through pipelines/jpeg.py, which gives the same pixels
faster and also refuses damage that PIL lets pass.
"""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import Image

from pipelines.jpeg import LARGEST_SIDE, check_size, decode_jpeg

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FORMATS = ("PNG", "WEBP", "BMP")
SIGNATURES = {"PNG": b"\x89PNG\r\n", "BMP": b"BM"}
PIL_ERRORS = (OSError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError, struct.error)


def decode_image(data: bytes) -> np.ndarray:
    """uint8 [H, W, 3], at most 8192 a side. Raises ValueError: not an image, too large, damaged or cut short."""
    if data[:2] == b"\xff\xd8":
        return decode_jpeg(data)
    with warnings.catch_warnings():  # PIL warns of sizes that are checked here, and of palettes
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                check_size(image.height, image.width)
                return _rgb(image)
        except Image.UnidentifiedImageError as error:
            raise ValueError(_unknown(data)) from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"more than {LARGEST_SIDE} pixels a side") from error
        except PIL_ERRORS as error:
            raise ValueError(f"corrupt image ({error})") from error


def _unknown(data: bytes) -> str:
    for name, begin in SIGNATURES.items():
        if data.startswith(begin):
            return f"corrupt {name} (its header cannot be read)"
    return "not a JPEG, PNG, WebP or BMP image"


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits of grey: PIL's own conversion would clip them
        grey = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))
