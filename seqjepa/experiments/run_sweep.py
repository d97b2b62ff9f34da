"""Running a sweep's jobs: one after the other here, side by side on several GPUs, or by a Slurm array."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from seqjepa.devices import pick_device
from seqjepa.experiments.job import Job, Say, run_job, state_of
from seqjepa.experiments.sweep import Runs
from seqjepa.experiments.time_left import time_left
from seqjepa.training.stopping import Interrupted, StopSignals
from shards.engines.sbatch import NUMBER, Array, write_sbatch
from shards.errors import FailureError, UsageError
from shards.reader import ShardSet

logger = logging.getLogger(__name__)
LOGS = "logs"
POLL_SECONDS = 0.2
SAY_SECONDS = 600.0
"""How often the hours that are left are said, beside whenever a run is finished."""
Hours = Callable[[int], str]
"""Runs at a time → what is to be said of the time that is left."""


@dataclass(frozen=True)
class Resources:
    """Where the runs take place. device, workers: as of `seqjepa train`. devices: as parse_devices takes them.

    slurm: the file of the sbatch script that is to be written instead.
    """

    device: str = "auto"
    workers: int | None = None
    devices: str | None = None
    slurm: Path | None = None


def run_sweep(sweep: Runs, jobs: Mapping[int, Job], out: Path, on: Resources, say: Say) -> None:
    """Do everything that is left to do of `jobs` (Sweep.jobs), or write a script that does it.

    UsageError, before anything is written: shards are missing, or as Runs.check says. FailureError: runs failed,
    after all were tried.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; it needs a folder")
    sweep.check(jobs.values(), out)
    pick_device(on.device)
    for folder in {job.shards for job in jobs.values()}:
        ShardSet.open(folder)
    hours = partial(time_left, jobs.values(), out, assumed=sweep.pace if _on_cpu(on) else None)
    if on.slurm is None and on.devices is None:
        _run_in_turn(jobs.values(), out, on, say, hours)
        return
    command = command_of(sweep, out, on)
    left = {number: job for number, job in jobs.items() if state_of(job, out).stage != "evaluated"}
    if on.slurm is not None:
        write_script(on.slurm, sweep.table, sweep.title, left, command, out)
        say(f"{on.slurm}: an array of {len(left)} runs; submit it with `sbatch {on.slurm}`")
    elif on.devices is not None:
        say(f"{len(jobs) - len(left)} of {len(jobs)} runs are trained and evaluated")
        _run_side_by_side(left, command, parse_devices(on.devices), out, say, hours)


def command_of(sweep: Runs, out: Path, on: Resources) -> list[str]:
    """The words of the command that runs the whole sweep; with --task, one of its tasks."""
    # -P: a cli.py in the current folder is not ours.
    words = [sys.executable, "-P", "-m", "cli", "sweep", *sweep.arguments(), "--run", "--out", str(out)]
    return words if on.workers is None else [*words, "--workers", str(on.workers)]


def parse_devices(text: str) -> list[str]:
    """ "0,1" → ["0", "1"], numbers of GPUs that this process sees; "cpu" for a process without one. UsageError for
    anything else."""
    devices = [part.strip() for part in text.split(",")]
    if not all(part == "cpu" or part.isdecimal() for part in devices):
        raise UsageError(f"--devices is {text!r}; give numbers of GPUs, as 0,1,2,3")
    gpus = [part for part in devices if part != "cpu"]
    if len(set(gpus)) < len(gpus):
        raise UsageError(f"--devices is {text!r}; name every GPU once, as each holds one run at a time")
    shown = _shown()
    if shown is not None and any(int(part) >= len(shown) for part in gpus):
        raise UsageError(f"--devices is {text!r}, but CUDA_VISIBLE_DEVICES shows {len(shown)}, counted from 0")
    return devices


def _shown() -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that a scheduler or user shows us, in order; None: all there are."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return None if names is None else [name.strip() for name in names.split(",") if name.strip()]


def _only(device: str) -> str:
    """CUDA_VISIBLE_DEVICES of a process that sees that device alone."""
    if device == "cpu":
        return ""
    shown = _shown()
    return device if shown is None else shown[int(device)]


def _run_in_turn(jobs: Collection[Job], out: Path, on: Resources, say: Say, hours: Hours) -> None:
    """Every job in order. A signal ends the sweep; FailureError, after the last, where runs failed."""
    failures: dict[str, str] = {}
    for position, job in enumerate(jobs, start=1):
        try:
            state = state_of(job, out)
            say(f"[{position}/{len(jobs)}] {job.name}: {state}")
            if state.stage != "evaluated" and len(jobs) > 1 and (left := hours(1)):
                say(left)
            run_job(job, out, device=on.device, workers=on.workers, say=say)
        except Interrupted:
            raise
        except Exception as error:  # a failure of one run need not be one of the next
            logger.debug("%s", job.name, exc_info=True)
            failures[job.name] = f"{type(error).__name__}: {error}"
            say(f"{job.name}: failed, {failures[job.name]}")
    _report_failures(failures, len(jobs), say)


