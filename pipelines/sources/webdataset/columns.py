"""Numbers of a sample that become parameters of its images: from JSON, from .npy members, of the sample or of an image.

All samples of a set have the same columns: those of the first. A list of numbers is a vector, a list of lists a matrix,
row by row; of a sample with several images it has a row for each. Labels are numbers or names, and of which classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import printable
from pipelines.sources.declared_actions import LARGEST_NUMBER
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.split_folders import class_names, refuse_two_spellings
from pipelines.sources.webdataset.samples import TarSample, TarSamples, read_npy
from shards.errors import UsageError
from shards.schema import MAX_PARAMS

ADVICE = "; say which are parameters with --columns"


class SampleColumns:
    """`chosen`: names of fields and arrays that are parameters; empty: all that are numbers but those in `reserved`."""

    def __init__(self, samples: TarSamples, chosen: tuple[str, ...], reserved: Collection[str | None]):
        self.samples, self.chosen, self.reserved = samples, chosen, reserved
        self.sizes: dict[str, int] = {}  # of each column, in their order
        self.first = ""  # the sample that they are of
        self.left_out: dict[str, None] = {}  # its fields that are no numbers, in order

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
            if (np.abs(values) >= LARGEST_NUMBER).any():
                raise ValueError(f"{name} is infinite, or too large; numbers below {LARGEST_NUMBER:g} are allowed")
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
                _add(found, name, _for_each(name, values, count) if several else _one(values))
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
                _add(found, name, _one(read_npy(self.samples.content(sample.tar, member))))
        return found

    def _of_fields(self, fields: Mapping[str, Any], count: int) -> dict[str, np.ndarray]:
        """Numbers, vectors and matrices among JSON fields. `count` > 0: of so many images, a list has one for each."""
        found = {}
        for name, value in fields.items():
            if not self._wanted(name):
                continue
            if (values := _as_numbers(value)) is not None:
                found[name] = _for_each(name, values, count) if count else _one(values)
            elif not self.first:
                self.left_out[name] = None
        return found

    def _wanted(self, name: str) -> bool:
        return name in self.chosen if self.chosen else name not in self.reserved


def _add(found: dict[str, np.ndarray], name: str, values: np.ndarray) -> None:
    if name in found:
        raise ValueError(f"{name} is in its JSON and an array; take one of them out")
    found[name] = values


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
    """[count, size] of a number that all images share, or of a row for each; of one row less, as actions between images
    have, NaN for the last. Rows beyond `count` repeat those of our own sets. ValueError: another number of rows."""
    values = np.asarray(values, np.float64)
    if values.ndim == 0:
        return np.full((count, 1), values)
    if len(values) == count - 1:
        values = np.concatenate([values, np.full((1, *values.shape[1:]), np.nan)])
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} rows for {count} images; a row for each, or one number for all")
    return values.reshape(count, -1)


def _other_columns(sizes: dict[str, int], wanted: dict[str, int]) -> str:
    if more := [name for name in sizes if name not in wanted]:
        return f"a number {', '.join(map(printable, more[:5]))}, which the first sample has not{ADVICE}"
    name = next(name for name in wanted if sizes[name] != wanted[name])
    return f"{printable(name)} has {sizes[name]} numbers, in the first sample {wanted[name]}{ADVICE}"


LARGEST_LABEL = 1_000_000
NO_LABEL = -1

Label = int | str | None


def read_classes(path: Path) -> tuple[str, ...]:
    """Names, one a line, in the order of their numbers. UsageError: unreadable, an empty line, one name twice."""
    try:
        names = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--classes {path} cannot be read ({error}); give a text file, a name a line") from error
    names = [name.strip() for name in names]
    if not names or not all(names):
        raise UsageError(f"--classes {path}: line {names.index('') + 1 if names else 1} is empty; each names a class")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--classes {path}: {printable(twice)} occurs twice")
    return tuple(names)


class Labels:
    """Labels of samples as they come, numbers or names, and then the classes."""

    def __init__(self, field: str | None, classes: tuple[str, ...] | None):
        self.field = field
        self.known = {name: number for number, name in enumerate(classes)} if classes else None

    def of(self, tars: TarSamples, sample: TarSample) -> Label:
        """None: it has none. ValueError: no number or name, or none that --classes has."""
        if self.field is not None:
            value = tars.fields(sample).get(self.field)
        else:
            value = None if sample.cls is None else _number_or_name(tars.content(sample.tar, sample.cls))
        if value is None or value == NO_LABEL:
            return None
        if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
            raise ValueError(f"its label is {value!r:.40}; a number from 0 or a name is one")
        if isinstance(value, int) and not 0 <= value < LARGEST_LABEL:
            raise ValueError(f"its label is {value}; −1 (none) to {LARGEST_LABEL - 1} are allowed")
        if self.known is None:
            return value
        number = self.known.get(value) if isinstance(value, str) else value
        if number is None or number >= len(self.known):
            raise ValueError(f"its label is {value!r:.40}, which is none of the {len(self.known)} of --classes")
        return number

    def classes(self, labels: Iterable[Label], mistakes: Mistakes) -> tuple[str, ...]:
        """Their names: those given; else numbers from 0 to the largest, or class_names. FormatError: two are one."""
        if self.known is not None:
            return tuple(self.known)
        found = {label for label in labels if label is not None}
        names = {label for label in found if isinstance(label, str)}
        if names and len(names) < len(found):
            number = next(label for label in found if isinstance(label, int))
            mistakes.add(f"some labels are numbers ({number}) and some names ({min(names)}); give --classes")
        if names:
            refuse_two_spellings(names)
            return class_names(names)
        return tuple(str(number) for number in range(max((int(label) for label in found), default=-1) + 1))


def _number_or_name(data: bytes) -> int | str:
    try:
        text = data.decode().strip()
    except UnicodeDecodeError as error:
        raise ValueError("its cls is not UTF-8") from error
    return int(text.partition(".")[0]) if re.fullmatch(r"-?[0-9]+(\.0*)?", text) else text  # "3.0": of floats
