"""A saliency map on disk: the probability p of each pixel, in half precision or as an 8-bit logarithm.

    float16  one .npy, float16 [H, W]: p·H·W (mean 1; p itself would be partly subnormal)
    log8     an .npy, uint8 [H, W]: level l; an .npy, float32 [2]: the least and greatest log(p·H·W), low and high;
             the value is exp(low + l/255 · (high − low))

A positive probability stays positive in both; log8 raises everything below 1e-6 of the mean, zeros too, to that.
Maps of 96 × 96: KL from the original 2e-8 nats (float16), 1e-5 to 4e-5 (log8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shards.errors import FormatError
from shards.pixels import npy_bytes, npy_header, npy_shape
from shards.schema import MAP_SUFFIXES, MAX_SIDE, MapStorage

DTYPE: dict[str, str] = {"float16": "<f2", "log8": "|u1"}
HEADER = 128  # bytes before the values of every map: numpy pads to 64, and no shape that is allowed needs more
RANGE_HEADER = npy_header((2,), "<f4")
RANGE_LENGTH = len(RANGE_HEADER) + 8
LEAST = 1e-6  # of the mean: all that log8 adds to a map's mass is less than this share of it
_MAX_HALF, _MIN_HALF = 65504.0, 2.0**-24


def encode_map(p: np.ndarray, storage: MapStorage) -> tuple[bytes, ...]:
    """The members of a map: one for float16, two for log8.

    p: floats [H, W], up to a factor a probability for each pixel; it is normalised in float64 first.
    FormatError: "a map with …" NaN, infinity, a negative value or no mass, or not two axes of 1 to MAX_SIDE.
    """
    relative = _relative(np.asarray(p))
    if storage == "float16":
        # A map of more than 65504 pixels may peak above what half precision holds: reading renormalises anyway.
        scaled = relative * min(1.0, _MAX_HALF / relative.max())
        return (npy_bytes(np.where(relative > 0, np.maximum(scaled, _MIN_HALF), 0.0).astype("<f2")),)
    logs = np.log(np.maximum(relative, LEAST))
    limits = np.array([logs.min(), logs.max()], "<f4")
    span = logs.max() - logs.min() or 1.0
    return npy_bytes(np.rint((logs - logs.min()) / span * 255).astype(np.uint8)), npy_bytes(limits)


def decode_map(parts: Sequence[bytes], storage: MapStorage) -> np.ndarray:
    """float32 [H, W] that sums to 1, renormalised in float32. Headers are checked before anything is allocated.

    FormatError: not the members of one map in `storage`, or "a map with …" NaN, a negative value or no mass.
    """
    shape = map_shape(parts, storage)
    stored = np.frombuffer(parts[0], DTYPE[storage], offset=HEADER).reshape(shape)
    values = stored.astype(np.float32) if storage == "float16" else _levels(stored, parts[1])
    _refuse_no_density(values)
    return values / values.sum()


def map_shape(parts: Sequence[bytes], storage: MapStorage) -> tuple[int, int]:
    """(H, W) of a stored map, from headers and lengths alone. FormatError: these are not the members of one."""
    shape = npy_shape(parts[0], DTYPE[storage], MAX_SIDE) if len(parts) == len(MAP_SUFFIXES[storage]) else None
    whole_range = all(len(part) == RANGE_LENGTH and part.startswith(RANGE_HEADER) for part in parts[1:])
    if shape is None or not whole_range:
        raise FormatError(f"not the .npy of a {storage} map of at most {MAX_SIDE}×{MAX_SIDE}")
    return shape


def map_lengths(pixels: np.ndarray, storage: str) -> np.ndarray:
    """Bytes of each member of maps of that many pixels: int64 [S] → int64 [S, 0, 1 or 2]."""
    lengths = np.full((len(pixels), len(MAP_SUFFIXES[storage])), RANGE_LENGTH, np.int64)
    if storage != "none":
        lengths[:, 0] = HEADER + pixels.astype(np.int64) * np.dtype(DTYPE[storage]).itemsize
    return lengths


def map_headers(height: int, width: int, storage: str) -> list[bytes]:
    """What the data of each member of a map begins with: its .npy header. [] for "none"."""
    values = [npy_header((height, width), DTYPE[storage])] if storage != "none" else []
    return [*values, RANGE_HEADER][: len(MAP_SUFFIXES[storage])]


def map_problem(parts: Sequence[bytes], storage: MapStorage, height: int, width: int) -> str | None:
    """Why these members are not a map of an image of H × W, values and all; None if they are."""
    try:
        if (found := map_shape(parts, storage)) != (height, width):
            return f"a map of another size than its image: {found[0]}×{found[1]}, the image is {height}×{width}"
        decode_map(parts, storage)
    except FormatError as error:
        return str(error)
    return None


def _relative(p: np.ndarray) -> np.ndarray:
    """float64 [H, W]: p over its mean."""
    if p.ndim != 2 or not all(1 <= side <= MAX_SIDE for side in p.shape) or p.dtype.kind not in "fiu":
        raise FormatError(f"a map is numbers [H, W], sides up to {MAX_SIDE}, found {p.dtype} {list(p.shape)}")
    values = p.astype(np.float64)
    _refuse_no_density(values)
    values /= values.max()
    return values / values.mean()


def _refuse_no_density(values: np.ndarray) -> None:
    low, high = values.min(), values.max()  # NaN if there is any
    if not np.isfinite(low) or not np.isfinite(high):
        raise FormatError("a map with NaN or infinite values")
    if low < 0:
        raise FormatError(f"a map with negative values (the least is {low:.3g})")
    if high == 0:
        raise FormatError("a map with zero mass")


def _levels(levels: np.ndarray, range_member: bytes) -> np.ndarray:
    low, high = np.frombuffer(range_member, "<f4", offset=len(RANGE_HEADER)).astype(np.float64)
    if not (np.isfinite(low) and low <= high < np.inf):
        raise FormatError(f"a map with an impossible range of logarithms, {low} to {high}")
    # Relative to the peak, so that no range overflows.
    return np.exp(np.arange(-255, 1) / 255 * (high - low)).astype(np.float32)[levels]


STORED_AS = {"float16": "in half precision", "log8": "as an 8-bit logarithm"}
_VALUE = {
    "float16": "probability of each pixel, times H·W; divide by the sum",
    "log8": "level l of the log of probability times H·W: low + l/255·(high − low); exponentiate, divide by the sum",
}
_NAME = {"<f2": "float16", "|u1": "uint8"}


def map_records(storage: str, shape: list[Any]) -> list[dict[str, Any]]:
    """The entries of dataset.json for a map's members; [] for "none"."""
    names = [f"KEY{suffix}" for suffix in MAP_SUFFIXES[storage]]
    if not names:
        return []
    values = {"dtype": _NAME[DTYPE[storage]], "shape": shape, "axes": ["row", "col"], "meaning": _VALUE[storage]}
    limits = {"dtype": "float32", "shape": [2], "meaning": "low and high"}
    return [{"name": name, **entry} for name, entry in zip(names, (values, limits), strict=False)]


def card_lines(storage: str, shape: str) -> list[str]:
    """The lines of the data card for a map's members; [] for "none"."""
    names = [f"`KEY{suffix}`" for suffix in MAP_SUFFIXES[storage]]
    if not names:
        return []
    lines = [f"saliency, {_NAME[DTYPE[storage]]} [{shape}], (row, col): {_VALUE[storage]}", "low and high, float32 [2]"]
    return [f"* {name}: {line}" for name, line in zip(names, lines, strict=False)]
