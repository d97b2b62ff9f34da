"""How far a job has got, read from its run directory alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqjepa.jobs.asked import still_answered
from seqjepa.jobs.job import Job, is_finished
from seqjepa.recipes import flatten
from seqjepa.training.checkpoint import CONFIG, METRICS, RUN, WEIGHTS, read_run_config, read_run_json
from seqjepa.training.run_directory import FREE_KEYS
from seqjepa.training.runlog import read_epochs
from shards.errors import ConfigError, DamageError, FormatError

Stage = Literal["missing", "training", "trained", "evaluated", "another run", "unreadable"]


@dataclass(frozen=True)
class State:
    """epochs: done so far, of epochs_planned. reason: why a run is unreadable."""

    stage: Stage
    epochs: int
    epochs_planned: int
    reason: str = ""

    def __str__(self) -> str:
        if self.stage == "training":
            return f"training {self.epochs} of {self.epochs_planned} epochs"
        return f"{self.stage}: {self.reason}" if self.reason else self.stage


def state_of(job: Job, out: Path) -> State:
    """Without the shards being opened, so that two sets of the same settings are not told apart.

    "another run": the folder holds one of other settings, which the job would refuse. "unreadable": files of a run that
    are damaged.
    """
    try:
        return _state_of(job, out)
    except (FormatError, DamageError, ConfigError) as error:
        return State("unreadable", 0, job.config().optim.epochs, str(error))


def _state_of(job: Job, out: Path) -> State:
    run, config = Path(out) / job.name, job.config()
    planned = config.optim.epochs
    if not (run / RUN).exists():
        return State("missing", 0, planned)
    done = len(read_epochs(run / METRICS))
    if (run / CONFIG).exists():
        there, asked = (flatten(c.model_dump()) for c in (read_run_config(run), config))
        if any(there[key] != value for key, value in asked.items() if key not in FREE_KEYS):
            return State("another run", done, planned)
    finished = read_run_json(run).get("finished_epochs") == planned
    if finished and not is_finished(run, planned):
        return State("unreadable", done, planned, f"{run / WEIGHTS} is not there or not whole")
    if not finished:
        return State("training", done, planned)
    return State("evaluated" if _is_evaluated(job, run) else "trained", done, planned)


def _is_evaluated(job: Job, run: Path) -> bool:
    weights = ("untrained", "trained") if job.untrained else ("trained",)
    return all(still_answered(run, name, job.evaluation) for name in weights) and all(
        still_answered(run, "transfer", transfer.question()) for transfer in job.transfers
    )
