"""Which samples each batch of each rank holds, as a pure function of (seed, epoch, step, rank); and parts of splits.

The order is the same for every kind of views, so a baked set gives the batches that baking it replaces, and the pieces
of R ranks put together are the batch that one rank would hold.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from seqjepa.data.draws import permutation, windowed
from shards.errors import ConfigError
from shards.reading.sequences import window_span
from shards.reading.split_index import ImageIndex, SplitIndex


@dataclass(frozen=True)
class Sampling:
    """How many views of how many samples make a batch, in which order.

    views       T, views of a sequence; the last is the target
    batch_size  over all `world_size` ranks; the last batch of an epoch is smaller unless drop_last
    seed        with the epoch and a sample's row it fixes every draw: workers, ranks and resuming change nothing
    window      shards among which samples are shuffled; 0, or no fewer than there are: all

    Raises ConfigError for values that cannot work.
    """

    views: int
    batch_size: int
    seed: int
    shuffle: bool = True
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1
    window: int = 0

    def __post_init__(self) -> None:
        if self.views < 1:
            raise ConfigError(f"views is {self.views}; a sequence has at least 1 (2 for one action)")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed is {self.seed}; allowed is 0 ≤ seed < 2^64")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"rank is {self.rank}; with world_size {self.world_size} allowed is 0 ≤ rank < world_size"
            )
        if self.window < 0:
            raise ConfigError(f"window is {self.window}; it is a number of shards, or 0 for all")
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it is the batch over all ranks and must be a positive multiple of "
                f"world_size {self.world_size}"
            )


def steps_per_epoch(samples: int, sampling: Sampling) -> int:
    """Batches in an epoch, the same on every rank. The last one may be short; what R ranks cannot share is left out."""
    full, rest = divmod(samples, sampling.batch_size)
    return full + (rest >= sampling.world_size and not sampling.drop_last)


def piece(samples: int, sampling: Sampling, step: int) -> tuple[int, int]:
    """Start and stop, in the epoch's order, of this rank's contiguous piece of a batch."""
    start = step * sampling.batch_size
    share = min(sampling.batch_size, samples - start) // sampling.world_size
    return start + sampling.rank * share, start + (sampling.rank + 1) * share


class EpochOrder:
    """The order of a split's samples, epoch by epoch, in this rank's pieces of batches.

    homes        int [samples], the shard where each sample begins: what sampling.window is about
    steps        batches per epoch, the same on every rank
    local_batch  samples in this rank's piece of a full batch

    Raises ConfigError where there is not one batch.
    """

    def __init__(self, split: str, samples: int, sampling: Sampling, homes: NDArray[np.integer] | None = None) -> None:
        self.samples, self.sampling = samples, sampling
        self._homes = homes if homes is not None and 0 < sampling.window < len(np.unique(homes)) else None
        if not samples:
            raise ConfigError(f"split {split!r} holds no samples")
        self.steps = steps_per_epoch(samples, sampling)
        if not self.steps:
            raise ConfigError(
                f"split {split!r} has {samples} samples: not one batch of {sampling.batch_size} over "
                f"{sampling.world_size} ranks (drop_last={sampling.drop_last}); use a smaller batch or fewer ranks"
            )
        self.local_batch = self.size(0)
        self._order = lru_cache(maxsize=2)(self._order_of)

    def size(self, step: int) -> int:
        """Samples in this rank's piece of a batch."""
        start, stop = piece(self.samples, self.sampling, step)
        return stop - start

    def rows(self, epoch: int, first: int, last: int) -> NDArray[np.int64]:
        """Rows of the split's index in this rank's pieces of batches first … last − 1, int64."""
        pieces = (piece(self.samples, self.sampling, step) for step in range(first, last))
        order = self._order(epoch)
        return np.concatenate([order[start:stop] for start, stop in pieces])

    def steps_of(self, epoch: int) -> NDArray[np.int64]:
        """int64 [samples]: the batch, over all ranks, that each sample is in; those after the last are in none."""
        steps = np.empty(self.samples, np.int64)
        steps[self._order(epoch)] = np.arange(self.samples) // self.sampling.batch_size
        return steps

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if not self.sampling.shuffle:
            return np.arange(self.samples)
        if self._homes is not None:
            return windowed(self.sampling.seed, epoch, self._homes, self.sampling.window)
        return permutation(self.sampling.seed, epoch, self.samples)


