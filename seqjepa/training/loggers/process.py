"""The trainer's side of loggers: messages to one process each, written without ever waiting.

What a pipe does not take at once is held back here and tried again with the next message; a logger that is so far
behind that MOST_HELD bytes wait, that says it failed or that dies is switched off with one warning.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqjepa.training.loggers import Status, folder_of
from shards.machine.environment import start_python

MOST_HELD = 16 * 2**20
SECONDS_TO_FINISH: Mapping[Status, float] = {"finished": 60.0, "interrupted": 10.0, "failed": 10.0}
"""After a signal little is left: schedulers kill half a minute later."""
POLL_SECONDS = 0.02
Say = Callable[[str], object]
logger = logging.getLogger(__name__)


class Loggers:
    """All loggers of a run. Their methods raise nothing and wait for nobody; finish() waits, for so long at most."""

    def __init__(self, names: Sequence[str], say: Say = lambda line: None) -> None:
        self._processes = [_Process(name, say) for name in names]

    def __len__(self) -> int:
        return len(self._processes)

    def start(self, run: Path, config: Mapping[str, Any], resumed_at: int) -> None:
        """See Logger. The processes begin here."""
        for process in self._processes:
            process.start(run)
        self._send({"do": "start", "run": str(run.resolve()), "config": dict(config), "resumed_at": resumed_at})

    def scalars(self, line: Mapping[str, object]) -> None:
        """The numbers in a line of metrics.jsonl."""
        values = {k: v for k, v in line.items() if isinstance(v, int | float) and k not in ("step", "epoch")}
        self._send({"do": "scalars", "step": line["step"], "epoch": line["epoch"], "values": values})

    def picture(self, name: str, step: int, png: Path) -> None:
        """See Logger; the file has to stay."""
        self._send({"do": "picture", "name": name, "step": step, "png": str(png.resolve())})

    def finish(self, status: Status) -> None:
        """Let all write what they hold back; those that have not done so in time are ended, with one warning."""
        self._send({"do": "finish", "status": status})
        deadline = time.monotonic() + SECONDS_TO_FINISH[status]
        while sum(process.busy() for process in self._processes) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        for process in self._processes:
            process.end(SECONDS_TO_FINISH[status])

    def _send(self, message: Mapping[str, Any]) -> None:
        line = (json.dumps(message) + "\n").encode()
        for process in self._processes:
            process.send(line)


class _Process:
    """One logger. `_child` is None before it starts and when it is switched off."""

    def __init__(self, name: str, say: Say) -> None:
        self.name, self._say = name, say
        self._held = self._heard = b""
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, run: Path) -> None:
        try:
            with open(folder_of(run) / f"{self.name}.log", "ab") as log:
                words, pipe = ["-m", "seqjepa.training.loggers.child", self.name], subprocess.PIPE
                self._child = start_python(words, stdin=pipe, stdout=pipe, stderr=log, env=_environment())
        except OSError as error:
            self._warn(error.strerror or str(error))
            return
        for pipe in (self._child.stdin, self._child.stdout):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)

    def send(self, line: bytes) -> None:
        if self._child is None:
            return
        self._held += line
        self._pump()
        if len(self._held) > MOST_HELD:
            self._switch_off("it takes nothing any more")

    def busy(self) -> bool:
        """Whether it has not ended yet. One that was told to finish ends by itself when it has read that."""
        self._pump()
        child = self._child
        if child is None or child.poll() is None:
            return child is not None
        self._listen()
        if self._child is not None:
            self._let_go(child)
            if child.returncode:
                self._warn(f"its process ended with {child.returncode}")
        return False

    def end(self, waited: float) -> None:
        if self.busy():
            self._switch_off(f"it did not finish within {waited:g} s")

    def _pump(self) -> None:
        """Write what the pipe takes, and hear what was answered."""
        child = self._child
        if child is None:
            return
        assert child.stdin is not None
        try:
            while self._held:
                self._held = self._held[os.write(child.stdin.fileno(), self._held[: 2**16]) :]
        except BlockingIOError:
            pass
        except OSError:  # it is gone; what it said last tells why
            self._held = b""
        self._listen()
        if self._child is not None and child.poll() not in (None, 0):
            self._let_go(child)
            self._warn(f"its process ended with {child.returncode}")

    def _listen(self) -> None:
        child = self._child
        if child is None:
            return
        assert child.stdout is not None
        with suppress(BlockingIOError):
            while part := os.read(child.stdout.fileno(), 2**16):
                self._heard += part
        *lines, self._heard = self._heard.split(b"\n")
        for line in lines:
            said = json.loads(line)
            if "says" in said:
                self._say(f"{self.name}: {said['says']}")
            else:
                self._switch_off(said["failed"])

    def _switch_off(self, why: str) -> None:
        if (child := self._child) is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # with what it started itself
            self._let_go(child)
        self._warn(why)

    def _let_go(self, child: subprocess.Popen[bytes]) -> None:
        self._child = None
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()

    def _warn(self, why: str) -> None:
        logger.warning("logger %s is switched off: %s; the run goes on without it", self.name, " ".join(why.split()))


def _environment() -> dict[str, str]:
    """Ours, with where this process found us, which need not be installed."""
    root = str(Path(__file__).resolve().parents[3])
    found = os.environ.get("PYTHONPATH")
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([root, found] if found else [root])}