def _run_side_by_side(
    jobs: Mapping[int, Job], command: Sequence[str], devices: Sequence[str], out: Path, say: Say, hours: Hours
) -> None:
    """Every job by `command` --task, in a process of its own, on whichever device is free. Output: out/logs/NAME.log.

    On SIGINT or SIGTERM the children are told to save and stop, and Interrupted is raised; FailureError, after the
    last, where runs failed.
    """
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    waiting, free, failures = list(jobs.items()), list(devices), {}
    due = 0.0
    with ExitStack() as stack:
        stop = stack.enter_context(StopSignals())
        running: list[_Child] = []
        stack.callback(_terminate_all, running)
        while waiting or running:
            while waiting and free and not stop.received:
                number, job = waiting.pop(0)
                child = _start(job, [*command, "--task", str(number)], free.pop(0), out, len(devices))
                say(f"{job.name}: on {child.device}, log in {child.log.name}")
                running.append(child)
            if stop.received:
                raise Interrupted("stopped; runs are saved, and the same command goes on from there", stop.received)
            if time.monotonic() > due:
                if left := hours(len(devices)):
                    say(left)
                due = time.monotonic() + SAY_SECONDS
            time.sleep(POLL_SECONDS)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                free.append(child.device)
                _finish(child, out, failures, say)
                due = 0.0
    _report_failures(failures, len(jobs), say)


def _on_cpu(on: Resources) -> bool:
    """What is assumed of runs before one is measured is of those."""
    return pick_device(on.device).type == "cpu" if on.devices is None else set(parse_devices(on.devices)) == {"cpu"}


class _Child(NamedTuple):
    job: Job
    device: str
    process: subprocess.Popen
    log: IO[bytes]


def _start(job: Job, command: Sequence[str], device: str, out: Path, beside: int) -> _Child:
    """The command in a process that sees no other device. beside: so many at a time."""
    visible = _only(device)
    # On a CPU, each process's share of the cores: threads of several that wait for each other's cores are slower.
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // beside))} if device == "cpu" else {}
    log = (out / LOGS / f"{job.name}.log").open("ab")
    # A session of its own: Ctrl-C reaches the parent alone, which passes it on once; a second one would not be saved.
    process = subprocess.Popen(
        [*command, "--device", "cuda" if visible else "cpu"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**threads, **os.environ, "CUDA_VISIBLE_DEVICES": visible},
        start_new_session=True,
    )
    return _Child(job, device, process, log)


def _finish(child: _Child, out: Path, failures: dict[str, str], say: Say) -> None:
    child.log.close()
    name, code, state = child.job.name, child.process.returncode, state_of(child.job, out)
    if code == 0 and state.stage == "evaluated":
        say(f"{name}: done")
        return
    failures[name] = f"exit code {code}, {state}, {_last_line(Path(child.log.name))}"
    say(f"{name}: failed, {failures[name]}")


def _last_line(log: Path) -> str:
    """The end of a log, which may hold carriage returns of bars and anything else."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "without a word")


def _terminate_all(running: Sequence[_Child]) -> None:
    """SIGTERM to all, then wait for each: they save first."""
    for child in running:
        child.process.terminate()
    for child in running:
        child.process.wait()
        child.log.close()


def _report_failures(failures: dict[str, str], of: int, say: Say) -> None:
    """Say how the sweep went. FailureError names the tasks that failed, if any did; their reasons are said before."""
    if not failures:
        say(f"all {of} runs are trained and evaluated")
        return
    for name, reason in failures.items():
        say(f"failed: {name}: {' '.join(reason.split())}")
    raise FailureError(
        f"{len(failures)} of {of} runs failed: {', '.join(failures)}; what could be done is done, and the same command "
        "tries these again"
    )


def write_script(file: Path, table: str, title: str, tasks: Collection[int], command: Sequence[str], out: Path) -> None:
    """The sbatch script; `command` is that of the whole sweep. Near its time limit a task saves and is queued again.

    UsageError: there is a file of that name that is not such a script, or nothing is left to do.
    """
    if not tasks:
        raise UsageError(f"{table}: every run is trained and evaluated; there is nothing for an array to do")
    array = Array(
        f"seqjepa sweep {table}: {title}",
        f"seqjepa-{table}",
        ",".join(map(str, tasks)),
        f"--task {NUMBER}",
        "--gres=gpu:1 --cpus-per-task=8 --mem=32G",
        notice=120,
    )
    write_sbatch(file, "--slurm", "seqjepa sweep --slurm", array, command, (out / "logs").resolve())
