"""Batches decoded ahead of their use, in the order of the epochs: keeps a ring supplied and takes from it."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch

from seqjepa.data.decode_worker import ROW, RowError, Setup
from seqjepa.data.device import Retirement, pin, require_cuda
from seqjepa.data.ring import Filled, InlineRing, Ring, WorkerRing, auto_workers
from shards.errors import ConfigError, DamageError, reason_of
from shards.reading.fetch_ahead import FetchAhead
from shards.reading.split_index import ImageIndex, SplitIndex


@dataclass(frozen=True)
class Reading:
    """How shards are read; it changes no batch.

    device    where images may live and views are made of them. Stored views are decoded into memory of the host, which
              is page-locked where this is a GPU
    pin       False: not page-locked there either, where the machine does not allow it; copies then take longer
    workers   decode processes (None: auto_workers; 0: decode here, when a batch is asked for)
    prefetch  batches queued beyond those that workers are at: a slot of memory each
    resident  True: the split is read when the first batch is asked for, and lives on the device from then on. False:
              it is read ahead by the workers, epoch after epoch. None: resident if it fits (images.free_bytes), which
              stored views do on a GPU alone (stored.lives_there)
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    workers: int | None = None
    prefetch: int = 2
    resident: bool | None = None
    pin: bool = True


class Plan(Protocol):
    """What is to be read for one batch."""

    @property
    def table(self) -> np.ndarray: ...


P = TypeVar("P", bound=Plan)


class DecodedAhead(Generic[P]):
    """Reads batch after batch, on into the next epoch, as far ahead as the ring has slots.

    plan    (epoch, step) → what to read; there are `steps` to an epoch
    setup   of the ring; its number of slots is decided here
    damage  what to raise where a row of a plan cannot be read
    supply  for so many batches at a time: what brings the shards to this machine; None: they are there

    What fetch() returns lies in a slot of the ring: it is valid until the next batch is asked for. If page-locked,
    non_blocking copies queued on the device's current stream before then are waited for.
    """

    def __init__(
        self,
        plan: Callable[[int, int], P],
        steps: int,
        setup: Setup,
        damage: Callable[[P, RowError], DamageError],
        reading: Reading,
        supply: Callable[[int], FetchAhead | None] = lambda ahead: None,
    ) -> None:
        self._workers = auto_workers() if reading.workers is None else reading.workers
        if self._workers < 0 or reading.prefetch < 1:
            raise ConfigError(
                f"workers is {self._workers}, prefetch is {reading.prefetch}; allowed is workers ≥ 0 and prefetch ≥ 1"
            )
        self._copied_to = reading.device if reading.pin and reading.device.type == "cuda" else None
        if self._copied_to:
            require_cuda()
        spare = 2 if self._copied_to else 1  # one slot is with the trainer, one may be being copied
        slots = self._workers + reading.prefetch + spare
        self._supply = supply(slots)
        open_files = 0 if self._supply and not self._supply.stays else setup.open_files
        self._setup = replace(setup, slots=slots, open_files=open_files)
        self._plan, self._steps, self._damage = plan, steps, damage
        self._retirement = Retirement(self._copied_to)
        self._ring: Ring | None = None
        self._queue: deque[tuple[int, int, P]] = deque()  # put into the ring and not yet taken
        self._held: int | None = None  # slot of the batch that was handed out last
        self._stream: torch.cuda.Stream | None = None  # on which it is copied from page-locked memory

    def fetch(self, epoch: int, step: int) -> tuple[P, list[np.ndarray]]:
        """A batch's plan and the regions of its slot. Raises DamageError, and FailureError where a worker died."""
        try:
            return self._advance(epoch, step)
        except DamageError:
            raise
        except BaseException:
            self.close()  # interrupted or dead: what we think is queued may no longer be what the workers hold
            raise

    def close(self) -> None:
        """End the worker processes. The last batch stays readable; fetching another starts new workers."""
        if self._stream is not None:
            self._stream.synchronize()  # copies from page-locked memory, which goes with the ring
        if self._ring is not None:
            self._ring.close()
        if self._supply is not None:
            self._supply.close()
        self._ring, self._held, self._stream = None, None, None
        self._queue.clear()
        self._retirement = Retirement(self._copied_to)

    def _advance(self, epoch: int, step: int) -> tuple[P, list[np.ndarray]]:
        ring = self._ring = self._ring or self._open_ring()
        if self._held is not None:
            for slot in self._retirement.retire(self._held):
                ring.free(slot)
            self._held = None
        if self._queue and self._queue[0][:2] != (epoch, step):
            self._discard(ring)
        if self._supply is not None:
            self._supply.release((epoch, step))
        self._fill(ring, epoch, step)
        *_, plan = self._queue.popleft()
        filled = self._take(ring, plan)
        self._held = filled.slot
        self._stream = torch.cuda.current_stream(self._copied_to) if self._copied_to else None
        return plan, filled.regions

    def _fill(self, ring: Ring, epoch: int, step: int) -> None:
        """Keep every worker supplied, beyond the end of the epoch too."""
        position = self._after(*self._queue[-1][:2]) if self._queue else (epoch, step)
        while ring.has_room():
            plan = self._plan(*position)
            if self._supply is not None:
                shards = np.unique(plan.table["shard"]).tolist()
                if not self._supply.ready(position, shards, wait=not self._queue):
                    break
            ring.put(plan.table)
            self._queue.append((*position, plan))
            position = self._after(*position)

    def _after(self, epoch: int, step: int) -> tuple[int, int]:
        return (epoch, step + 1) if step + 1 < self._steps else (epoch + 1, 0)

    def _discard(self, ring: Ring) -> None:
        """The caller jumped to another position: what was decoded ahead is of no use."""
        while self._queue:
            *_, plan = self._queue.popleft()
            try:
                ring.free(self._take(ring, plan).slot)
            except DamageError:
                continue

    def _take(self, ring: Ring, plan: P) -> Filled:
        try:
            return ring.take()
        except RowError as error:
            raise self._damage(plan, error) from error

    def _open_ring(self) -> Ring:
        ring = WorkerRing(self._setup, self._workers) if self._workers else InlineRing(self._setup)
        if self._copied_to:
            pin(ring.memory)
        return ring


