"""One sample: its views, their parameters, and the tar members that they become."""

from __future__ import annotations

import functools
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from shards.errors import FormatError
from shards.jpeg import jpeg_size
from shards.schema import ViewSpec

KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
META_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
RESERVED = {"views", "view_ids"}


@dataclass(frozen=True)
class ViewSample:
    """n ≤ N views of one object.

    key       letters, digits, _ and -; unique within its split
    views     n encoded views: baseline RGB JPEGs, or for raw sets what `encode_raw` returns
    view_ids  the n numbers that the source gives its views, ascending or not, gaps allowed
    params    float32 [n, P], in the units of ViewSpec.params
    label     rank of the class in DatasetInfo.classes, −1 for none
    meta      a few strings or integers; the same names and types in every sample of a set
    """

    key: str
    views: Sequence[bytes]
    view_ids: Sequence[int]
    params: np.ndarray
    label: int
    meta: dict[str, str | int] = field(default_factory=dict)


def npy_bytes(array: np.ndarray) -> bytes:
    """`array` as the content of an .npy file."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@functools.cache
def raw_header(height: int, width: int) -> bytes:
    """The .npy header of a raw view, the same for every view of a set: H·W·3 bytes of pixels follow it."""
    data = npy_bytes(np.zeros((height, width, 3), np.uint8))
    return data[: len(data) - height * width * 3]


def encode_raw(pixels: np.ndarray) -> bytes:
    """uint8 [H, W, 3] → the bytes of a raw view (.npy)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FormatError(f"a view is uint8 [H, W, 3], found {pixels.dtype} {list(pixels.shape)}")
    return raw_header(*pixels.shape[:2]) + np.ascontiguousarray(pixels).tobytes()


def pad_cyclic(values: Sequence, count: int) -> list:
    """The first `count` of values repeated over and over: [a, b] to 5 is a b a b a."""
    return [values[slot % len(values)] for slot in range(count)]


def members(sample: ViewSample, spec: ViewSpec) -> list[bytes]:
    """The contents of a sample's members, in the order of spec.suffixes(). FormatError if it breaks `spec`.

    A sample with fewer than N views repeats its own cyclically, so that all samples have the same members in
    every reader; the JSON's `views` says how many are distinct.
    """
    check_sample(sample, spec)
    rows = np.asarray(sample.params, np.float32)[pad_cyclic(range(len(sample.views)), spec.views)]
    record = {"views": len(sample.views), "view_ids": [int(v) for v in sample.view_ids], **sample.meta}
    return [
        *pad_cyclic(sample.views, spec.views),
        npy_bytes(rows),
        b"%d" % sample.label,
        json.dumps(record, separators=(",", ":")).encode(),
    ]


def check_sample(sample: ViewSample, spec: ViewSpec) -> None:
    """FormatError, naming the sample, unless it is what `spec` says."""
    problem = _identity_problem(sample) or _views_problem(sample, spec)
    if problem:
        raise FormatError(f"sample {sample.key!r}: {problem}")


def _identity_problem(sample: ViewSample) -> str | None:
    if not KEY.fullmatch(sample.key):
        return "a key is 1 to 80 of A-Z a-z 0-9 _ -"
    for name, value in sample.meta.items():
        if not META_NAME.fullmatch(name) or name in RESERVED:
            return f"meta name {name!r} is not lower-case letters, digits and _ (and not {sorted(RESERVED)})"
        if type(value) not in (str, int):
            return f"meta {name!r} is a {type(value).__name__}, allowed are str and int"
    return None


def _views_problem(sample: ViewSample, spec: ViewSpec) -> str | None:
    count, ids, params = len(sample.views), list(sample.view_ids), np.asarray(sample.params)
    if not 1 <= count <= spec.views:
        return f"{count} views, allowed are 1 to {spec.views}"
    if len(ids) != count or len(set(ids)) != count or not all(0 <= v < 2**31 for v in ids):
        return f"{count} views need {count} different view numbers from 0 up, found {ids[:10]}"
    if params.shape != (count, len(spec.params)) or not np.isfinite(params).all():
        return f"params must be finite, shape [{count}, {len(spec.params)}], found {list(params.shape)}"
    for number, view in zip(ids, sample.views, strict=True):
        if problem := _view_problem(view, spec):
            return f"view {number}: {problem}"
    return None


def _view_problem(view: bytes, spec: ViewSpec) -> str | None:
    if spec.encoding == "raw":
        start = raw_header(spec.height, spec.width)
        whole = len(start) + spec.height * spec.width * 3
        fits = len(view) == whole and view.startswith(start)
        return None if fits else f"not the .npy of uint8 [{spec.height}, {spec.width}, 3]"
    try:
        size = jpeg_size(view)
    except FormatError as error:
        return str(error)
    if size != (spec.height, spec.width):
        return f"{size[0]}×{size[1]} pixels in a set of {spec.height}×{spec.width}"
    return None
