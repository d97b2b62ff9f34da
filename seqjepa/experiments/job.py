"""A job: one run trained and evaluated, each part once however often the job is asked for.

    recipe + settings + shards ──► train (exact resume) ──► evaluate (trained, untrained, transfers) ──► out/name

A kill at any moment leaves a run directory that the same job goes on from: the trainer saves on SIGINT and SIGTERM,
and the numbers of an evaluation are written at its end, at once.

How far a job has got, read from its run directory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seqjepa.config import RunConfig
from seqjepa.evaluate.run import evaluate_run
from seqjepa.experiments.evaluation_cache import note_answer, still_answered
from seqjepa.files import TEMPORARY
from seqjepa.recipes import flatten, load_recipe
from seqjepa.training.checkpoint import weights_epochs
from seqjepa.training.data import open_training_data
from seqjepa.training.loggers import read_epochs
from seqjepa.training.run import (
    CONFIG,
    FREE_KEYS,
    METRICS,
    RUN,
    WEIGHTS,
    Plan,
    check_same_run,
    read_run_config,
    read_run_json,
)
from seqjepa.training.train import train
from shards.errors import ConfigError, DamageError, FormatError, UsageError

Say = Callable[[str], object]


@dataclass(frozen=True)
class Transfer:
    """A second evaluation of the trained weights, on shards that they were not trained on (Figure 15)."""

    shards: Path
    evaluation: Mapping[str, Any] = field(default_factory=dict)

    def question(self) -> dict[str, Any]:
        """What tells it from other transfers of the same run."""
        return {"shards": self.shards, **self.evaluation}


@dataclass(frozen=True)
class Job:
    """One run and what is to be known of it.

    name        its folder below `out`
    recipe      a packaged recipe's name, or a path to a TOML file
    settings    "a.b=c", applied to the recipe in order
    evaluation  keyword arguments of evaluate_run; its device and its folder are the job's
    untrained   whether the initial weights are evaluated too, as the floor
    """

    name: str
    recipe: str
    settings: tuple[str, ...]
    shards: Path
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False
    transfers: tuple[Transfer, ...] = ()

    def config(self) -> RunConfig:
        """The run's settings, validated; ConfigError names every mistake."""
        return load_recipe(self.recipe, self.settings)


def run_job(
    job: Job,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> Path:
    """Does what is left to do of `job` in out/name, and returns that run directory.

    say hears a line before each part that is done. Raises UsageError where out/name holds another run; Interrupted
    after a signal while training (then the state was saved); whatever training and evaluation raise.
    """
    run, hear = Path(out) / job.name, say or (lambda line: None)
    config = job.config()
    if not is_trained(run, config, job.shards):
        hear(f"{job.name}: train {config.optim.epochs} epochs")
        train(config, job.shards, run, device=device, workers=workers, progress=progress)
    evaluate = partial(evaluate_run, run, device=device, progress=progress)
    for weights in ("untrained", "trained") if job.untrained else ("trained",):
        if not still_answered(run, weights, job.evaluation):
            hear(f"{job.name}: evaluate the {weights} weights")
            results = evaluate(shards=job.shards, untrained=weights == "untrained", **job.evaluation)
            note_answer(run, weights, job.evaluation, results)
    for transfer in job.transfers:
        _transfer(run, transfer, evaluate, hear)
    return run


def is_trained(run: Path, config: RunConfig, shards: Path) -> bool:
    """Whether `run` holds the weights of this run, finished and whole. UsageError where it holds another run."""
    if not (run / RUN).exists():
        return False
    source = open_training_data(shards, config)
    check_same_run(run, Plan(config, source.data, source.names))
    return is_finished(run, config.optim.epochs)


def is_finished(run: Path, epochs: int) -> bool:
    """Whether run.json says so and the weights are there, whole, and of so many epochs (of old runs: of any)."""
    return read_run_json(run).get("finished_epochs") == epochs and weights_epochs(run / WEIGHTS) in (epochs, None)


def refuse_other_runs(job: Job, out: Path) -> None:
    """What would stop the job before it begins: ConfigError for its settings, UsageError for what lies in out/name."""
    run, config = Path(out) / job.name, job.config()
    if run.exists() and not (run / RUN).exists() and (not run.is_dir() or _foreign(run)):
        raise UsageError(f"{run} is there and is not a run directory; choose another --out")
    is_trained(run, config, job.shards)


def _foreign(run: Path) -> bool:
    return any(not path.name.startswith(TEMPORARY) for path in run.iterdir())


def _transfer(run: Path, transfer: Transfer, evaluate: Callable[..., dict[str, Any]], hear: Say) -> None:
    if not still_answered(run, "transfer", transfer.question()):
        hear(f"{run.name}: evaluate on {transfer.shards}")
        results = evaluate(shards=transfer.shards, **transfer.evaluation)
        note_answer(run, "transfer", transfer.question(), results)


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
