"""One object at a time, in a worker: read its views and parameters, check, resize, encode. Never imports torch.

What is wrong with a view is reported by name, and the view is left out; the object lives on with the others.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipelines.archives import Content, read_content
from pipelines.build.encode import Frame, JpegSetting, encode_image, fit_image
from pipelines.build.fill import Transformed
from pipelines.sources import ViewsContent
from pipelines.sources.content import short_digest
from pipelines.sources.declared_actions import LARGEST_NUMBER
from pipelines.sources.decode import Pixels, check_view_size, decode_image, decode_jpeg, doubts, jpeg_size, say_if_empty
from shards.machine.environment import usable_cores
from shards.sample import ViewSample
from shards.stats import PixelStats

LARGEST_HEADER = 4096  # bytes of a .npy; NumPy writes 128
MOST_TURNS = 2.1 * np.pi  # rad; angles beyond it may be degrees
JPEG = (".jpg", ".jpeg")
FEWEST_TOGETHER = 64
MOST_BYTES_TOGETHER = 48 << 20  # of raw pixels: a thousand frames of 128 × 128
RUNS_PER_WORKER = 4

Result = TypeVar("Result")


@dataclass(frozen=True)
class ViewJob:
    """What becomes of every view. `source_size`: (height, width) of all sources, None where they may differ; `params`:
    how many each has, P; `angles`: which of them are in rad, and their names.
    """

    frame: Frame
    setting: JpegSetting | None
    source_size: tuple[int, int] | None
    params: int
    angles: tuple[tuple[int, str], ...] = ()


def transform(content: ViewsContent, job: ViewJob) -> Transformed:
    """Views fitted into the frame and encoded, parameters as float32 [n, P]; what is bad is left out and named."""
    record = content.record
    ids, views, params, bad, odd, far = [], [], [], [], [], []
    stats, psnr_sum = PixelStats(), 0.0
    names = content.names or [content.view_file.format(k) for k in record.view_ids]
    place = "" if content.names else f"{record.name}/"
    pictures = _pictures(content, names, job)
    for k, view_name, given, load in zip(record.view_ids, names, content.params, pictures, strict=True):
        try:
            row = _naming(content.params_file.format(k), lambda given=given: _params(given, job.params))
            with doubts() as found:
                pixels = _naming(view_name, load)
                say_if_empty(pixels)
        except ValueError as error:
            bad.append(f"{place}{error}")
            continue
        data, view_stats, psnr = encode_image(fit_image(pixels, job.frame), job.setting)
        odd += [f"{place}{view_name}: {doubt}" for doubt in found]
        if not far and not isinstance(given, np.ndarray):  # of a table it was told before
            far = [f"{name} is {row[i]:g} rad" for i, name in job.angles if abs(row[i]) > MOST_TURNS]
            odd += [f"{place}{content.params_file.format(k)}: {', '.join(far)}: degrees?"] if far else []
        ids.append(k)
        views.append(data)
        params.append(row)
        stats, psnr_sum = stats + view_stats, psnr_sum + psnr
    sample = None
    if ids:
        sample = ViewSample(record.key, views, ids, np.stack(params), record.label, record.meta, record.chunk)
    return Transformed(sample, stats, psnr_sum, tuple(bad), len(ids), tuple(odd), content_digest(content))


@dataclass(frozen=True)
class DecodedTogether:
    """Which records of a video one worker decodes: a run of `enough` frames or more that ends near a keyframe.

    Each run begins with the decoding of all frames since a keyframe, of which the run before has already made most.
    most  frames of a run, wherever the next keyframe is: what a worker holds until it is done
    """

    enough: int
    most: int

    @classmethod
    def of(cls, frame: Frame, frames: int, workers: int | None) -> DecodedTogether:
        """For so many frames in all. Each worker gets several runs, so that all are at work until the end."""
        most = max(FEWEST_TOGETHER, MOST_BYTES_TOGETHER // (frame.height * frame.width * 3))
        share = frames // (RUNS_PER_WORKER * max(1, usable_cores() if workers is None else workers))
        return cls(max(FEWEST_TOGETHER, min(share, most // 4)), most)

    def __call__(self, group: Sequence[ViewsContent], item: ViewsContent) -> bool:
        if isinstance(item.views, Sequence) or isinstance(group[-1].views, Sequence):
            return False
        again = item.views.again(group[-1].views)
        count = sum(len(content.views) for content in group)
        return again is not None and count < self.most and (count < self.enough or again > count // 16)


def _pictures(content: ViewsContent, names: Sequence[str], job: ViewJob) -> Iterator[Callable[[], Pixels]]:
    """What gives the pixels of each view, to be called in this order. ValueError: what is wrong with it."""
    if isinstance(content.views, Sequence):
        for name, view in zip(names, content.views, strict=True):
            kind = "" if content.names else name  # a suffix is a promise only where the layout makes it one
            yield lambda kind=kind, view=view: load_view(kind, read_content(view), job.source_size)
        return
    frames = content.views.load(job.frame, job.source_size)
    for _ in names:
        yield lambda: _next_frame(frames)


def _next_frame(frames: Iterator[Pixels]) -> Pixels:
    pixels = next(frames, None)
    if pixels is None:
        raise ValueError("comes after a damaged one, and is not decoded")
    return pixels


def content_digest(content: ViewsContent) -> str:
    """short_digest of an object's files; one that cannot be read counts as empty."""
    params = [row.tobytes() if isinstance(row, np.ndarray) else _bytes_or_nothing(row) for row in content.params]
    if not isinstance(content.views, Sequence):
        return short_digest(content.views.digest().encode(), *params)
    return short_digest(*map(_bytes_or_nothing, content.views), *params)


def _bytes_or_nothing(content: Content) -> bytes:
    try:
        return read_content(content)
    except ValueError:
        return b""


def _naming(name: str, work: Callable[[], Result]) -> Result:
    try:
        return work()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _params(given: Content | np.ndarray, count: int) -> np.ndarray:
    return np.asarray(given, np.float32) if isinstance(given, np.ndarray) else read_latent(read_content(given), count)


def view_size(name: str, data: bytes) -> tuple[int, int]:
    """(height, width) in pixels. Raises ValueError for what is no image; a file called .jpg has to be a JPEG."""
    return jpeg_size(data) if name.lower().endswith(JPEG) else decode_image(data).shape[:2]


def load_view(name: str, data: bytes, size: tuple[int, int] | None) -> Pixels:
    """uint8 [H, W, 3]. Raises ValueError for what is no image, is damaged, or has another size than (height, width)."""
    if not name.lower().endswith(JPEG):
        pixels = decode_image(data)
        check_view_size(pixels.shape[:2], size)
        return pixels
    try:
        found = jpeg_size(data)
    except ValueError as error:
        raise ValueError("not a JPEG") from error
    check_view_size(found, size)
    try:
        return decode_jpeg(data)
    except ValueError as error:
        raise ValueError("corrupt JPEG") from error


def read_latent(data: bytes, count: int) -> np.ndarray:
    """float32 [count] of a .npy of floats. Raises ValueError that says what is wrong; never unpickles."""
    dtype, shape, start = _npy_layout(data[: _header_end(data)])
    if shape != (count,) or dtype.kind != "f":
        raise ValueError(f"latent is {dtype} of shape {shape}, not floats of shape ({count},)")
    if len(data) < start + count * dtype.itemsize:
        raise ValueError("latent is cut short")
    with np.errstate(over="ignore"):
        row = np.frombuffer(data, dtype, count, start).astype(np.float32)
    if not (np.abs(row) < LARGEST_NUMBER).all():
        raise ValueError("latent is not finite, or too large")
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
