"""A part of a split: for runs at a scale that fits the machine, and for learning curves over the amount of data."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TypeVar

import numpy as np

from shards.split_index import ImageIndex, SplitIndex

Index = TypeVar("Index", bound=SplitIndex | ImageIndex)

BY_SAMPLE = {
    SplitIndex: (
        *("shard", "labels", "n_views", "view_ids", "offsets", "lengths", "params"),
        *("rest_offsets", "rest_lengths"),
    ),
    ImageIndex: ("shard", "labels", "offsets", "lengths", "sizes"),
}
"""Arrays with a row for each sample."""


def part_of(index: Index, fraction: float, seed: int) -> Index:
    """round(fraction · S) samples of a split, at least one, in stored order; the split itself for fraction 1.

    Which ones is a function of the seed and the samples' keys alone, so sharding the same data anew changes nothing,
    and of one seed a smaller part lies within every larger one. The fingerprint is a new one.
    """
    if fraction >= 1:
        return index
    order = sorted(range(len(index)), key=lambda sample: _rank(seed, index.keys[sample]))
    kept = np.sort(np.array(order[: max(1, round(fraction * len(index)))]))
    return replace(
        index,
        keys=[index.keys[sample] for sample in kept],
        meta={name: [values[sample] for sample in kept] for name, values in index.meta.items()},
        digest=hashlib.sha256(f"{index.digest}/{fraction!r}/{seed}".encode()).hexdigest(),
        **{name: getattr(index, name)[kept] for name in BY_SAMPLE[type(index)]},
    )


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()
