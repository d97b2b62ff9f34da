"""Doing a sweep's tasks one after the other, here; what fails is told at the end.

Tasks side by side, one a device: each in a process of its own that sees no other device.

Doing a sweep: here, side by side on several GPUs, or as a script for Slurm.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from seqjepa.devices import pick_device
from seqjepa.experiments.job import Say, run_job
from seqjepa.experiments.slurm import write_script
from seqjepa.experiments.sweep import Request, Task, require_shards
from seqjepa.experiments.tables import find_sheet
from seqjepa.training.stopping import Interrupted, StopSignals
from shards.errors import FailureError, UsageError
from shards.reader import ShardSet

logger = logging.getLogger(__name__)


def run_tasks(tasks: Sequence[Task], out: Path, *, device: str, workers: int | None, say: Say) -> None:
    """Every task in order. A signal ends the sweep; FailureError, after the last, where tasks failed."""
    failures: dict[str, str] = {}
    for position, task in enumerate(tasks, start=1):
        try:
            say(f"[{position}/{len(tasks)}] {task.job.name}: {task.state(out)}")
            run_job(task.job, out, device=device, workers=workers, say=say)
        except Interrupted:
            raise
        except Exception as error:  # whatever goes wrong with one run says nothing of the next
            logger.debug("%s", task.job.name, exc_info=True)
            failures[task.job.name] = f"{type(error).__name__}: {error}"
            say(f"{task.job.name}: failed, {failures[task.job.name]}")
    report(failures, len(tasks), say)


def report(failures: dict[str, str], of: int, say: Say) -> None:
    """FailureError naming the tasks that failed, if any did; each with its reason is said before."""
    if not failures:
        say(f"all {of} runs are trained and evaluated")
        return
    for name, reason in failures.items():
        say(f"failed: {name}: {' '.join(reason.split())}")
    raise FailureError(
        f"{len(failures)} of {of} runs failed: {', '.join(failures)}; what could be done is done, and the same command "
        "tries these again"
    )


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
        stack.callback(_stop_all, running)
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


def _stop_all(running: Sequence[Child]) -> None:
    """SIGTERM to all, then wait for each: they save first."""
    for child in running:
        child.process.terminate()
    for child in running:
        child.process.wait()
        child.log.close()


@dataclass(frozen=True)
class Means:
    """Where the work is done. device, workers: as of `seqjepa train`. devices: as pool.parse_devices takes them."""

    device: str = "auto"
    workers: int | None = None
    devices: str | None = None
    slurm: Path | None = None


def perform(request: Request, tasks: Sequence[Task], out: Path, means: Means, say: Say) -> None:
    """Everything that is left to do of `tasks`, or a script that does it.

    UsageError, before anything is written: shards are missing. FailureError: runs failed, after all were tried.
    """
    require_shards(request, tasks)
    pick_device(means.device)
    for folder in {task.job.shards for task in tasks}:
        ShardSet.open(folder)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; it needs a folder")
    if means.slurm is not None:
        left = [task.number for task in tasks if task.state(out).stage != "evaluated"]
        title = find_sheet(request.table).title
        write_script(means.slurm, request.table, title, left, command_of(request, out, means), out)
        say(f"{means.slurm}: an array of {len(left)} runs; submit it with `sbatch {means.slurm}`")
    elif means.devices is not None:
        left = [task for task in tasks if task.state(out).stage != "evaluated"]
        say(f"{len(tasks) - len(left)} of {len(tasks)} runs are trained and evaluated")
        commands = [[*command_of(request, out, means), "--task", str(task.number)] for task in left]
        run_side_by_side(left, commands, parse_devices(means.devices), out, say)
    else:
        run_tasks(tasks, out, device=means.device, workers=means.workers, say=say)


def command_of(request: Request, out: Path, means: Means) -> list[str]:
    """The words of the command that does the whole sweep; with --task, one of its tasks."""
    # -P: what is called cli in the folder that we are in is somebody else's.
    words = [sys.executable, "-P", "-m", "cli", "sweep", request.table, "--run", "--out", str(out)]
    words += [word for kind, folder in request.shards.items() for word in ("--shards", f"{kind}={folder}")]
    options = {"--seeds": request.seeds, "--scale": request.scale, "--workers": means.workers}
    words += [word for name, value in options.items() if value is not None for word in (name, str(value))]
    return [*words, "--untrained"] if request.untrained else words
