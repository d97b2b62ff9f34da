"""A share or a number of items, the same classes in each split: what --val-fraction and --limit mean."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from fractions import Fraction

from pipelines.sources import ImageRecord
from shards.errors import UsageError

RULE = "of each class"  # stands in fingerprints: sets made by an earlier rule are other sets


def check_fraction(fraction: float) -> None:
    """Raises UsageError."""
    if not 0 < fraction < 1:
        raise UsageError(f"--val-fraction {fraction}: a number between 0 and 1 is needed, e.g. 0.2")


def validation_share(names: Sequence[str], classes: Sequence[Hashable], fraction: float) -> list[bool]:
    """Which items are validation: of each class `fraction`, those whose names hash lowest.

    All together are `fraction` of the items, rounded half up: a class gets its share rounded down or up, up where most
    was cut off (among equals, by the hash of the first name). A class of two or more keeps at least one in each split;
    one of one is training. The order of the items does not matter. UsageError: a fraction that is not within 0 and 1.
    """
    check_fraction(fraction)
    ranked: dict[Hashable, list[tuple[bytes, int]]] = {}
    for position, (name, label) in enumerate(zip(names, classes, strict=True)):
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        ranked.setdefault(label, []).append((digest, position))
    groups = sorted(sorted(group) for group in ranked.values())
    chosen = [False] * len(names)
    for group, count in zip(groups, _counts([len(group) for group in groups], fraction), strict=True):
        for _, position in group[:count]:
            chosen[position] = True
    return chosen


def train_or_val(names: Sequence[str], classes: Sequence[Hashable], fraction: float | None) -> list[str]:
    """Split of each item: "val" for `fraction` of each class (validation_share), else "train". None: all "train"."""
    if fraction is None:
        return ["train"] * len(names)
    return ["val" if chosen else "train" for chosen in validation_share(names, classes, fraction)]


def _counts(sizes: Sequence[int], fraction: float) -> list[int]:
    """How many of each group; the groups' order decides among equal remainders."""
    exact = Fraction(str(float(fraction)))  # 0.2 as it was written: 0.2 · 15 is 3, not a little more
    shares = [exact * size for size in sizes]
    counts = [min(max(math.floor(share), 1), size - 1) for share, size in zip(shares, sizes, strict=True)]
    left = math.floor(exact * sum(sizes) + Fraction(1, 2)) - sum(counts)
    by_rest = sorted(range(len(sizes)), key=lambda i: (counts[i] - shares[i], i))
    for i in by_rest[: max(left, 0)]:
        if counts[i] < shares[i] and counts[i] < sizes[i] - 1:
            counts[i] += 1
    return counts


def limited(records: Sequence[ImageRecord], limit: int | None) -> list[ImageRecord]:
    """At most `limit` records of each split, evenly over the same classes, in their order; all of them for None."""
    kept = evenly([record.split for record in records], [record.label for record in records], limit)
    return [record for record, keep in zip(records, kept, strict=True) if keep]


def evenly(splits: Sequence[str | None], labels: Sequence[int], limit: int | None) -> list[bool]:
    """Which items are kept: at most `limit` of each split, evenly over the same classes; None keeps all.

    Classes take turns in the order of their labels, each with its first item, then its second … With fewer than there
    are classes, the first `limit` classes, those that every split has before others. Items of split None are left out.
    """
    if limit is None:
        return [split is not None for split in splits]
    allowed = set(_classes(splits, labels)[:limit])
    turn: Counter[tuple[str, int]] = Counter()
    of_split: dict[str, list[tuple[int, int, int]]] = {}
    for position, (split, label) in enumerate(zip(splits, labels, strict=True)):
        if split is not None and (label in allowed or label < 0):
            of_split.setdefault(split, []).append((turn[split, label], label, position))
            turn[split, label] += 1
    kept = {position for found in of_split.values() for _, _, position in sorted(found)[:limit]}
    return [position in kept for position in range(len(splits))]


def _classes(splits: Sequence[str | None], labels: Sequence[int]) -> list[int]:
    """Labels that are there, those of every labelled split first."""
    spread: dict[int, set[str]] = {}
    for split, label in zip(splits, labels, strict=True):
        if split is not None and label >= 0:
            spread.setdefault(label, set()).add(split)
    return sorted(spread, key=lambda label: (-len(spread[label]), label))
