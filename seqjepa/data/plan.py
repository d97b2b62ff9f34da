"""What every batch of stored views holds, as a pure function of (seed, epoch, step, rank): samples, views, byte ranges.

Nothing here knows about workers, so a batch is the same at any worker count and after any resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from seqjepa.data.actions import AUGMENTATION_COLUMNS, AUGMENTATION_PARTS, actions_between, columns
from seqjepa.data.augment.scaling import Scaling, augmentation_actions
from seqjepa.data.decode_worker import ROW
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.data.order import EpochOrder, Sampling
from shards.errors import ConfigError

if TYPE_CHECKING:
    from shards.reader import SplitIndex

# Batches are planned this many samples at a time: the fixed cost of some hundred numpy calls is paid once per block,
# and a trainer whose Python holds the GIL (each numpy call may wait 5 ms for it) delays planning rarely.
_BLOCK_SAMPLES = 32_768


@dataclass(frozen=True)
class BatchPlan:
    """One rank's piece of one batch, B samples of T views.

    samples  int64 [B]                 rows of the split's index
    views    int64 [B, T]              view slots of each sample, distinct: in random order, or a stored sequence
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


def check_views(index: SplitIndex, views: int) -> None:
    """Raises ConfigError where stored sequences cannot give `views` views, or a sample (named) has fewer.

    Of baked augmentations, a shorter sequence would lack the target pipeline's view, which is the last.
    """
    if 0 < index.sequence < views:
        raise ConfigError(
            f"sequences of {views} views were asked for, but split {index.name!r} holds sequences of {index.sequence}; "
            "use fewer views, or bake with more"
        )
    if index.sequence > views and AUGMENTATION_COLUMNS[0] in index.param_names:
        raise ConfigError(
            f"sequences of {views} views were asked for, but split {index.name!r} holds augmented sequences of "
            f"{index.sequence}, whose last view is the target: use {index.sequence} views (data.context = "
            f"{index.sequence - 1}), or bake with --views {views}"
        )
    poorest = int(np.argmin(index.n_views))
    if index.n_views[poorest] < views:
        raise ConfigError(
            f"sequences of {views} views need as many per sample, but {index.keys[poorest]!r} in split {index.name!r} "
            f"has {index.n_views[poorest]}; use fewer views or other shards"
        )


def drawn_views(index: SplitIndex, samples: NDArray[np.int64], views: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Slots int64 [B, T] of samples int64 [B]: drawn for (seed, epoch, sample), or the epoch's stored sequence."""
    if index.sequence:
        run = epoch % (index.offsets.shape[1] // index.sequence)
        return np.tile(run * index.sequence + np.arange(views), (len(samples), 1))
    return choose_distinct(index.n_views[samples], draw_u32(seed, epoch, Purpose.VIEWS, samples, views))


def sequence_actions(
    params: NDArray[np.float32], names: Sequence[str], kind: str, scaling: Scaling | None
) -> NDArray[np.float32]:
    """float32 [B, T, P] → [B, T-1, A]; of baked augmentations by the same code, to the bit, as on the fly.

    scaling  of augmentation parameters, for actions of these; None: by their norm (author)
    """
    if kind not in AUGMENTATION_PARTS:
        return actions_between(params, names, kind)
    nine = torch.from_numpy(params[..., columns(names, AUGMENTATION_COLUMNS)])
    return augmentation_actions(nine, kind, scaling).numpy()


class Planner:
    """Plans batches of one split for one rank. Raises ConfigError where the split cannot give such batches.

    scaling  of augmentation parameters, for actions of these; None: by their norm (author)
    """

    def __init__(self, index: SplitIndex, sampling: Sampling, scaling: Scaling | None = None) -> None:
        self.index, self.sampling, self.scaling = index, sampling, scaling
        self.order = EpochOrder(index.name, len(index.keys), sampling)
        check_views(index, sampling.views)
        self._block_steps = max(1, _BLOCK_SAMPLES // self.order.local_batch)
        self._block = lru_cache(maxsize=2)(self._plan_block)
        self._plan(np.zeros(1, np.int64), 0)  # a missing parameter column shows now, not at the first batch

    def batch(self, epoch: int, step: int) -> BatchPlan:
        """This rank's piece of batch `step` of an epoch."""
        position = step % self._block_steps
        start = position * self.order.local_batch
        return self._block(epoch, step - position).part(start, start + self.order.size(step))

    def _plan_block(self, epoch: int, first: int) -> BatchPlan:
        last = min(first + self._block_steps, self.order.steps)
        return self._plan(self.order.rows(epoch, first, last), epoch)

    def _plan(self, samples: NDArray[np.int64], epoch: int) -> BatchPlan:
        index = self.index
        views = drawn_views(index, samples, self.sampling.views, self.sampling.seed, epoch)
        rows = samples[:, None]
        table = np.empty(views.shape, ROW)
        table["offset"], table["length"] = index.offsets[rows, views], index.lengths[rows, views]
        table["shard"] = index.shard[samples][:, None]
        params = index.params[rows, views].astype(np.float32, copy=False)
        labels = index.labels[samples].astype(np.int64)
        actions = sequence_actions(params, index.param_names, self.sampling.action, self.scaling)
        return BatchPlan(samples, views, table.reshape(-1), actions, params, labels)