def read_once(
    ahead: DecodedAhead[P], steps: int, total: int, unit: str, device: torch.device
) -> Iterator[tuple[P, list[np.ndarray]]]:
    """fetch() of every step of a first epoch, with a bar of `total` rows, for one who copies them to `device`.

    At the end all of them have arrived there, and the workers have ended.
    """
    from tqdm import tqdm

    bar = tqdm(total=total, desc=f"load to {device.type}", unit=unit, disable=None, leave=False)
    with bar, contextlib.closing(ahead):
        for step in range(steps):
            plan, regions = ahead.fetch(0, step)
            yield plan, regions
            bar.update(len(regions[0]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # whatever stream uses them finds them there


def places_of(index: SplitIndex | ImageIndex, rows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """ROW, of the shape of both: where the bytes of these members of samples are."""
    table = np.empty(np.broadcast_shapes(rows.shape, members.shape), ROW)
    table["offset"], table["length"] = index.offsets[rows, members], index.lengths[rows, members]
    table["shard"] = index.shard[rows]
    return table


def damaged(index: SplitIndex | ImageIndex, row: int, what: str, error: RowError) -> DamageError:
    """Names the shard and the sample, and `what` of it cannot be read."""
    path = index.shard_paths[int(index.shard[row])]
    return DamageError(
        f"{path}: {what} of sample {index.keys[row]!r} cannot be decoded ({reason_of(error)}); "
        f"`seqjepa-data verify {path.parent}` finds all that is damaged"
    )
