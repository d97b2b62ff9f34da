"""What is wrong with a source: every mistake is counted, the first 20 are told, those of each kind in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from shards.errors import FormatError

SHOWN = 20
T = TypeVar("T")


class Mistakes:
    """Lines that each name a row, a sample or a file."""

    def __init__(self) -> None:
        self.count = 0
        self.by_kind: dict[str, list[str]] = {}

    def add(self, line: str, kind: str = "") -> None:
        """kind: what mistakes are of one sort, so that a thousand missing files do not hide the one wrong number."""
        self.count += 1
        told = self.by_kind.setdefault(kind, [])
        if len(told) < SHOWN:
            told.append(line)

    def add_each(self, items: Sequence[T], line: Callable[[T], str], kind: str) -> None:
        """A mistake for each item; lines are made of the first SHOWN alone."""
        for item in items[:SHOWN]:
            self.add(line(item), kind)
        self.count += max(len(items) - SHOWN, 0)

    @property
    def first(self) -> list[str]:
        """At most SHOWN lines: as many of each kind as there is room for, kind by kind."""
        turns = list(zip_longest(*self.by_kind.values()))
        chosen = set(list(filter(None, chain.from_iterable(turns)))[:SHOWN])
        return [line for lines in self.by_kind.values() for line in lines if line in chosen][:SHOWN]

    def raise_any(self, what: str) -> None:
        """FormatError, naming the first of them."""
        if self.count:
            more = f"; and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
            noun = "mistake" if self.count == 1 else "mistakes"
            raise FormatError(f"{what}: {self.count} {noun}: {'; '.join(self.first)}{more}")
