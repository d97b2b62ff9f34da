"""Short clips that PyAV writes: each frame shows its own number, as bits of bright and dark blocks on a soft ground."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from usual_priority import usual_priority

av = __import__("pytest").importorskip("av")
av.logging.set_level(av.logging.PANIC)

BITS, BLOCK = 8, 16
QUIET = {
    "libsvtav1": {"preset": "10", "crf": "1", "svtav1-params": "lp=1"},
    "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"},
    "libx265": {"x265-params": "log-level=none"},
}


def picture(number: int, height: int = 64, width: int = 144) -> np.ndarray:
    """uint8 [height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    ground = np.stack([60 + 80 * x / width, 60 + 80 * y / height, 140 - 60 * x / width], axis=-1)
    pixels = ground.astype(np.uint8)
    for bit in range(BITS):
        value = 235 if number >> bit & 1 else 20
        pixels[8 : 8 + BLOCK, 8 + BLOCK * bit : 8 + BLOCK * (bit + 1)] = value
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Which picture it is, whatever compression did to it."""
    centres = [pixels[8 + BLOCK // 2, 8 + BLOCK * bit + BLOCK // 2].mean() > 128 for bit in range(BITS)]
    return sum(int(bright) << bit for bit, bright in enumerate(centres))


def write_video(
    path: Path,
    frames: int | Iterable[np.ndarray] = 30,
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rate: int = 25,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    colours: dict[str, int] | None = None,
    rotation: float | None = None,
    container: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    **options: Any,
) -> Path:
    """`frames`: how many pictures, or RGB pictures. `times`: of each, in `time_base`. `colours`: attributes of the
    stream (color_range, colorspace …), which the pictures are converted to."""
    pictures = [picture(k) for k in range(frames)] if isinstance(frames, int) else list(frames)
    with usual_priority(), av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.options = {**QUIET.get(codec, {}), **{name.replace("_", "-"): str(v) for name, v in options.items()}}
        for name, value in (colours or {}).items():
            setattr(stream, name, value)
        if aspect is not None:
            stream.sample_aspect_ratio = aspect
        if time_base is not None:
            stream.codec_context.time_base = time_base
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for k, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            if colours:
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace=colours.get("colorspace"),
                    dst_color_range=colours.get("color_range"),
                    interpolation=int(av.video.reformatter.Interpolation.ACCURATE_RND),
                )
            if times is not None:
                frame.pts, frame.time_base = times[k], time_base or Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
