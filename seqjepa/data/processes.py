"""The decode worker processes: one queue of jobs that they share, one pipe of answers each, and their deaths."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import IO, NamedTuple

from seqjepa.data import decode_worker
from seqjepa.data.decode_worker import JOB, REPLY
from shards.environment import usable_cores
from shards.errors import FailureError

_MOST_AUTO_WORKERS = 16  # a slot holds a whole batch, and each worker has one at hand
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SIGNAL_HINTS = {
    "SIGKILL": "; often the kernel's out-of-memory killer: use fewer workers or a smaller batch",
    "SIGBUS": "; a shard shrank while it was read, or there is no memory left for the ring",
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
        try:
            for _ in range(count):
                self._processes.append(_start(jobs, memory_fd, setup))
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


def _start(jobs: int, memory_fd: int, setup: tuple[int, int]) -> subprocess.Popen[bytes]:
    # To stop is the trainer's decision, which needs batches until it has saved: a session of its own keeps Ctrl-C away,
    # blocked signals, which a child inherits, those of a scheduler that signals every process of a job.
    script = str(Path(decode_worker.__file__).resolve())
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        return _popen(script, jobs, memory_fd, setup)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _popen(script: str, jobs: int, memory_fd: int, setup: tuple[int, int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", script, *map(str, (memory_fd, *setup))],
        stdin=jobs,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=(memory_fd,),
        env=os.environ | _ONE_THREAD,
        start_new_session=True,
    )


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
