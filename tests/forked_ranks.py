"""Ranks and runs of this machine as forks of one process that has imported torch and our trainer (fork_server.py).

As Python starts them each would import torch by itself, which takes longer than what most tests ask of it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fork_server import Forked, ForkServer, fork_server
from python_path import python_path

HERE = Path(__file__).parent
FOLDERS = (HERE.parent, HERE, *(HERE / name for name in ("experiments", "methods", "models", "pipelines", "training")))
LONGEST = 240
"""Seconds until what has not ended is killed."""

RunForked = Callable[..., tuple[int, str]]
"""run(function, *words): function(*words) in a process of its own → exit code and output."""
RunRanks = Callable[..., list[tuple[int, str]]]
"""run(function, *words): function(rank, *words) on two ranks, as torchrun starts them → exit codes and outputs."""


class Forks:
    """For functions of test modules, with words that JSON can hold."""

    def __init__(self, server: ForkServer) -> None:
        self._server = server

    def alone(self, function: Callable[..., None], *words: Any) -> tuple[int, str]:
        return _ended([self.start(function, *words)])[0]

    def start(self, function: Callable[..., None], *words: Any) -> Forked:
        """The same, for a test to end it or to wait."""
        return self._start(function, words, {})

    def ranks(self, function: Callable[..., None], *words: Any) -> list[tuple[int, str]]:
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        numbers = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
        return _ended([self._start(function, (rank, *words), shared | numbers[rank]) for rank in range(2)])

    def _start(self, function: Callable[..., None], words: tuple[Any, ...], more: dict[str, str]) -> Forked:
        return self._server.start("call", [function.__module__, function.__name__, *words], environment(**more))


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(*FOLDERS), **more}


@contextlib.contextmanager
def forks(folder: Path, shared: Path) -> Iterator[Forks]:
    with fork_server("forked_ranks", folder, environment(IMPORT_TORCH="1"), shared) as server:
        yield Forks(server)


def _ended(processes: list[Forked]) -> list[tuple[int, str]]:
    late = time.monotonic() + LONGEST
    while any(process.poll() is None for process in processes) and time.monotonic() < late:
        time.sleep(0.02)
    for process in processes:
        process.kill()
    return [(process.wait(), process.said) for process in processes]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(module: str, function: str, *words: Any) -> None:
    """In the fork."""
    getattr(importlib.import_module(module), function)(*words)


if "IMPORT_TORCH" in os.environ:  # in the fork server alone, before there are forks
    import torchvision  # noqa: F401

    import seqjepa.training.train  # noqa: F401
