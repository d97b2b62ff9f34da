"""One object at a time, in a worker: read, check, resize, encode. Never imports torch.

What is wrong with a view is reported by name, and the view is left out; the object lives on with the others.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipelines.build.encode import JpegSetting, Pixels, decode_jpeg, encode_jpeg, psnr_db, resize, squared_error
from pipelines.sources.content import short_digest
from pipelines.sources.decode import doubts, jpeg_size
from pipelines.sources.objects import Content, read_content
from shards.sample import Sample, ViewSample, encode_raw
from shards.stats import PixelStats

LARGEST_HEADER = 4096  # bytes; NumPy writes 128


@dataclass(frozen=True)
class ObjectRecord:
    """One object of a source, before any work: `views[i]` (JPEG) and `latents[i]` (.npy) belong to `view_ids[i]`.

    Contents are bytes, or paths that the worker reads. `name` and the two patterns only serve messages.
    """

    key: str
    label: int
    split: str
    view_ids: list[int]
    views: list[Content]
    latents: list[Content]
    name: str
    meta: dict[str, str | int] = field(default_factory=dict)
    view_pattern: str = "image_{}.jpg"
    latent_pattern: str = "latent_{}.npy"

    @property
    def images(self) -> int:
        return len(self.view_ids)


@dataclass(frozen=True)
class ViewJob:
    """What becomes of every view. `setting` None keeps raw pixels; `source_size` is (height, width) of all sources."""

    size: int
    setting: JpegSetting | None
    source_size: tuple[int, int]
    params: int


@dataclass(frozen=True)
class Transformed:
    """What a worker hands back. `sample` is None where nothing was left of it; `psnr_sum` is in dB over its images.

    `bad` names what is left out and why, `odd` what was read but may be damaged.
    `source`: short_digest of the bytes that it was made of.
    """

    sample: Sample | None
    stats: PixelStats
    psnr_sum: float = 0.0
    bad: tuple[str, ...] = ()
    images: int = 1
    odd: tuple[str, ...] = ()
    source: str = ""


def files_digest(contents: Sequence[Content]) -> str:
    """Of an object's files; one that cannot be read counts as empty."""
    return short_digest(*map(_content_or_nothing, contents))


def _content_or_nothing(content: Content) -> bytes:
    try:
        return read_content(content)
    except ValueError:
        return b""


def transform(record: ObjectRecord, job: ViewJob) -> Transformed:
    """Views resized to [size, size] and encoded, latents as float32 [n, P]; what is bad is left out and named."""
    ids, views, params, bad, odd = [], [], [], [], []
    stats, psnr_sum = PixelStats(), 0.0
    for k, view, latent in zip(record.view_ids, record.views, record.latents, strict=True):
        try:
            row = _named(record.latent_pattern, k, lambda item=latent: read_latent(read_content(item), job.params))
            with doubts() as found:
                pixels = _named(record.view_pattern, k, lambda item=view: _load(read_content(item), job.source_size))
        except ValueError as error:
            bad.append(f"{record.name}/{error}")
            continue
        data, view_stats, psnr = encode_image(resize(pixels, job.size), job.setting)
        odd += [f"{record.name}/{record.view_pattern.format(k)}: {doubt}" for doubt in found]
        ids.append(k)
        views.append(data)
        params.append(row)
        stats, psnr_sum = stats + view_stats, psnr_sum + psnr
    sample = ViewSample(record.key, views, ids, np.stack(params), record.label, record.meta) if ids else None
    source = files_digest([*record.views, *record.latents])
    return Transformed(sample, stats, psnr_sum, tuple(bad), len(ids), tuple(odd), source)


def read_latent(data: bytes, count: int) -> np.ndarray:
    """float32 [count] of a .npy of floats. Raises ValueError that says what is wrong; never unpickles."""
    dtype, shape, start = _npy_layout(data[: _header_end(data)])
    if shape != (count,) or dtype.kind != "f":
        raise ValueError(f"latent is {dtype} of shape {shape}, not floats of shape ({count},)")
    if len(data) < start + count * dtype.itemsize:
        raise ValueError("latent is cut short")
    with np.errstate(over="ignore"):
        row = np.frombuffer(data, dtype, count, start).astype(np.float32)
    if not np.isfinite(row).all():
        raise ValueError("latent is not finite")
    return row


def _header_end(data: bytes) -> int:
    """Where the header of a .npy ends; version 1 has two bytes of length, later ones four."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12:
        raise ValueError("latent is not a NumPy file")
    end = 10 + int.from_bytes(data[8:10], "little") if data[6] == 1 else 12 + int.from_bytes(data[8:12], "little")
    if end > LARGEST_HEADER:
        raise ValueError("latent is not a NumPy file")
    return end


@functools.lru_cache(maxsize=64)
def _npy_layout(header: bytes) -> tuple[np.dtype, tuple[int, ...], int]:
    """(dtype, shape, offset of the data). All latents of a set share a header, and parsing one takes long."""
    try:
        fields = ast.literal_eval(header[10 if header[6] == 1 else 12 :].decode("latin1").strip())
        return np.dtype(fields["descr"]), tuple(fields["shape"]), len(header)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise ValueError("latent is not a NumPy file") from error


def _named(pattern: str, k: int, work):
    try:
        return work()
    except ValueError as error:
        raise ValueError(f"{pattern.format(k)}: {error}") from error


def _load(data: bytes, size: tuple[int, int]) -> Pixels:
    try:
        found = jpeg_size(data)
    except ValueError as error:
        raise ValueError("not a JPEG") from error
    if found != size:
        raise ValueError(f"{found[1]}×{found[0]} pixels, the others have {size[1]}×{size[0]}")
    try:
        return decode_jpeg(data)
    except ValueError as error:
        raise ValueError("corrupt JPEG") from error


def encode_image(pixels: Pixels, setting: JpegSetting | None) -> tuple[bytes, PixelStats, float]:
    """(bytes, sums over the pixels that a reader will see, PSNR in dB against those that were meant)."""
    if setting is None:
        return encode_raw(pixels), pixel_stats(pixels), 0.0
    data = encode_jpeg(pixels, setting)
    seen = decode_jpeg(data)
    error = squared_error(seen, pixels)
    stats = pixel_stats(seen)
    stats.sq_err, stats.sq_err_count = error, pixels.size
    return data, stats, psnr_db(error, pixels.size)


def pixel_stats(pixels: Pixels) -> PixelStats:
    """PixelStats.of through OpenCV: as exact, many times faster, which counts at a million images."""
    sums = np.array([round(value) for value in cv2.sumElems(pixels)[:3]], np.int64)
    squares = np.array([round(cv2.norm(channel, cv2.NORM_L2SQR)) for channel in cv2.split(pixels)], np.int64)
    return PixelStats(pixels.shape[0] * pixels.shape[1], sums, squares)
