"""One stored feature vector, an .npy of float16 or float32 [D], and what a set says about its vectors."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from shards.errors import FormatError
from shards.json_fields import digest, number, of_channels, one_of, take
from shards.pixels import npy_header
from shards.schema import MAX_FEATURES, FeatureSpec

DTYPES = {"float16": "<f2", "float32": "<f4"}
MAX_SETTINGS = 32
_SETTING = re.compile(r"[a-z][a-z0-9_]{0,31}")


def vector_header(spec: FeatureSpec) -> bytes:
    """The .npy header of a vector, the same for every one of a set: D numbers follow it."""
    return npy_header((spec.size,), DTYPES[spec.dtype])


def vector_length(spec: FeatureSpec) -> int:
    """Bytes of a stored vector, header and all."""
    return len(vector_header(spec)) + spec.size * np.dtype(DTYPES[spec.dtype]).itemsize


def encode_vectors(vectors: np.ndarray, spec: FeatureSpec) -> list[bytes]:
    """float [n, D] → what is stored of each. FormatError: another width, or numbers that `spec.dtype` cannot hold."""
    if vectors.ndim != 2 or vectors.shape[1] != spec.size:
        raise FormatError(f"vectors are [n, {spec.size}], found {list(vectors.shape)}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(vectors, DTYPES[spec.dtype])
    if not np.isfinite(values).all():
        largest = float(np.abs(vectors[np.isfinite(vectors)]).max(initial=0))
        raise FormatError(f"features are not finite in {spec.dtype} (the largest number is {largest:g}); use float32")
    header = vector_header(spec)
    return [header + row.tobytes() for row in values]


def vector_problem(data: bytes, spec: FeatureSpec) -> str | None:
    """Why `data` is not a vector of the set; None if it is."""
    if len(data) != vector_length(spec) or not data.startswith(vector_header(spec)):
        return f"not the .npy of {spec.dtype} [{spec.size}]"
    return None if np.isfinite(_values(data, spec)).all() else "features that are not finite"


def decode_vector(data: bytes, spec: FeatureSpec) -> np.ndarray:
    """float32 [D]. FormatError: anything but a whole vector of finite numbers."""
    if problem := vector_problem(data, spec):
        raise FormatError(problem)
    return _values(data, spec).astype(np.float32)


def _values(data: bytes, spec: FeatureSpec) -> np.ndarray:
    return np.frombuffer(data, DTYPES[spec.dtype], offset=len(vector_header(spec)))


def features_from_json(record: dict[str, Any]) -> FeatureSpec:
    """The inverse of dataclasses.asdict. FormatError: a field that is missing or out of bounds."""
    if unknown := set(record) - set(FeatureSpec.__dataclass_fields__):
        raise FormatError(f"features have no {', '.join(sorted(unknown))!r:.60}")
    return FeatureSpec(
        size=number(record, "size", 1, MAX_FEATURES),
        dtype=one_of(record, "dtype", tuple(DTYPES)),
        encoder=_encoder(take(record, "encoder", dict)),
        mean=tuple(of_channels(record, "mean", 0.0, "features")),
        std=tuple(of_channels(record, "std", 1e-6, "features")),
        weights_sha256=digest(record, "weights_sha256"),
        file_sha256=digest(record, "file_sha256"),
    )


def _encoder(settings: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """Names as of a run's [model], values that TOML and JSON have in common."""
    if len(settings) > MAX_SETTINGS or not all(_SETTING.fullmatch(name) for name in settings):
        raise FormatError(f"features.encoder must have at most {MAX_SETTINGS} names, found {list(settings)!r:.80}")
    for name, value in settings.items():
        text = isinstance(value, str) and len(value) <= 200 and value.isprintable()
        if not text and not (isinstance(value, bool | int | float) and math.isfinite(value)):
            raise FormatError(f"features.encoder.{name} must be a short text or a number, found {value!r:.60}")
    if not isinstance(settings.get("backbone"), str):
        raise FormatError("features.encoder has no backbone")
    return dict(settings)
