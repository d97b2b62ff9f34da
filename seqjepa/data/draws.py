"""Every random number of the data path, as a pure function of (seed, epoch, purpose, sample, position).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) encrypts a 128-bit counter
with the 64-bit seed. The counter holds what the number is for, so nothing depends on worker, rank, batch or where a
run stopped (docs/fidelity.md #32):

    word 0, 1   sample index, low and high half
    word 2      epoch
    word 3      purpose (8 bits) | block (24 bits); a block is four 32-bit numbers
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from shards.errors import ConfigError

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_LARGEST_POOL = 1024  # items a row that choose_distinct shuffles in a table


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of every run's reproducibility: add, never renumber."""

    SHUFFLE = 1
    VIEWS = 2
    FIXATIONS = 3
    AUGMENT = 4
    PROBE = 5
    DROPOUT = 6
    EVALUATION = 7
    SHARDS = 8


@dataclass(frozen=True)
class Draw:
    """Which draw of sequences of T = `views` views; with a sample's row it fixes every number.

    purpose  draws to probe and to evaluate are others than those of training with the same seed
    """

    views: int
    seed: int
    epoch: int
    purpose: Literal["train", "probe", "evaluation"] = "train"

    def numbers(self, training: Purpose) -> Purpose:
        """The numbers to draw, where those of training are `training`."""
        return {"train": training, "probe": Purpose.PROBE, "evaluation": Purpose.EVALUATION}[self.purpose]


def philox4x32(counter: NDArray[np.uint64], key: tuple[int, int]) -> NDArray[np.uint64]:
    """Ten rounds of Philox: counter uint64 [4, K] → uint64 [4, K], key two numbers; all are 32-bit words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0), (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def draw_u32(seed: int, epoch: int, purpose: Purpose, samples: ArrayLike, n: int) -> NDArray[np.uint32]:
    """n 32-bit numbers for each sample index: samples int [B] → uint32 [B, n]. A longer draw extends a shorter one.

    Raises ConfigError unless 0 ≤ seed < 2⁶⁴ and 0 ≤ epoch < 2³².
    """
    if not 0 <= seed < 2**64:
        raise ConfigError(f"seed is {seed}; allowed is 0 ≤ seed < 2^64")
    if not 0 <= epoch < 2**32:
        raise ConfigError(f"epoch is {epoch}; allowed is 0 ≤ epoch < 2^32")
    index = np.asarray(samples).astype(np.uint64).reshape(-1, 1)
    blocks = np.arange(-(-n // 4), dtype=np.uint64).reshape(1, -1)
    words = (index & _LOW, index >> _SHIFT, np.uint64(epoch), np.uint64(int(purpose) << 24) | blocks)
    counter = np.stack(np.broadcast_arrays(*words)).reshape(4, -1)
    numbers = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32))
    return numbers.T.reshape(len(index), -1)[:, :n].astype(np.uint32)


def uniform(seed: int, epoch: int, purpose: Purpose, samples: ArrayLike, n: int) -> NDArray[np.float64]:
    """n uniform numbers in [0, 1) for each sample index: float64 [B, n], multiples of 2⁻³²."""
    return draw_u32(seed, epoch, purpose, samples, n).astype(np.float64) * 2.0**-32


def _draw_u64(seed: int, epoch: int, purpose: Purpose, n: int) -> NDArray[np.uint64]:
    """One 64-bit number for each of n items: uint64 [n]."""
    halves = draw_u32(seed, epoch, purpose, np.arange(n), 2).astype(np.uint64)
    return halves[:, 0] << _SHIFT | halves[:, 1]


def below(n: ArrayLike, numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
    """32-bit numbers [B] scaled to 0 … n − 1 by multiply and shift, which favours none by more than n / 2³²: [B]."""
    return (numbers.astype(np.uint64) * np.asarray(n, np.uint64) >> _SHIFT).astype(np.int64)


def permutation(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """A uniform order of n samples: int64 [n], the stable argsort of one 64-bit draw per sample."""
    return np.argsort(_draw_u64(seed, epoch, Purpose.SHUFFLE, n), kind="stable")


def windowed(seed: int, epoch: int, homes: ArrayLike, window: int) -> NDArray[np.int64]:
    """An order of n samples that reads few shards at a time: homes int [n], the shard of each → int64 [n].

    Shards follow each other in a uniform order, one every unit of time; a sample of the p-th comes at a uniform time
    in [p, p + window). So the samples between two of a shard are of `window` shards, and fewer at the ends of an epoch.
    """
    shards, number = np.unique(np.asarray(homes), return_inverse=True)
    place = np.empty(len(shards), np.int64)
    place[np.argsort(_draw_u64(seed, epoch, Purpose.SHARDS, len(shards)), kind="stable")] = np.arange(len(shards))
    delay = _draw_u64(seed, epoch, Purpose.SHUFFLE, len(number)) * 2.0**-64 * window
    return np.argsort(place[number] + delay, kind="stable")


def choose_distinct(n_items: ArrayLike, numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
    """T distinct items of n_items[b] for each row, in random order: int [B], uint32 [B, T] → int64 [B, T].

    A Fisher–Yates shuffle cut off after T swaps, on all rows at once; row b needs n_items[b] ≥ T.
    """
    left = np.asarray(n_items, dtype=np.int64)
    B, T = numbers.shape
    if left.max(initial=0) > _LARGEST_POOL:
        return _choose_from_many(left, numbers)
    pool = np.tile(np.arange(left.max(initial=0), dtype=np.int32), (B, 1))
    rows = np.arange(B)
    for t in range(T):
        pick = t + below(left - t, numbers[:, t])
        pool[rows, t], pool[rows, pick] = pool[rows, pick], pool[rows, t]
    return pool[:, :T].astype(np.int64)


def _choose_from_many(left: NDArray[np.int64], numbers: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The same choice without a pool of all items: only the places that swaps have changed are kept, T of them."""
    B, T = numbers.shape
    places, moved, chosen = (np.full((B, T), -1, np.int64) for _ in range(3))

    def item_at(place: NDArray[np.int64], swaps: int) -> NDArray[np.int64]:
        found = place.copy()
        for swap in range(swaps):  # a later swap of the same place counts
            found = np.where(places[:, swap] == place, moved[:, swap], found)
        return found

    for t in range(T):
        pick = t + below(left - t, numbers[:, t])
        chosen[:, t] = item_at(pick, t)
        places[:, t], moved[:, t] = pick, item_at(np.full(B, t), t)
    return chosen
