"""Pixels in, pixels out: decode, resize, encode, and how good the result is.

The resize is PIL's bilinear with antialiasing, bit for bit: the paper's `Resize((128, 128))` on PIL images
(hafezgh/seq-jepa@73e0550 main_transformed_views.py:138). JPEGs are baseline with
optimised Huffman tables: progressive ones decode three times slower.

An image and its saliency map, cropped and resized together, so that what is salient stays where it is seen.

Both go through PIL's bilinear resize with antialiasing, of the same part; a map as probabilities, which then sum to 1
again (docs/fidelity.md #55).
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from pipelines.sources.decode import Pixels, decode_jpeg
from shards.errors import UsageError

TARGET_PSNR_DB = 41.0
LOSSLESS_PSNR_DB = 99.0  # what a perfect copy counts as in a mean


@dataclass(frozen=True)
class JpegSetting:
    """Chroma subsampling ("420", "422" or "444") and quality (1 … 100). Spelled "420-90"."""

    subsampling: str
    quality: int

    def __str__(self) -> str:
        return f"{self.subsampling}-{self.quality}"

    @classmethod
    def parse(cls, text: str) -> JpegSetting:
        """Raises UsageError for anything but e.g. "420-90"."""
        match = re.fullmatch(r"(420|422|444)-(\d{1,3})", text)
        if match is None or not 1 <= int(match[2]) <= 100:
            raise UsageError(
                f"JPEG setting {text!r} is not known; give auto, or subsampling-quality, e.g. 420-90 or 444-85 "
                "(subsampling 420, 422 or 444, quality 1 to 100)"
            )
        return cls(match[1], int(match[2]))


# Fastest to decode first, measured at 128 pixels: 25.4, 22.9, 19.3, 18.3 and 17.6 thousand a second a core …
LADDER = tuple(
    JpegSetting.parse(text) for text in ("420-85", "420-90", "444-85", "420-95", "444-90", "444-95", "444-98")
)


def resize(rgb: Pixels, size: int) -> Pixels:
    """uint8 [H, W, 3] → [size, size, 3]; the very same array where it has that size already."""
    if rgb.shape[:2] == (size, size):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((size, size), Image.Resampling.BILINEAR))


def encode_jpeg(rgb: Pixels, setting: JpegSetting) -> bytes:
    """A baseline JPEG with optimised Huffman tables, without metadata."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(
        buffer,
        "JPEG",
        quality=setting.quality,
        subsampling=":".join(setting.subsampling),
        optimize=True,
        progressive=False,
    )
    return buffer.getvalue()


def encode_npy(rgb: Pixels) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(rgb), allow_pickle=False)
    return buffer.getvalue()


def squared_error(a: Pixels, b: Pixels) -> int:
    """Sum over pixels and channels, exact."""
    return round(cv2.norm(a, b, cv2.NORM_L2SQR))


def psnr_db(error: int, values: int) -> float:
    """Peak signal-to-noise ratio in dB of a summed squared error over so many uint8 values, at most 99."""
    if error == 0:
        return LOSSLESS_PSNR_DB
    return min(LOSSLESS_PSNR_DB, float(10 * np.log10(255.0**2 * values / error)))


def mean_psnr(images: Sequence[Pixels], setting: JpegSetting) -> float:
    """Mean over images, in dB, of what encoding with `setting` leaves."""
    errors = [squared_error(decode_jpeg(encode_jpeg(image, setting)), image) for image in images]
    return float(np.mean([psnr_db(error, image.size) for error, image in zip(errors, images, strict=True)]))


def choose_setting(images: Sequence[Pixels], target_db: float = TARGET_PSNR_DB) -> JpegSetting:
    """The fastest-decoding setting of LADDER with a mean PSNR of `target_db` or more; the finest if none has it."""
    for setting in LADDER:
        if mean_psnr(images, setting) >= target_db:
            return setting
    return LADDER[-1]


def encoder_versions() -> dict[str, str]:
    """Versions of what the written bytes depend on."""
    from importlib.metadata import version

    from PIL import features

    return {
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "pillow_libjpeg_turbo": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "simplejpeg": version("simplejpeg"),
    }


Fit = Literal["squash", "crop"]


@dataclass(frozen=True)
class Frame:
    """What all images become: height × width pixels.

    fit  "squash": the whole image, whatever its proportions; "crop": its largest centred part of these proportions;
         None: no resampling, images have to have this size
    """

    height: int
    width: int
    fit: Fit | None = None

    def keeps(self, height: int, width: int) -> bool:
        """Whether an image of that size stays as it is."""
        return (height, width) == (self.height, self.width)


def fit_image(rgb: np.ndarray, frame: Frame) -> np.ndarray:
    """uint8 [h, w, 3] → [H, W, 3]; the very same array where it has that size. ValueError: it has not, and must."""
    if frame.keeps(rgb.shape[0], rgb.shape[1]):
        return rgb
    part = np.ascontiguousarray(rgb[_part(rgb.shape[0], rgb.shape[1], frame)])
    return np.asarray(Image.fromarray(part).resize((frame.width, frame.height), Image.Resampling.BILINEAR))


def fit_map(p: np.ndarray, frame: Frame) -> np.ndarray:
    """float32 [h, w] → [H, W], summing to 1 if there is any mass in the part that is kept. ValueError as fit_image."""
    if not frame.keeps(p.shape[0], p.shape[1]):
        part = np.ascontiguousarray(p[_part(p.shape[0], p.shape[1], frame)], np.float32)
        p = np.asarray(Image.fromarray(part).resize((frame.width, frame.height), Image.Resampling.BILINEAR))
    return p / (p.sum() or 1)


def _part(height: int, width: int, frame: Frame) -> tuple[slice, slice]:
    """Rows and columns that are kept."""
    if frame.fit is None:
        raise ValueError(f"{width}×{height} pixels, the others have {frame.width}×{frame.height}; give --size")
    if frame.fit == "squash":
        return slice(0, height), slice(0, width)
    scale = min(height / frame.height, width / frame.width)
    kept_height, kept_width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return slice(top, top + kept_height), slice(left, left + kept_width)
