"""Doing a sweep: here, side by side on several GPUs, or as a script for Slurm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqjepa.devices import pick_device
from seqjepa.jobs.job import Say
from seqjepa.sweep.plan import Request, Task, require_shards
from seqjepa.sweep.pool import parse_devices, run_side_by_side
from seqjepa.sweep.run import run_tasks
from seqjepa.sweep.slurm import write_script
from seqjepa.sweep.tables import find_sheet
from shards.errors import UsageError
from shards.reader import ShardSet


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
