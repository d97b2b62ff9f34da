"""ViewLoader: random batches of view sequences from a `views` split, exactly repeatable, decoded ahead by processes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqjepa.data.decode_worker import RowError, Setup
from seqjepa.data.pinning import Retirement, pin, require_cuda
from seqjepa.data.plan import BatchPlan, Planner, Sampling
from seqjepa.data.ring import Filled, InlineRing, Ring, WorkerRing
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError, DamageError

if TYPE_CHECKING:
    from shards.reader import SplitIndex

_MOST_AUTO_WORKERS = 16  # a slot holds a whole batch, and each worker has one at hand


def auto_workers(world_size: int = 1) -> int:
    """Decode processes for one rank: two per CPU core that we may use, shared by the ranks of this machine; at least 1.

    Two, because the scheduler shares cores between processes that want them: beside a trainer that keeps one of two
    cores busy, one process per core keeps 2/3 of its rate and two keep 4/5. Alone, both are as fast.
    """
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_AUTO_WORKERS, 2 * cores // max(1, ranks_here)))


def _own(array: np.ndarray) -> torch.Tensor:
    """A copy that may be changed, made without giving up the GIL (as numpy's and torch's own copies do)."""
    return torch.from_numpy(np.frombuffer(bytearray(array.data), array.dtype).reshape(array.shape))


class ViewLoader:
    """Endless epochs of ViewSequences: T distinct views of each sample, uniformly, in random order (SPEC A.11 #31).

    index       a split of a `views` shard set
    views       T, views of a sequence; the last is the target
    action      a kind in actions.ACTIONS
    batch_size  over all ranks; the last batch of an epoch is smaller unless drop_last
    seed        with epoch and sample it fixes every draw: workers, ranks and resuming change nothing
    workers     decode processes (None: auto_workers; 0: decode here, when a batch is asked for)
    prefetch    batches queued beyond those that workers are at: a slot of memory each
    pin         page-lock the ring for asynchronous copies; needs CUDA

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
    ) -> None:
        self.sampling = Sampling(views, action, batch_size, seed, shuffle, drop_last, rank, world_size)
        self.index = index
        self.workers = auto_workers(world_size) if workers is None else workers
        if self.workers < 0 or prefetch < 1:
            raise ConfigError(f"workers is {workers}, prefetch is {prefetch}; allowed is workers ≥ 0 and prefetch ≥ 1")
        if pin:
            require_cuda()
        self._planner = Planner(index, self.sampling)
        self._prefetch, self._pin = prefetch, pin
        self._retirement = Retirement(asynchronous=pin)
        self._ring: Ring | None = None
        self._queue: deque[tuple[int, int, BatchPlan]] = deque()  # put into the ring and not yet taken
        self._held: int | None = None  # slot of the batch that was yielded last
        self._epoch, self._step = 0, 0  # of the next batch

    def __len__(self) -> int:
        """Batches per epoch, the same on every rank."""
        return self._planner.steps

    def __iter__(self) -> Iterator[ViewSequence]:
        """The rest of the current epoch; the next call gives the next epoch."""
        return self.epoch(self._epoch, self._step)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[ViewSequence]:
        """The batches of an epoch from start_step on."""
        self._check_step(start_step)
        for step in range(start_step, len(self)):
            batch = self._fetch(epoch, step)
            self._epoch, self._step = self._after(epoch, step)
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Position of the next batch, and what has to be equal for it to mean the same. Plain numbers and strings."""
        return {"epoch": self._epoch, "step": self._step} | self._identity()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position. Raises ConfigError saying what differs from the run that saved it."""
        differences = [
            f"{name} was {state.get(name)!r} and is {value!r}"
            for name, value in self._identity().items()
            if state.get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"cannot resume the data order: {'; '.join(differences)}; use the same settings and shards"
            )
        self._check_step(state["step"])
        self._epoch, self._step = state["epoch"], state["step"]

    def close(self) -> None:
        """End the worker processes. The last batch stays readable; asking for another starts new workers."""
        if self._ring is not None:
            self._ring.close()
        self._ring, self._held = None, None
        self._queue.clear()
        self._retirement = Retirement(asynchronous=self._pin)

    def __enter__(self) -> ViewLoader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identity(self) -> dict[str, Any]:
        sampling = self.sampling
        names = ("seed", "views", "action", "batch_size", "shuffle", "drop_last")
        return {name: getattr(sampling, name) for name in names} | {"fingerprint": self.index.fingerprint()}

    def _check_step(self, step: int) -> None:
        if not 0 <= step <= len(self):
            raise ConfigError(f"step is {step}; an epoch has {len(self)} steps")

    def _after(self, epoch: int, step: int) -> tuple[int, int]:
        return (epoch, step + 1) if step + 1 < len(self) else (epoch + 1, 0)

    def _fetch(self, epoch: int, step: int) -> ViewSequence:
        try:
            return self._advance(epoch, step)
        except DamageError:
            raise
        except BaseException:
            self.close()  # interrupted or dead: what we think is queued may no longer be what the workers hold
            raise

    def _advance(self, epoch: int, step: int) -> ViewSequence:
        ring = self._ring = self._ring or self._open_ring()
        if self._held is not None:
            for slot in self._retirement.retire(self._held):
                ring.free(slot)
            self._held = None
        if self._queue and self._queue[0][:2] != (epoch, step):
            self._discard(ring)
        self._fill(ring, epoch, step)
        *_, plan = self._queue.popleft()
        filled = self._take(ring, plan)
        self._held = filled.slot
        return self._sequence(plan, filled)

    def _fill(self, ring: Ring, epoch: int, step: int) -> None:
        """Keep every worker supplied, beyond the end of the epoch too."""
        following = self._after(*self._queue[-1][:2]) if self._queue else (epoch, step)
        while ring.has_room():
            plan = self._planner.batch(*following)
            ring.put(plan.table)
            self._queue.append((*following, plan))
            following = self._after(*following)

    def _discard(self, ring: Ring) -> None:
        """The caller jumped to another position: what was decoded ahead is of no use."""
        while self._queue:
            *_, plan = self._queue.popleft()
            try:
                ring.free(self._take(ring, plan).slot)
            except DamageError:
                continue

    def _take(self, ring: Ring, plan: BatchPlan) -> Filled:
        try:
            return ring.take()
        except RowError as error:
            sample, slot = divmod(error.row, self.sampling.views)
            row, view = int(plan.samples[sample]), int(plan.views[sample, slot])
            path = self.index.shard_paths[int(self.index.shard[row])]
            raise DamageError(
                f"{path}: view {view} of sample {self.index.keys[row]!r} cannot be decoded ({error}); "
                f"`seqjepa-data verify {path.parent}` finds all that is damaged"
            ) from error

    def _sequence(self, plan: BatchPlan, filled: Filled) -> ViewSequence:
        index, B, T = self.index, len(plan.samples), self.sampling.views
        views = filled.views.reshape(B, T, index.height, index.width, 3).transpose(0, 1, 4, 2, 3)
        return ViewSequence(
            torch.from_numpy(views),
            _own(plan.actions),
            _own(plan.params),
            _own(plan.labels),
            [index.keys[sample] for sample in plan.samples.tolist()],
        )

    def _open_ring(self) -> Ring:
        index, spare = self.index, 2 if self._pin else 1  # one slot is with the trainer, one may be being copied
        setup = Setup(
            shard_paths=[str(path) for path in index.shard_paths],
            encoding=index.encoding,
            height=index.height,
            width=index.width,
            rows=self._planner.local_batch * self.sampling.views,
            slots=self.workers + self._prefetch + spare,
        )
        ring = WorkerRing(setup, self.workers) if self.workers else InlineRing(setup)
        if self._pin:
            pin(ring.memory)
        return ring
