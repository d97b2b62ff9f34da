"""Processes that begin at once: forks of one that has imported what they need, which is most of what a start costs.

    python fork_server.py MODULE ADDRESS    listens there, in the background, until nobody is connected any more

To each line of JSON it answers with one. {"call", "words", "env", "output"}: a child that calls MODULE.call(*words) →
its process id. {"wait"}: → the exit code of a child; null: it has not ended. A client's children end with its
connection.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import hashlib
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 120
"""Seconds that a server takes to begin, and to answer."""


class ForkServer:
    """For the functions of one module; output of its children goes to files in `folder`.

    shared: a folder; processes that name the same one have one server between them, which the first of them starts.
    """

    def __init__(self, module: str, folder: Path, env: dict[str, str], shared: Path | None = None) -> None:
        self._folder, self._started, place = folder, 0, shared or folder
        address = hashlib.sha256(f"{place}/{module}".encode()).hexdigest()
        with open(place / f"{module}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                self._connection = _connected(address)
            except ConnectionRefusedError:
                command = [sys.executable, "-W", "ignore", __file__, module, address]
                nothing = dict.fromkeys(("stdin", "stdout"), subprocess.DEVNULL)
                subprocess.run(command, env=env, cwd=ROOT, check=True, timeout=LONGEST, **nothing)  # type: ignore[call-overload]
                self._connection = _connected(address)
        self._lines = self._connection.makefile("rw", encoding="utf-8")

    def start(self, call: str, words: list[str], env: dict[str, str]) -> Forked:
        self._started += 1
        output = self._folder / f"{self._started}.txt"
        output.touch()
        return Forked(self, self.ask({"call": call, "words": words, "env": env, "output": str(output)}), output)

    def ask(self, request: dict[str, Any]) -> Any:
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        return json.loads(self._lines.readline())

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # whatever a failed test has left is gone when it answers
            self.ask({})
        self._lines.close()
        self._connection.close()


def _connected(address: str) -> socket.socket:
    """In Linux's name space of sockets without a file, whose names may be longer than a path in a folder of pytest."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(LONGEST)
    try:
        connection.connect(f"\0{address}")
    except OSError:
        connection.close()
        raise
    return connection


@dataclass
class Forked:
    """returncode: None until poll() or wait() have seen its end."""

    server: ForkServer
    pid: int
    output: Path
    returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self.server.ask({"wait": self.pid})
        return self.returncode

    def wait(self, timeout: float = 240) -> int:
        late = time.monotonic() + timeout
        while self.poll() is None and time.monotonic() < late:
            time.sleep(0.02)
        if self.returncode is None:
            raise TimeoutError(f"{self.pid} has not ended in {timeout:g} s: {self.said}")
        return self.returncode

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    @property
    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def fork_server(module: str, folder: Path, env: dict[str, str], shared: Path | None = None) -> Iterator[ForkServer]:
    server = ForkServer(module, folder, env, shared)
    try:
        yield server
    finally:
        server.end()


def _serve(name: str, address: str) -> None:
    module = importlib.import_module(name)
    gc.freeze()  # a child's collector would look at every page, and so copy it
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{address}")
    listener.listen()
    if os.fork():
        os._exit(0)  # which tells who has started it that it listens
    clients: dict[socket.socket, set[int]] = {}  # → the children that have not ended, as far as it has asked
    while ready := select.select([listener, *clients], [], [], None if clients else LONGEST)[0]:
        for one in ready:
            if one is listener:
                clients[listener.accept()[0]] = set()
            elif not _answered(module, one, clients[one], [listener, *clients]):
                one.close()
                del clients[one]
        if not clients:
            return


def _answered(module: Any, client: socket.socket, children: set[int], inherited: list[socket.socket]) -> bool:
    """False: it has gone, and its children with it."""
    with contextlib.suppress(ConnectionError), client.makefile("rw", encoding="utf-8") as lines:
        request, answer = json.loads(lines.readline() or "{}"), None
        if "call" in request:
            answer = os.fork()
            with contextlib.suppress(PermissionError, ProcessLookupError):  # the other of the two was before
                os.setpgid(answer, answer)
            if not answer:
                for connection in inherited:
                    os.close(connection.detach())
                _run(module, request)
            children.add(answer)
        elif "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
            children.discard(pid)
        else:
            _end(children)
        lines.write(json.dumps(answer) + "\n")
        return bool(request)
    _end(children)
    return False


def _end(children: set[int]) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    children.clear()


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
    _serve(*sys.argv[1:])
