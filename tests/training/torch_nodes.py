"""torchrun on "nodes" of one machine, as so many machines would start it: by its command, or forked.

A forked node is what the command torchrun makes of its options, an elastic agent; it and its ranks are forks of one
process that has imported torch and our trainer (fork_server.py).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from fork_server import Forked, fork_server
from forked_ranks import environment, free_port

HERE = Path(__file__).parent


class Nodes(Protocol):
    def ended(self, timeout: float = 240) -> list[tuple[int, str]]:
        """Exit code and output of each node."""
        ...


class Commands:
    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes

    def ended(self, timeout: float = 240) -> list[tuple[int, str]]:
        outputs = [process.communicate(timeout=timeout)[0] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, outputs, strict=True)]


class Forks:
    def __init__(self, processes: list[Forked]) -> None:
        self.processes = processes

    def ended(self, timeout: float = 240) -> list[tuple[int, str]]:
        return [(process.wait(timeout), process.said) for process in self.processes]


def torchrun(nodes: int, ranks: int, words: list[object], **more: str) -> Nodes:
    """The command, on each of the nodes, with `ranks` processes of recorded_train.py. more: of the environment."""
    how = [f"--nnodes={nodes}", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d", "--rdzv-id=test", "--no-python"]
    how += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *how]
    command += [sys.executable, str(HERE / "recorded_train.py"), *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return Commands([subprocess.Popen(command, env=environment(**more), **pipes) for _ in range(nodes)])


@contextlib.contextmanager
def forks(folder: Path) -> Iterator[Callable[..., Nodes]]:
    """torchrun, forked."""
    with fork_server("torch_nodes", folder, environment(FORKED="1")) as server:

        def start(nodes: int, ranks: int, words: list[object], restarts: int = 0, **more: str) -> Nodes:
            asked = [str(word) for word in (nodes, ranks, restarts, free_port(), *words)]
            return Forks([server.start("run_node", asked, environment(**more)) for _ in range(nodes)])

        yield start


def run_node(nodes: str, ranks: str, restarts: str, port: str, *words: str) -> None:
    """SystemExit with 1: a rank has failed."""
    config = LaunchConfig(
        min_nodes=int(nodes),
        max_nodes=int(nodes),
        nproc_per_node=int(ranks),
        max_restarts=int(restarts),
        run_id="test",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        local_addr="127.0.0.1",
        start_method="fork",
        monitor_interval=0.1,
    )
    try:
        elastic_launch(config, recorded_train.main)(*words)
    except (ChildFailedError, SignalException) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if "FORKED" in os.environ:  # in the fork server alone, before there are forks
    import recorded_train
    import torch.distributed.elastic.agent.server.local_elastic_agent  # noqa: F401  what a fork would import
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch
