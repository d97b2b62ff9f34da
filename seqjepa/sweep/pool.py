"""Tasks side by side, one a device: each in a process of its own that sees no other device."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from seqjepa.jobs.job import Say
from seqjepa.sweep.plan import Task
from seqjepa.sweep.run import report
from seqjepa.training.stopping import Interrupted, StopSignals
from shards.errors import UsageError

LOGS = "logs"
POLL_SECONDS = 0.2


@dataclass
class Child:
    task: Task
    device: str
    process: subprocess.Popen
    log: IO[bytes]


def parse_devices(text: str) -> list[str]:
    """ "0,1" → ["0", "1"], numbers of GPUs; "cpu" for a process without one. UsageError for anything else."""
    devices = [part.strip() for part in text.split(",")]
    if not all(part == "cpu" or part.isdecimal() for part in devices):
        raise UsageError(f"--devices is {text!r}; give numbers of GPUs, as 0,1,2,3")
    gpus = [part for part in devices if part != "cpu"]
    if len(set(gpus)) < len(gpus):
        raise UsageError(f"--devices is {text!r}; name every GPU once, as each holds one run at a time")
    return devices


def run_side_by_side(
    tasks: Sequence[Task], commands: Sequence[Sequence[str]], devices: Sequence[str], out: Path, say: Say
) -> None:
    """Every task by its command, on whichever device is free. Output goes to out/logs/NAME.log.

    On SIGINT or SIGTERM the children are told to save and stop, and Interrupted is raised; FailureError, after the
    last, where tasks failed.
    """
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    waiting, free, failures = list(zip(tasks, commands, strict=True)), list(devices), {}
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        running: list[Child] = []
        stack.callback(_stop, running)
        while waiting or running:
            while waiting and free and not stop.received:
                child = _start(*waiting.pop(0), free.pop(0), out)
                say(f"{child.task.job.name}: on {child.device}, log in {child.log.name}")
                running.append(child)
            if stop.received:
                raise Interrupted("stopped; runs are saved, and the same command goes on from there", stop.received)
            time.sleep(POLL_SECONDS)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                free.append(child.device)
                _settle(child, out, failures, say)
    report(failures, len(tasks), say)


def _start(task: Task, command: Sequence[str], device: str, out: Path) -> Child:
    seen = "" if device == "cpu" else device
    log = (out / LOGS / f"{task.job.name}.log").open("ab")
    # A session of its own: Ctrl-C reaches the parent alone, which passes it on once; a second one would not be saved.
    process = subprocess.Popen(
        [*command, "--device", "cuda" if seen else "cpu"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": seen},
        start_new_session=True,
    )
    return Child(task, device, process, log)


def _settle(child: Child, out: Path, failures: dict[str, str], say: Say) -> None:
    child.log.close()
    name, code = child.task.job.name, child.process.returncode
    state = child.task.state(out)
    if code == 0 and state.stage == "evaluated":
        say(f"{name}: done")
        return
    failures[name] = f"exit code {code}, {state}, {_last_line(Path(child.log.name))}"
    say(f"{name}: failed, {failures[name]}")


def _last_line(log: Path) -> str:
    """The end of a log that may hold carriage returns of bars and anything else."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")


def _stop(running: Sequence[Child]) -> None:
    """SIGTERM to all, then wait for each: they save first."""
    for child in running:
        child.process.terminate()
    for child in running:
        child.process.wait()
        child.log.close()
