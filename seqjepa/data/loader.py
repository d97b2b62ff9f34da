"""ViewLoader: random batches of view sequences from a `views` split, exactly repeatable, decoded ahead by processes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from seqjepa.data.actions import AUGMENTATION_PARTS
from seqjepa.data.ahead import DecodedAhead
from seqjepa.data.augment.parameters import Scaling, ScalingMode
from seqjepa.data.decode_worker import RowError, Setup
from seqjepa.data.ring import auto_workers
from seqjepa.data.sampling import Epochs, Sampling
from seqjepa.data.sequence import ViewSequence
from seqjepa.data.views import BatchPlan, Planner
from shards.errors import ConfigError, DamageError, reason_of

if TYPE_CHECKING:
    from shards.reader import SplitIndex


def _own(array: np.ndarray) -> torch.Tensor:
    """A copy that may be changed, made without giving up the GIL (as numpy's and torch's own copies do)."""
    return torch.from_numpy(np.frombuffer(bytearray(array.data), array.dtype).reshape(array.shape))


class ViewLoader(Epochs):
    """Endless epochs of ViewSequences: T distinct views of each, uniformly, in random order (docs/fidelity.md #31).

    Of a baked set, epoch e instead takes the first T views of the e-th stored sequence, in their order, and starts over
    when there are no more; of augmentations all T, as the last is the target.

    index       a split of a `views` shard set
    views       T, views of a sequence; the last is the target
    action      a kind in actions.ACTIONS
    batch_size  over all ranks; the last batch of an epoch is smaller unless drop_last
    seed        with epoch and sample it fixes every draw: workers, ranks and resuming change nothing
    workers     decode processes (None: auto_workers; 0: decode here, when a batch is asked for)
    prefetch    batches queued beyond those that workers are at: a slot of memory each
    pin         page-lock the ring for asynchronous copies; needs CUDA
    normalisation, scaling  for actions of baked augmentations: "zscore" with the set's constants
                (augment.scaling.stored_scaling), or "author", which has none

    The views of a batch lie in a slot of the ring: they are valid until the next batch is asked for. With pin=True,
    non_blocking copies queued on the current stream before then are waited for.

    Raises ConfigError where the split cannot give such batches; while iterating DamageError (names shard and sample)
    and FailureError (a worker died).
    """

    def __init__(
        self,
        index: SplitIndex,
        *,
        views: int,
        action: str,
        batch_size: int,
        seed: int,
        workers: int | None = None,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        pin: bool = False,
        normalisation: ScalingMode = "zscore",
        scaling: Scaling | None = None,
    ) -> None:
        self.sampling = Sampling(views, action, batch_size, seed, shuffle, drop_last, rank, world_size)
        self.index = index
        self.workers = auto_workers(world_size) if workers is None else workers
        own = scaled_by(action, normalisation, scaling)
        planner = Planner(index, self.sampling, scaling if normalisation == "zscore" else None)
        identity = self.sampling.identity() | own | {"fingerprint": index.fingerprint()}
        self._ahead = DecodedAhead(
            planner.batch,
            planner.order.steps,
            partial(_setup, index, planner.order.local_batch * views),
            partial(_damage, index),
            workers=self.workers,
            prefetch=prefetch,
            pinned=pin,
        )
        super().__init__(planner.order.steps, identity)

    def close(self) -> None:
        """End the worker processes. The last batch stays readable; asking for another starts new workers."""
        self._ahead.close()

    def _batch(self, epoch: int, step: int) -> ViewSequence:
        plan, filled = self._ahead.fetch(epoch, step)
        index, B, T = self.index, len(plan.samples), self.sampling.views
        views = filled.regions[0].reshape(B, T, index.height, index.width, 3).transpose(0, 1, 4, 2, 3)
        return ViewSequence(
            torch.from_numpy(views),
            _own(plan.actions),
            _own(plan.params),
            _own(plan.labels),
            [index.keys[sample] for sample in plan.samples.tolist()],
        )


def scaled_by(action: str, normalisation: str, scaling: Scaling | None) -> dict[str, str]:
    """What a position means something only together with. ConfigError: an action without the constants it needs."""
    if action not in AUGMENTATION_PARTS:
        return {}
    if normalisation not in ("zscore", "author"):
        raise ConfigError(f"unknown normalisation {normalisation!r} of actions; there are: zscore, author")
    if normalisation == "zscore" and scaling is None:
        raise ConfigError(
            f"action {action!r} needs the constants that scale augmentation parameters, which sets made by "
            "`seqjepa-data bake --augment` have; use such a set, or another action"
        )
    return {"normalisation": normalisation}


def _setup(index: SplitIndex, rows: int, slots: int) -> Setup:
    return Setup(
        shard_paths=[str(path) for path in index.shard_paths],
        encoding=index.encoding,
        height=index.height,
        width=index.width,
        rows=rows,
        slots=slots,
    )


def _damage(index: SplitIndex, plan: BatchPlan, error: RowError) -> DamageError:
    sample, slot = divmod(error.row, plan.views.shape[1])
    row, view = int(plan.samples[sample]), int(plan.views[sample, slot])
    path = index.shard_paths[int(index.shard[row])]
    return DamageError(
        f"{path}: view {view} of sample {index.keys[row]!r} cannot be decoded ({reason_of(error)}); "
        f"`seqjepa-data verify {path.parent}` finds all that is damaged"
    )
