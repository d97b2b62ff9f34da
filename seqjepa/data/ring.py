"""A ring of slots in shared memory, filled by worker processes. README.md draws it.

The parent hands out work only when it takes a batch, never from a background thread, and there is always more queued
than there are workers: a trainer that spins in Python cannot starve the decoding.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np

from seqjepa.data import decode_worker
from seqjepa.data.decode_worker import RowError, Setup, ShardMaps
from seqjepa.data.processes import Answer, DecodeProcesses
from shards.environment import advice_for, is_environment_error
from shards.errors import FailureError


class Filled(NamedTuple):
    """n decoded rows in a slot that stays theirs until it is freed.

    regions: images uint8 [n, H, W, 3], then the set-up's extras uint8 [n, bytes]
    """

    slot: int
    regions: list[np.ndarray]


class Ring(Protocol):
    """What a loader needs: put tables in, take decoded rows out in the same order, free the slots.

    take() raises RowError for what cannot be decoded, FailureError when a worker has died, OSError when it cannot read
    for the machine's sake.
    """

    memory: np.ndarray

    def has_room(self) -> bool: ...
    def put(self, table: np.ndarray) -> None: ...
    def take(self) -> Filled: ...
    def free(self, slot: int) -> None: ...
    def close(self) -> None: ...


class InlineRing:
    """Decodes in this process when a batch is taken: for debugging, and where processes are not wanted."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._maps = ShardMaps(setup.shard_paths)
        self._map = mmap.mmap(-1, setup.slots * setup.slot_bytes)
        self.memory = np.frombuffer(self._map, np.uint8)
        self._free = list(range(setup.slots))
        self._queue: deque[np.ndarray] = deque()

    def has_room(self) -> bool:
        return not self._queue and bool(self._free)

    def put(self, table: np.ndarray) -> None:
        self._queue.append(table)

    def take(self) -> Filled:
        table, slot = self._queue.popleft(), self._free.pop()
        regions = self._setup.regions(self._map, slot)
        try:
            decode_worker.fill(table, regions, self._maps, self._setup.encoding)
        except RowError as error:
            self._free.append(slot)
            raise _named(error) from None
        return _filled(slot, regions, len(table))

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def close(self) -> None:
        self._queue.clear()


class WorkerRing:
    """`workers` processes, each filling a whole slot at a time. Slots come back in the order in which tables were put.

    Raises FailureError where memory or processes are refused.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        text, size = setup.to_json(), setup.slots * setup.slot_bytes
        try:
            with _shared_memory(size + len(text)) as fd:
                self._map = mmap.mmap(fd, size + len(text))
                self._map[size:] = text
                self._processes = DecodeProcesses(workers, fd, (size, len(text)))
        except OSError as error:
            raise FailureError(
                f"cannot start {workers} decode workers with {size / 2**20:.0f} MiB of shared memory "
                f"({error.strerror}); {advice_for(error.errno) or 'use fewer workers or a smaller batch'}"
            ) from error
        self.memory = np.frombuffer(self._map, np.uint8, size)
        slots = range(setup.slots)
        self._regions = [setup.regions(self._map, slot) for slot in slots]
        self._tables = [setup.table(self._map, slot).view(np.uint8).data for slot in slots]
        self._free = deque(slots)
        self._queue: deque[tuple[int, int]] = deque()  # slot and ROWs, in the order of put
        self._answers: dict[int, Answer] = {}  # by slot, not yet taken

    def has_room(self) -> bool:
        return bool(self._free)

    def put(self, table: np.ndarray) -> None:
        """Queue the reading of ROW [n · members] into a free slot."""
        slot = self._free.popleft()
        # A memoryview copies without giving up the GIL, which a spinning trainer would hand back only 5 ms later.
        self._tables[slot][: table.nbytes] = table.view(np.uint8).data
        self._processes.send(slot, len(table))
        self._queue.append((slot, len(table)))

    def take(self) -> Filled:
        slot, rows = self._queue[0]
        while slot not in self._answers:
            self._answers.update((answer.slot, answer) for answer in self._processes.receive())
        self._queue.popleft()
        answer = self._answers.pop(slot)
        if answer.failed >= 0:
            self.free(slot)
            raise _named(RowError(answer.failed, answer.reason, answer.number))
        return _filled(slot, self._regions[slot], rows)

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def close(self) -> None:
        """End the workers. What was taken stays readable."""
        self._processes.close()


def _named(error: RowError) -> RowError | OSError:
    """The system's own error where it is no fault of the shard."""
    of_system = OSError(error.number, f"{os.strerror(error.number)} (in a decode worker)")
    return of_system if is_environment_error(of_system) else error


def _filled(slot: int, regions: list[np.ndarray], table_rows: int) -> Filled:
    return Filled(slot, [region[: table_rows // len(regions)] for region in regions])


@contextmanager
def _shared_memory(size: int) -> Iterator[int]:
    """File descriptor of `size` bytes of memory that vanish with their last user and do not count against /dev/shm."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("seqjepa-ring", os.MFD_CLOEXEC)
    else:
        fd, name = tempfile.mkstemp(prefix="seqjepa-ring-")
        os.unlink(name)
    try:
        os.ftruncate(fd, size)
        yield fd
    finally:
        os.close(fd)
