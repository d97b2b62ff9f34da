"""What every batch holds, as a pure function of (seed, epoch, step, rank): samples, views, and where their bytes are.

Nothing here knows about workers, so a batch is the same at any worker count and after any resume, and the pieces that
R ranks hold put together are the batch that one rank would hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seqjepa.data.actions import action_size, actions_between
from seqjepa.data.decode_worker import ROW
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32, permutation
from shards.errors import ConfigError

if TYPE_CHECKING:
    from shards.reader import SplitIndex

# Batches are planned this many samples at a time: the fixed cost of some hundred numpy calls is paid once per block,
# and a trainer whose Python holds the GIL (each numpy call may wait 5 ms for it) delays planning rarely.
_BLOCK_SAMPLES = 32_768


@dataclass(frozen=True)
class Sampling:
    """Everything besides the shards that decides what a batch holds.

    batch_size is global: over all `world_size` ranks. Raises ConfigError for values that cannot work.
    """

    views: int
    action: str
    batch_size: int
    seed: int
    shuffle: bool = True
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        action_size(self.action)
        if self.views < 1:
            raise ConfigError(f"views is {self.views}; a sequence has at least 1 (2 for one action)")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed is {self.seed}; allowed is 0 ≤ seed < 2^64")
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(
                f"rank is {self.rank}; with world_size {self.world_size} allowed is 0 ≤ rank < world_size"
            )
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise ConfigError(
                f"batch_size is {self.batch_size}; it is the batch over all ranks and must be a positive multiple of "
                f"world_size {self.world_size}"
            )


@dataclass(frozen=True)
class BatchPlan:
    """One rank's piece of one batch, B samples of T views.

    samples  int64 [B]                 rows of the split's index
    views    int64 [B, T]              view slots of each sample, distinct, in random order
    table    ROW [B·T]                 where the bytes of each view are
    actions  float32 [B, T-1, A]       params float32 [B, T, P]       labels int64 [B]
    """

    samples: NDArray[np.int64]
    views: NDArray[np.int64]
    table: np.ndarray
    actions: NDArray[np.float32]
    params: NDArray[np.float32]
    labels: NDArray[np.int64]

    def part(self, start: int, stop: int) -> BatchPlan:
        """Samples start … stop of this plan, without copying."""
        T = self.views.shape[1]
        rows = self.table[start * T : stop * T]
        s = slice(start, stop)
        return BatchPlan(self.samples[s], self.views[s], rows, self.actions[s], self.params[s], self.labels[s])


def steps_per_epoch(samples: int, sampling: Sampling) -> int:
    """Batches in an epoch, the same on every rank. The last one may be short; what R ranks cannot share is left out."""
    full, rest = divmod(samples, sampling.batch_size)
    return full + (rest >= sampling.world_size and not sampling.drop_last)


def piece(samples: int, sampling: Sampling, step: int) -> tuple[int, int]:
    """Start and stop, in the epoch's order, of this rank's contiguous piece of a batch."""
    start = step * sampling.batch_size
    share = min(sampling.batch_size, samples - start) // sampling.world_size
    return start + sampling.rank * share, start + (sampling.rank + 1) * share


def check_views(index: SplitIndex, views: int) -> None:
    """Raises ConfigError naming a sample that has fewer than `views` distinct views."""
    poorest = int(np.argmin(index.n_views))
    if index.n_views[poorest] < views:
        raise ConfigError(
            f"sequences of {views} views need as many per sample, but {index.keys[poorest]!r} in split {index.name!r} "
            f"has {index.n_views[poorest]}; use fewer views or other shards"
        )


def fixed_views(index: SplitIndex, views: int, seed: int, repetition: int = 0) -> NDArray[np.int64]:
    """View slots for evaluation, int64 [S, views]: distinct, in random order, the same for every method and epoch.

    repetition: another, independent draw. Raises ConfigError where a sample has too few views.
    """
    check_views(index, views)
    numbers = draw_u32(seed, repetition, Purpose.EVALUATION, np.arange(len(index.keys)), views)
    return choose_distinct(index.n_views, numbers)


class Planner:
    """Plans batches of one split for one rank. Raises ConfigError where the split cannot give such batches."""

    def __init__(self, index: SplitIndex, sampling: Sampling) -> None:
        self.index, self.sampling = index, sampling
        self.samples = len(index.keys)
        if not self.samples:
            raise ConfigError(f"split {index.name!r} holds no samples")
        check_views(index, sampling.views)
        self.steps = steps_per_epoch(self.samples, sampling)
        if not self.steps:
            raise ConfigError(
                f"split {index.name!r} has {self.samples} samples: not one batch of {sampling.batch_size} over "
                f"{sampling.world_size} ranks (drop_last={sampling.drop_last}); use a smaller batch or fewer ranks"
            )
        self.local_batch = self._size(0)
        self._block_steps = max(1, _BLOCK_SAMPLES // self.local_batch)
        self._order = lru_cache(maxsize=2)(self._order_of)
        self._block = lru_cache(maxsize=2)(self._plan_block)
        self._plan(np.zeros(1, np.int64), 0)  # a missing parameter column shows now, not at the first batch

    def batch(self, epoch: int, step: int) -> BatchPlan:
        """This rank's piece of batch `step` of an epoch."""
        position = step % self._block_steps
        start = position * self.local_batch
        return self._block(epoch, step - position).part(start, start + self._size(step))

    def _size(self, step: int) -> int:
        start, stop = piece(self.samples, self.sampling, step)
        return stop - start

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if not self.sampling.shuffle:
            return np.arange(self.samples)
        return permutation(self.sampling.seed, epoch, self.samples)

    def _plan_block(self, epoch: int, first: int) -> BatchPlan:
        last = min(first + self._block_steps, self.steps)
        pieces = (piece(self.samples, self.sampling, step) for step in range(first, last))
        order = self._order(epoch)
        return self._plan(np.concatenate([order[start:stop] for start, stop in pieces]), epoch)

    def _plan(self, samples: NDArray[np.int64], epoch: int) -> BatchPlan:
        index, sampling = self.index, self.sampling
        numbers = draw_u32(sampling.seed, epoch, Purpose.VIEWS, samples, sampling.views)
        views = choose_distinct(index.n_views[samples], numbers)
        rows = samples[:, None]
        table = np.empty(views.shape, ROW)
        table["offset"], table["length"] = index.offsets[rows, views], index.lengths[rows, views]
        table["shard"] = index.shard[samples][:, None]
        params = index.params[rows, views].astype(np.float32, copy=False)
        actions = actions_between(params, index.param_names, sampling.action)
        return BatchPlan(samples, views, table.reshape(-1), actions, params, index.labels[samples].astype(np.int64))
