"""A ring of slots in shared memory, filled by worker processes. README.md draws it.

The parent hands out work only when it takes a batch, never from a background thread, and there is always more queued
than there are workers: a trainer that spins in Python cannot starve the decoding.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import subprocess
import tempfile
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from seqjepa.data import decode_worker
from seqjepa.data.decode_worker import JOB, REPLY, RowError, Setup, ShardFiles
from shards.errors import FailureError
from shards.machine.environment import advice_for, is_environment_error, start_python, usable_cores

_MOST_AUTO_WORKERS = 16  # a slot holds a whole batch, and each worker has one at hand
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SIGNAL_HINTS = {
    "SIGKILL": "; often the kernel's out-of-memory killer: use fewer workers or a smaller batch",
    "SIGBUS": "; there is no memory left for the ring",
}


def auto_workers(world_size: int = 1) -> int:
    """Decode processes for one rank: two per CPU core that we may use, shared by the ranks of this machine; at least 1.

    Two, because the scheduler shares cores between processes that want them: beside a trainer that keeps one of two
    cores busy, one process per core keeps 2/3 of its rate and two keep 4/5. Alone, both are as fast.
    """
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
    return max(1, min(_MOST_AUTO_WORKERS, 2 * usable_cores() // max(1, ranks_here)))


class Answer(NamedTuple):
    """A slot is filled, or (failed ≥ 0) row `failed` of it cannot be decoded. number: the system's errno, or 0."""

    slot: int
    failed: int
    number: int
    reason: str


class DecodeProcesses:
    """`count` processes that run decode_worker.py. Whoever is free takes the next job.

    The jobs' pipe has one writer, us: its end of file is what ends the workers, even if we are killed. Messages are
    small enough to be written and read whole, so the workers can share it (a turn for each would make all as slow as
    the one that the scheduler treats worst). A worker that dies closes its own pipe of answers.

    Raises OSError where a process cannot be started.
    """

    def __init__(self, count: int, memory_fd: int, setup: tuple[int, int]) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []
        jobs, self._jobs = os.pipe()
        self._finalizer = weakref.finalize(self, _stop, self._processes, self._jobs)
        words = [str(Path(decode_worker.__file__).resolve()), *map(str, (memory_fd, *setup))]
        env = os.environ | _ONE_THREAD
        try:
            for _ in range(count):
                process = start_python(words, stdin=jobs, stdout=subprocess.PIPE, pass_fds=(memory_fd,), env=env)
                self._processes.append(process)
        except OSError:
            self.close()
            raise
        finally:
            os.close(jobs)
        self._by_fd = {_answers(process).fileno(): process for process in self._processes}
        self._poll = select.poll()
        for fd in self._by_fd:
            self._poll.register(fd, select.POLLIN)

    def send(self, slot: int, rows: int) -> None:
        """Queue a job. FailureError if no worker is left."""
        try:
            os.write(self._jobs, JOB.pack(slot, rows))
        except BrokenPipeError:
            raise _death(self._processes[0]) from None

    def receive(self) -> list[Answer]:
        """Wait for answers, at least one. FailureError if a worker died."""
        return [self._read(fd) for fd, _ in self._poll.poll()]

    def close(self) -> None:
        self._finalizer()

    def _read(self, fd: int) -> Answer:
        message = decode_worker.read_exactly(fd, REPLY.size)
        if len(message) < REPLY.size:
            raise _death(self._by_fd[fd])
        slot, failed, number, reason = REPLY.unpack(message)
        return Answer(slot, failed, number, reason.rstrip(b"\0").decode(errors="replace"))


def _stop(processes: list[subprocess.Popen[bytes]], jobs: int) -> None:
    os.close(jobs)
    for process in processes:
        process.kill()  # it holds nothing that could be left half-written
    for process in processes:
        process.wait()
        _answers(process).close()


def _answers(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # it was started with stdout=PIPE
    return process.stdout


def _death(process: subprocess.Popen[bytes]) -> FailureError:
    try:
        code = process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return FailureError("a decode worker closed its pipe but still runs; stop the run and start it again")
    name = signal.Signals(-code).name if code < 0 else ""
    ended = f"signal {name} (exit code {code}){_SIGNAL_HINTS.get(name, '')}" if name else f"exit code {code}"
    return FailureError(f"a decode worker died while it prepared a batch: {ended}")


class Filled(NamedTuple):
    """n decoded rows in a slot that stays theirs until it is freed.

    regions: images uint8 [n, H, W, 3], then the set-up's extras uint8 [n, bytes]
    """

    slot: int
    regions: list[np.ndarray]


class InlineRing:
    """Decodes in this process when a batch is taken: for debugging, and where processes are not wanted.

    Tables are put in, decoded rows are taken out in the same order, slots are freed; memory: uint8, all slots.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._files = ShardFiles(setup.shard_paths, setup.open_files, setup.info)
        self._map = mmap.mmap(-1, setup.slots * setup.slot_bytes)
        self.memory = np.frombuffer(self._map, np.uint8)
        self._free = list(range(setup.slots))
        self._queue: deque[np.ndarray] = deque()

    def has_room(self) -> bool:
        return not self._queue and bool(self._free)

    def put(self, table: np.ndarray) -> None:
        self._queue.append(table)

    def take(self) -> Filled:
        """Raises RowError for what cannot be decoded, OSError when it cannot be read for the machine's sake."""
        table, slot = self._queue.popleft(), self._free.pop()
        regions = self._setup.regions(self._map, slot)
        try:
            decode_worker.fill(table, regions, self._files, self._setup.encoding)
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
        """As InlineRing.take; FailureError when a worker has died."""
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


Ring = InlineRing | WorkerRing


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
