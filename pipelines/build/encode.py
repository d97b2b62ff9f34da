"""Pixels in, pixels out: crop, resize, encode, and how good the result is. An image and its saliency map together.

The resize is PIL's bilinear with antialiasing, bit for bit: the paper's `Resize((128, 128))` on PIL images
(hafezgh/seq-jepa@73e0550 main_transformed_views.py:138). A map is cut and resized as its image is, as probabilities,
which then sum to 1 again (docs/fidelity.md #55). JPEGs are baseline with optimised Huffman tables: progressive ones
decode three times slower.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import cv2
import numpy as np
from PIL import Image, features

from pipelines.sources.decode import Pixels, centre_part, decode_jpeg
from shards.errors import UsageError
from shards.sample import encode_raw
from shards.stats import PixelStats

TARGET_PSNR_DB = 41.0
LOSSLESS_PSNR_DB = 99.0  # what a perfect copy counts as in a mean

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

    def resample(self, array: np.ndarray) -> np.ndarray:
        """uint8 [h, w, 3] or float32 [h, w], cropped and resized. ValueError: it has to have the frame's size."""
        height, width = array.shape[:2]
        if self.fit is None:
            raise ValueError(f"{width}×{height} pixels, the others have {self.width}×{self.height}; give --size")
        if self.fit == "crop":
            array = array[centre_part(height, width, (self.height, self.width))]
        part = Image.fromarray(np.ascontiguousarray(array))
        return np.asarray(part.resize((self.width, self.height), Image.Resampling.BILINEAR))


def fit_image(rgb: Pixels, frame: Frame) -> Pixels:
    """uint8 [h, w, 3] → [H, W, 3]; the very same array where it has that size. ValueError: it has not, and must."""
    return rgb if frame.keeps(*rgb.shape[:2]) else frame.resample(rgb)


def fit_map(p: np.ndarray, frame: Frame) -> np.ndarray:
    """float32 [h, w] → [H, W], summing to 1 if there is any mass in the part that is kept. ValueError as fit_image."""
    if not frame.keeps(*p.shape):
        p = frame.resample(p.astype(np.float32))
    return p / (p.sum() or 1)


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
LADDER = tuple(map(JpegSetting.parse, ("420-85", "420-90", "444-85", "420-95", "444-90", "444-95", "444-98")))


def choose_setting(images: Sequence[Pixels], target_db: float = TARGET_PSNR_DB) -> JpegSetting:
    """The fastest-decoding setting of LADDER with a mean PSNR of `target_db` or more; the finest if none has it."""
    return choose_by(lambda least: psnrs(images, least, target_db), target_db)


def choose_by(measured: Callable[[int], Sequence[Sequence[float]]], target_db: float = TARGET_PSNR_DB) -> JpegSetting:
    """choose_setting of images that lie elsewhere. `measured(least)`: `psnrs` of all, which may come from several parts
    that each stopped at a setting of its own."""
    found = measured(1)
    for rung, setting in enumerate(LADDER):
        if min(map(len, found)) <= rung:
            found = measured(rung + 1)
        if np.mean([image[rung] for image in found]) >= target_db:
            return setting
    return LADDER[-1]


def psnrs(images: Sequence[Pixels], least: int, target_db: float = TARGET_PSNR_DB) -> list[list[float]]:
    """PSNR in dB of each image with the first settings of LADDER: `least` of them, or as many as it takes until one has
    a mean of `target_db` or more."""
    found: list[list[float]] = []
    for setting in LADDER:
        if len(found) >= least and np.mean(found[-1]) >= target_db:
            break
        found.append([_psnr(image, setting) for image in images])
    return [list(image) for image in zip(*found, strict=True)]


def _psnr(image: Pixels, setting: JpegSetting) -> float:
    seen = decode_jpeg(encode_jpeg(image, setting, optimize=False))  # the same pixels in half the time
    return psnr_db(squared_difference(seen, image), image.size)


def encode_image(pixels: Pixels, setting: JpegSetting | None) -> tuple[bytes, PixelStats, float]:
    """(bytes, sums over the pixels that a reader will see, PSNR in dB against those that were meant)."""
    if setting is None:
        return encode_raw(pixels), pixel_sums(pixels), 0.0
    data = encode_jpeg(pixels, setting)
    seen = decode_jpeg(data)
    error = squared_difference(seen, pixels)
    stats = pixel_sums(seen)
    stats.sq_err, stats.sq_err_count = error, pixels.size
    return data, stats, psnr_db(error, pixels.size)


def encode_jpeg(rgb: Pixels, setting: JpegSetting, optimize: bool = True) -> bytes:
    """A baseline JPEG with optimised Huffman tables, on which its pixels do not depend, without metadata."""
    buffer = io.BytesIO()
    subsampling = ":".join(setting.subsampling)
    Image.fromarray(rgb).save(buffer, "JPEG", quality=setting.quality, subsampling=subsampling, optimize=optimize)
    return buffer.getvalue()


def pixel_sums(pixels: Pixels) -> PixelStats:
    """PixelStats.of through OpenCV: as exact, many times faster, which counts at a million images."""
    sums = np.array([round(value) for value in cv2.sumElems(pixels)[:3]], np.int64)
    squares = np.array([round(cv2.norm(channel, cv2.NORM_L2SQR)) for channel in cv2.split(pixels)], np.int64)
    return PixelStats(pixels.shape[0] * pixels.shape[1], sums, squares)


def squared_difference(a: Pixels, b: Pixels) -> int:
    """Sum over pixels and channels, exact."""
    return round(cv2.norm(a, b, cv2.NORM_L2SQR))


def psnr_db(error: int, values: int) -> float:
    """Peak signal-to-noise ratio in dB of a summed squared error over so many uint8 values, at most 99."""
    if error == 0:
        return LOSSLESS_PSNR_DB
    return min(LOSSLESS_PSNR_DB, float(10 * np.log10(255.0**2 * values / error)))


def encoder_versions() -> dict[str, str]:
    """Versions of what the written bytes depend on."""
    return {
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "pillow_libjpeg_turbo": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "simplejpeg": version("simplejpeg"),
    }
