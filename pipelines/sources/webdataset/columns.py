"""Numbers of a sample that become parameters of its images: from JSON, from .npy members, of the sample or of an image.

All samples of a set have the same columns: those of the first. A list of numbers is a vector, a list of lists a matrix,
row by row; of a sample with several images it has a row for each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from pipelines.archives import printable
from pipelines.sources.webdataset.samples import TarSample, TarSamples, read_npy
from shards.errors import UsageError
from shards.schema import MAX_PARAMS

ADVICE = "; say which are parameters with --columns"
FLOAT32 = float(np.finfo(np.float32).max)


class SampleColumns:
    """`chosen`: names of fields and arrays that are parameters; empty: all that are numbers but those in `reserved`."""

    def __init__(self, samples: TarSamples, chosen: tuple[str, ...], reserved: Collection[str | None]):
        self.samples, self.chosen, self.reserved = samples, chosen, reserved
        self.sizes: dict[str, int] = {}  # of each column, in their order
        self.first = ""  # the sample that they are of

    @property
    def names(self) -> list[str]:
        """ "yaw", "pose.0", "pose.1" …"""
        found = []
        for name, size in self.sizes.items():
            found += [name] if size == 1 else [f"{name}.{i}" for i in range(size)]
        return found

    def rows(self, sample: TarSample, fields: dict[str, Any], count: int, ours: bool) -> list[list[float]]:
        """Rows of its images; NaN for what is missing, null or NaN. ValueError: columns that are not those of the first
        sample, infinite numbers."""
        found = self._numbers(sample, fields, count, ours)
        if not self.first:
            self._begin(self.samples.where(sample.tar, sample.key), found)
        for name in self.sizes:
            found.setdefault(name, np.full((count, self.sizes[name]), np.nan))
        sizes = {name: values.shape[1] for name, values in found.items()}
        if sizes != self.sizes:
            raise ValueError(_other_columns(sizes, self.sizes))
        for name, values in found.items():
            if (np.abs(values) > FLOAT32).any():
                raise ValueError(f"{name} is infinite, or too large")
        if not sizes:
            return [[] for _ in range(count)]
        return np.concatenate([found[name] for name in self.sizes], axis=1).tolist()

    def _begin(self, where: str, found: dict[str, np.ndarray]) -> None:
        """The first sample says what the columns are. ValueError: not all that are wanted; UsageError: too many."""
        if missing := [name for name in self.chosen if name not in found]:
            raise ValueError(f"no numbers called {', '.join(missing)}")
        self.sizes = {name: found[name].shape[1] for name in self.chosen or found}
        if (total := sum(self.sizes.values())) > MAX_PARAMS:
            raise UsageError(
                f"{where} has {total} numbers, at most {MAX_PARAMS} are parameters; say which with --columns"
            )
        self.first = where

    def _numbers(self, sample: TarSample, fields: dict[str, Any], count: int, ours: bool) -> dict[str, np.ndarray]:
        """Each column's values, float64 [count, size]."""
        several = sample.views[0].number is not None
        found = self._of_fields(fields, count if several else 0)
        for (number, name), member in sample.arrays.items():
            if number is None and self._wanted(name):
                values = read_npy(self.samples.content(sample.tar, member))
                values = values[:count] if ours and values.ndim else values
                found[name] = _for_each(name, values, count) if several else _one(values)
        for i, view in enumerate(sample.views[:count] if several else []):
            for name, values in self._of_view(sample, view.number).items():
                rows = found.setdefault(name, np.full((count, values.shape[1]), np.nan))
                if rows.shape[1] != values.shape[1]:
                    raise ValueError(f"{name} has {values.shape[1]} numbers for one image, {rows.shape[1]} for another")
                rows[i] = values
        return found

    def _of_view(self, sample: TarSample, number: int | None) -> dict[str, np.ndarray]:
        """Of one image among several: "03.json" and "03.pose.npy"."""
        found = self._of_fields(self.samples.fields(sample, number), 0)
        for (of, name), member in sample.arrays.items():
            if of == number and self._wanted(name):
                found[name] = _one(read_npy(self.samples.content(sample.tar, member)))
        return found

    def _of_fields(self, fields: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """Numbers, vectors and matrices among JSON fields. `count` > 0: of so many images, a list has one for each."""
        found = {}
        for name, value in fields.items():
            if self._wanted(name) and (values := _as_numbers(value)) is not None:
                found[name] = _for_each(name, values, count) if count else _one(values)
        return found

    def _wanted(self, name: str) -> bool:
        return name in self.chosen if self.chosen else name not in self.reserved


def _as_numbers(value: Any) -> np.ndarray | None:
    """float64 of a number, or of a list (of lists …) of numbers; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | list) or value == []:
        return None
    try:
        values = np.asarray(value)
        if values.dtype.kind == "O":  # null among numbers
            values = np.asarray(value, np.float64)
    except (ValueError, TypeError, OverflowError):  # lists of different lengths, other things
        return None
    return values.astype(np.float64) if values.dtype.kind in "iuf" else None


def _one(values: np.ndarray) -> np.ndarray:
    """[1, size]"""
    return np.asarray(values, np.float64).reshape(1, -1)


def _for_each(name: str, values: np.ndarray, count: int) -> np.ndarray:
    """[count, size] of a number that all images share, or of a row for each. Rows beyond `count` repeat those of our
    own sets. ValueError: another number of rows."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        return np.full((count, 1), values)
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} rows for {count} images; a row for each, or one number for all")
    return values.reshape(count, -1)


def _other_columns(sizes: dict[str, int], wanted: dict[str, int]) -> str:
    if more := [name for name in sizes if name not in wanted]:
        return f"a number {', '.join(map(printable, more[:5]))}, which the first sample has not{ADVICE}"
    name = next(name for name in wanted if sizes[name] != wanted[name])
    return f"{printable(name)} has {sizes[name]} numbers, in the first sample {wanted[name]}{ADVICE}"
