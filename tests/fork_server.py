"""Processes that begin at once: forks of one that has imported what they need, which is most of what a start costs.

    python fork_server.py MODULE    reads a line of JSON for each request, answers with one

{"call", "words", "env", "output"}: a child that calls MODULE.call(*words) → its process id. {"wait"}: → its exit code,
once it has ended; null: it has not yet, where "block" is false.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class ForkServer:
    """For the functions of one module; output of its children goes to files in `folder`."""

    def __init__(self, module: str, folder: Path, env: dict[str, str]) -> None:
        self._folder, self._started = folder, 0
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-W", "ignore", __file__, module]
        self._process = subprocess.Popen(command, env=env, start_new_session=True, **pipes)

    def start(self, call: str, words: list[str], env: dict[str, str]) -> Forked:
        self._started += 1
        output = self._folder / f"{self._started}.txt"
        output.touch()
        pid = self.ask({"call": call, "words": words, "env": env, "output": str(output)}, 120)
        return Forked(self, pid, output)

    def ask(self, request: dict[str, Any], timeout: float) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout)[0]:
            raise TimeoutError(request)
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # with whatever a failed test has left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()


@dataclass
class Forked:
    """returncode: None until poll() or wait() have seen its end."""

    server: ForkServer
    pid: int
    output: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask({"wait": self.pid, "block": False}, 60)
        return self.returncode

    def wait(self, timeout: float = 240) -> int:
        if self.returncode is None:
            self.returncode = self.server.ask({"wait": self.pid, "block": True}, timeout)
        assert self.returncode is not None
        return self.returncode

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def fork_server(module: str, folder: Path, env: dict[str, str]) -> Iterator[ForkServer]:
    server = ForkServer(module, folder, env)
    try:
        yield server
    finally:
        server.end()


def _serve(name: str) -> None:
    module = importlib.import_module(name)
    gc.freeze()  # a child's collector would look at every page, and so copy it
    for request in map(json.loads, sys.stdin):
        if "call" in request:
            answer = os.fork() or _run(module, request)
        else:
            pid, status = os.waitpid(request["wait"], 0 if request["block"] else os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _run(module: Any, request: dict[str, Any]) -> int:
    """In the child, which ends here."""
    code = 0
    with open(request["output"], "ab") as file, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(request["env"])
    try:
        getattr(module, request["call"])(*request["words"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(sys.argv[1])
