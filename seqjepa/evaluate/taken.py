"""What probes gave: numbers by dotted key, as in results.json ("r2_path.both.3")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from seqjepa.evaluate.intervals import Intervals
from seqjepa.evaluate.measure import Scores

Value = TypeVar("Value")


class Taken(NamedTuple):
    """What is known by the name of a number.

    last        after the last epoch;  best: the best of ten checks on the way;  intervals: of `last`, 95 %
    skipped     why a number is missing, or what was left out of it
    confusions  of top-1: int64 [C, C], true classes by predicted ones, over all validation draws
    """

    last: Scores
    best: Scores
    intervals: Intervals
    skipped: Mapping[str, str] = {}
    confusions: Mapping[str, np.ndarray] = {}

    def named(self, pattern: str) -> Taken:
        """The same under other names: "halves.invariant.{}"."""
        return Taken(
            _renamed(self.last, pattern),
            _renamed(self.best, pattern),
            _renamed(self.intervals, pattern),
            _renamed(self.skipped, pattern),
            _renamed(self.confusions, pattern),
        )

    def joined(self, other: Taken) -> Taken:
        """Both; of a number that both have, the other's."""
        return Taken(
            self.last | other.last,
            self.best | other.best,
            self.intervals | other.intervals,
            {**self.skipped, **other.skipped},
            {**self.confusions, **other.confusions},
        )


def _renamed(numbers: Mapping[str, Value], pattern: str) -> dict[str, Value]:
    return {pattern.format(key): value for key, value in numbers.items()}


NOTHING = Taken({}, {}, {})


def nested(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """{"r2_path.both.3": x} → {"r2_path": {"both": {"3": x}}}."""
    levels: dict[str, Any] = {}
    for key, value in numbers.items():
        *outer, last = key.split(".")
        inner = levels
        for level in outer:
            inner = inner.setdefault(level, {})
        inner[last] = value
    return levels
