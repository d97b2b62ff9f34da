"""Ranks of this machine as forks of one process that has imported torch and our trainer (fork_server.py).

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

from fork_server import fork_server
from python_path import python_path

HERE = Path(__file__).parent
FOLDERS = (HERE.parent, HERE, *(HERE / name for name in ("methods", "models", "training")))
LONGEST = 240
"""Seconds until ranks that have not ended are killed."""

RunRanks = Callable[..., list[tuple[int, str]]]
"""run(function, *words): function(rank, *words) on two ranks, as torchrun starts them → exit codes and outputs."""


@contextlib.contextmanager
def forked_ranks(folder: Path) -> Iterator[RunRanks]:
    """For functions of test modules, with words that JSON can hold."""
    surroundings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(*FOLDERS)}
    with fork_server("forked_ranks", folder, surroundings | {"IMPORT_TORCH": "1"}) as server:

        def run(function: Callable[..., None], *words: Any) -> list[tuple[int, str]]:
            shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            named = [function.__module__, function.__name__]
            ranks = [
                server.start("call", [*named, rank, *words], surroundings | shared | rank_of(rank)) for rank in range(2)
            ]
            late = time.monotonic() + LONGEST
            while any(rank.poll() is None for rank in ranks) and time.monotonic() < late:
                time.sleep(0.02)
            for rank in ranks:
                rank.kill()
            return [(rank.wait(), rank.said) for rank in ranks]

        yield run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def rank_of(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def call(module: str, function: str, *words: Any) -> None:
    """In the fork."""
    getattr(importlib.import_module(module), function)(*words)


if "IMPORT_TORCH" in os.environ:  # in the fork server alone, before there are forks
    import torchvision  # noqa: F401

    import seqjepa.training.train  # noqa: F401