def homes_of(index: SplitIndex | ImageIndex) -> NDArray[np.integer]:
    """int [S]: the shard in which each sample, or the sequence that it is a part of, begins."""
    if isinstance(index, SplitIndex) and index.sequences.joined:
        return index.shard[index.chunk == 0][index.sequences.ids]
    return index.shard


logger = logging.getLogger(__name__)

Index = TypeVar("Index", bound=SplitIndex | ImageIndex)

BY_SAMPLE = {
    SplitIndex: (
        *("shard", "labels", "n_views", "view_ids", "offsets", "lengths", "params"),
        *("rest_offsets", "rest_lengths", "chunk"),
    ),
    ImageIndex: ("shard", "labels", "offsets", "lengths", "sizes"),
}
"""Arrays with a row for each sample."""


def part_of(index: Index, fraction: float, seed: int) -> Index:
    """round(fraction · S) samples of a split (of S sequences, where these take several samples), at least one, in
    stored order; the split itself for fraction 1.

    For runs that fit the machine, and for learning curves over the amount of data. Which samples is a function of the
    seed and the samples' keys alone, so sharding the same data anew changes nothing, and of one seed a smaller part
    lies within every larger one. The fingerprint is a new one.
    """
    if fraction >= 1:
        return index
    of = index.sequences.ids if isinstance(index, SplitIndex) else np.arange(len(index))
    firsts = np.unique(of, return_index=True)[1]  # samples of a sequence stay together, by the key of its first
    order = sorted(range(len(firsts)), key=lambda number: _rank(seed, index.keys[firsts[number]]))
    kept = np.flatnonzero(np.isin(of, order[: max(1, round(fraction * len(firsts)))]))
    return replace(only_samples(index, kept), digest=_digest(f"{index.digest}/{fraction!r}/{seed}"))


def with_windows(index: SplitIndex, span: int) -> SplitIndex:
    """The split without the sequences that have no `span` consecutive steps; itself if there are none.

    ConfigError: there are no others.
    """
    _, windows = index.sequences.windows_of(np.arange(len(index)), span)
    refusal = (
        f"no sequence of split {index.name!r} has {span} consecutive steps; use fewer views (data.context), a "
        "smaller data.stride, or longer sequences"
    )
    return _without_short(index, windows > 0, f"{span} consecutive steps", refusal, f"windows of {span}")


def with_views(index: SplitIndex, views: int) -> SplitIndex:
    """The split without the sequences that have fewer views; itself if there are none, or if it is baked.

    ConfigError: there are no others.
    """
    if index.sequence:
        return index
    enough, needed = index.sequences.counts >= views, f"{views} views"
    refusal = f"no sequence of split {index.name!r} has {views} views; use fewer views (data.context)"
    return _without_short(index, enough, needed, refusal, needed)


def _without_short(
    index: SplitIndex, enough: NDArray[np.bool_], needed: str, refusal: str, fingerprint: str
) -> SplitIndex:
    """enough: bool [S], whether the sequence of each sample has what is `needed`. What is left out is said."""
    if enough.all():
        return index
    if not enough.any():
        raise ConfigError(refusal)
    sequences, short = (len(set(index.sequences.ids[rows].tolist())) for rows in (slice(None), ~enough))
    said = "%d of %d sequences of split %r have fewer than %s and are left out"
    logger.warning(said, short, sequences, index.name, needed)
    return replace(only_samples(index, np.flatnonzero(enough)), digest=_digest(f"{index.digest}/{fingerprint}"))


def long_enough(index: SplitIndex, order: str, views: int, stride: int) -> SplitIndex:
    """The split without the sequences of which no T views can be drawn, in windows or at random, which is said.

    ConfigError: there are no others.
    """
    if order == "window" and index.ordered:
        return with_windows(index, window_span(views, stride))
    return with_views(index, views)


def only_samples(index: Index, kept: NDArray[np.int64]) -> Index:
    """The split with samples `kept` alone, ascending; its digest stays."""
    return replace(
        index,
        keys=[index.keys[sample] for sample in kept],
        meta={name: [values[sample] for sample in kept] for name, values in index.meta.items()},
        **{name: getattr(index, name)[kept] for name in BY_SAMPLE[type(index)]},
    )


def of_few_shards(index: Index, count: int) -> Index:
    """The samples (and whole sequences) that begin in `count` of the split's shards, evenly chosen."""
    homes = homes_of(index)
    shards = np.unique(homes)
    chosen = shards[np.unique(np.linspace(0, len(shards) - 1, count).astype(np.int64))]
    return only_samples(index, np.flatnonzero(np.isin(homes, chosen)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _rank(seed: int, key: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{key}".encode(), digest_size=16).digest()
