"""Doing a sweep's tasks one after the other, here; what fails is told at the end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from seqjepa.jobs.job import Say, run_job
from seqjepa.sweep.plan import Task
from seqjepa.training.stopping import Interrupted
from shards.errors import FailureError

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
