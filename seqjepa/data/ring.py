"""A ring of slots in shared memory, filled by worker processes. README.md draws it.

The parent hands out work only when it takes a batch, never from a background thread, and each worker always has the
next job queued: a trainer that spins in Python cannot starve the decoding.
"""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import numpy as np

from seqjepa.data import decode_worker
from seqjepa.data.decode_worker import JOB, REPLY, RowError, Setup, ShardMaps
from shards.errors import FailureError

_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SIGNAL_HINTS = {
    "SIGKILL": "; often the kernel's out-of-memory killer: use fewer workers or a smaller batch",
    "SIGBUS": "; a shard shrank while it was read, or there is no memory left for the ring",
}


class Filled(NamedTuple):
    """Decoded views, uint8 [n, H, W, 3], in a slot that stays theirs until it is freed."""

    slot: int
    views: np.ndarray


class Ring(Protocol):
    """What the loader needs: put tables in, take decoded views out in the same order, free the slots."""

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
        views = self._setup.views(self._map, slot)[: len(table)]
        try:
            decode_worker.decode_rows(table, views, self._maps, self._setup.encoding)
        except RowError:
            self._free.append(slot)
            raise
        return Filled(slot, views)

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def close(self) -> None:
        self._queue.clear()


class WorkerRing:
    """`workers` processes, each filling whole slots; results come back in the order in which tables were put.

    Jobs go to the workers in turn. take() raises RowError for a view that cannot be decoded and FailureError when a
    worker has died.
    """

    def __init__(self, setup: Setup, workers: int) -> None:
        size = setup.slots * setup.slot_bytes
        self._workers: list[subprocess.Popen[bytes]] = []
        try:
            with _shared_memory(size) as fd:
                self._setup = replace(setup, memory_fd=fd)
                self._map = mmap.mmap(fd, size)
                for _ in range(workers):
                    self._workers.append(_start(fd))
        except OSError as error:
            _stop(self._workers)
            raise FailureError(
                f"cannot start {workers} decode workers with {size / 2**20:.0f} MiB of shared memory "
                f"({error.strerror}); use fewer workers or a smaller batch"
            ) from error
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        for worker in self._workers:
            self._send(worker, self._setup.to_bytes())
        self.memory = np.frombuffer(self._map, np.uint8)
        slots = range(setup.slots)
        self._views = [setup.views(self._map, slot) for slot in slots]
        self._tables = [setup.table(self._map, slot).view(np.uint8).data for slot in slots]
        self._free = deque(slots)
        self._queue: deque[tuple[subprocess.Popen[bytes], int, int]] = deque()
        self._puts = 0

    def has_room(self) -> bool:
        return bool(self._free)

    def put(self, table: np.ndarray) -> None:
        """Queue the decoding of ROW [n] into a free slot."""
        slot, worker = self._free.popleft(), self._workers[self._puts % len(self._workers)]
        # A memoryview copies without giving up the GIL, which a spinning trainer would hand back only 5 ms later.
        self._tables[slot][: table.nbytes] = table.view(np.uint8).data
        self._send(worker, JOB.pack(slot, len(table)))
        self._queue.append((worker, slot, len(table)))
        self._puts += 1

    def take(self) -> Filled:
        worker, slot, rows = self._queue[0]
        answer = decode_worker.read_exactly(_pipe(worker.stdout).fileno(), REPLY.size)
        if len(answer) < REPLY.size:
            raise self._death(worker)
        self._queue.popleft()
        _, failed, reason = REPLY.unpack(answer)
        if failed >= 0:
            self.free(slot)
            raise RowError(failed, reason.rstrip(b"\0").decode(errors="replace"))
        return Filled(slot, self._views[slot][:rows])

    def free(self, slot: int) -> None:
        self._free.append(slot)

    def close(self) -> None:
        """End the workers. Views that were taken stay readable."""
        self._finalizer()

    def _send(self, worker: subprocess.Popen[bytes], message: bytes) -> None:
        try:
            while message:
                message = message[os.write(_pipe(worker.stdin).fileno(), message) :]
        except BrokenPipeError:
            raise self._death(worker) from None

    def _death(self, worker: subprocess.Popen[bytes]) -> FailureError:
        try:
            code = worker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return FailureError("a decode worker closed its pipe but still runs; stop the run and start it again")
        name = signal.Signals(-code).name if code < 0 else ""
        ended = f"signal {name} (exit code {code}){_SIGNAL_HINTS.get(name, '')}" if name else f"exit code {code}"
        return FailureError(f"a decode worker died while it prepared a batch: {ended}")


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


def _start(memory_fd: int) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C and a job scheduler's signal to the group are the trainer's to answer.
    return subprocess.Popen(
        [sys.executable, "-P", str(Path(decode_worker.__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=(memory_fd,),
        env=os.environ | _ONE_THREAD,
        start_new_session=True,
    )


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.kill()  # it holds nothing that could be left half-written
    for worker in workers:
        worker.wait()
        _pipe(worker.stdin).close()
        _pipe(worker.stdout).close()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # Popen opened it: stdin and stdout are PIPE
    return stream
