"""A job: one run trained and evaluated, each part once however often the job is asked for.

    recipe + settings + shards ──► train (exact resume) ──► evaluate (trained, untrained, transfers) ──► out/name

A kill at any moment leaves a run directory that the same job goes on from: the trainer saves on SIGINT and SIGTERM,
and the numbers of an evaluation are written at its end, at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.evaluate.run import evaluate_run
from seqjepa.files import TEMPORARY
from seqjepa.jobs.asked import note_answer, still_answered
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import RUN, WEIGHTS, read_run_json, weights_epochs
from seqjepa.training.data import open_training_data
from seqjepa.training.run_directory import Plan, check_same_run
from seqjepa.training.train import train
from shards.errors import UsageError

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
