"""torchrun on "nodes" of one machine, as so many machines would start it: by its command, or forked.

    python torch_nodes.py    reads a line of JSON for each start, forks its nodes, and says their exit codes in a line

A forked node is what the command torchrun makes of its options, an elastic agent; it and its ranks are forks of one
process that has imported torch and our trainer, which is most of what a start costs.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Nodes:
    """What runs. ended() may be asked once."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self.processes = processes

    def ended(self, timeout: float = 240) -> list[tuple[int, str]]:
        """Exit code and output of each node."""
        outputs = [process.communicate(timeout=timeout)[0] for process in self.processes]
        return [(process.returncode, text) for process, text in zip(self.processes, outputs, strict=True)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{HERE}:{HERE.parents[1]}", **more}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def torchrun(nodes: int, ranks: int, words: list[object], **more: str) -> Nodes:
    """The command, on each of the nodes, with `ranks` processes of recorded_train.py. more: of the environment."""
    how = [f"--nnodes={nodes}", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d", "--rdzv-id=test", "--no-python"]
    how += [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", *how]
    command += [sys.executable, str(HERE / "recorded_train.py"), *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return Nodes([subprocess.Popen(command, env=environment(**more), **pipes) for _ in range(nodes)])


class ForkedNodes(Nodes):
    def __init__(self, server: subprocess.Popen[str], outputs: list[Path]) -> None:
        super().__init__([server])
        self.outputs = outputs

    def ended(self, timeout: float = 240) -> list[tuple[int, str]]:
        said = self.processes[0].stdout
        assert said is not None
        if not select.select([said], [], [], timeout)[0]:
            raise TimeoutError("\n".join(path.read_text() for path in self.outputs))
        codes = json.loads(said.readline())
        return list(zip(codes, (path.read_text() for path in self.outputs), strict=True))


class Forks:
    """Starts of nodes, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.starts = folder, 0
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-W", "ignore", __file__]
        self.server = subprocess.Popen(command, env=environment(), start_new_session=True, **pipes)

    def start(self, nodes: int, ranks: int, words: list[object], restarts: int = 0, **more: str) -> Nodes:
        """As torchrun."""
        self.starts += 1
        outputs = [self.folder / f"{self.starts}-{node}.txt" for node in range(nodes)]
        how = {"min_nodes": nodes, "max_nodes": nodes, "nproc_per_node": ranks, "max_restarts": restarts}
        asked = {"how": how, "port": free_port(), "words": [*map(str, words)], "env": environment(**more)}
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(asked | {"outputs": [*map(str, outputs)]}) + "\n")
        self.server.stdin.flush()
        return ForkedNodes(self.server, outputs)


@contextlib.contextmanager
def forks(folder: Path) -> Iterator[Forks]:
    started = Forks(folder)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):  # whatever a failed test has left
            os.killpg(started.server.pid, signal.SIGKILL)
        started.server.communicate()


def serve() -> None:
    import recorded_train
    import torch.distributed.elastic.agent.server.local_elastic_agent  # noqa: F401  what a fork would import
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def node(asked: dict[str, Any]) -> None:
        os.environ.clear()
        os.environ.update(asked["env"])
        at = {"rdzv_endpoint": f"127.0.0.1:{asked['port']}", "rdzv_backend": "c10d", "local_addr": "127.0.0.1"}
        config = LaunchConfig(**asked["how"], **at, run_id="test", start_method="fork", monitor_interval=0.1)
        elastic_launch(config, recorded_train.main)(*asked["words"])

    for line in sys.stdin:
        asked, children = json.loads(line), []
        for output in asked["outputs"]:
            if not (child := os.fork()):
                with open(output, "w", encoding="utf-8") as file:
                    os.dup2(file.fileno(), 1)
                    os.dup2(file.fileno(), 2)
                try:
                    node(asked)
                except BaseException as error:
                    sys.stderr.write(f"{type(error).__name__}: {error}\n")
                    sys.stderr.flush()
                    os._exit(1)
                sys.stdout.flush()
                os._exit(0)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
