"""A job: one run, trained and evaluated. Sweeps, comparisons and demos are lists of jobs.

    recipe + settings + shards ──► train (exact resume) ──► evaluate (trained, untrained, transfers) ──► out/name

Every part is done once, however often the job is run. A kill at any moment leaves a run directory that the same job
continues: the trainer saves on SIGINT and SIGTERM, and an evaluation writes its numbers at its end, all at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from seqjepa.config import EvalConfig, RunConfig
from seqjepa.data.actions import OF_THE_SHARDS
from seqjepa.evaluate.checkpoints import evaluate_checkpoints, note_evaluation, numbers_at, numbers_of
from seqjepa.evaluate.run import evaluate_run
from seqjepa.files import TEMPORARY
from seqjepa.recipes import flatten, load_recipe
from seqjepa.training.checkpoint import weights_epochs
from seqjepa.training.data import open_training_data
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.progress import Say
from seqjepa.training.run import FREE_KEYS, RunPlan, check_same_run, read_run_config, read_run_json
from seqjepa.training.run_files import CONFIG, METRICS, RUN, WEIGHTS
from seqjepa.training.train import train
from shards.errors import ConfigError, DamageError, FormatError, UsageError

Stage = Literal["missing", "training", "trained", "evaluated", "another run", "unreadable"]


@dataclass(frozen=True)
class Job:
    """One run and the evaluations that it needs.

    name        its folder below `out`
    recipe      a packaged recipe's name, or a path to a TOML file
    settings    "a.b=c", applied to the recipe in order
    evaluation  keyword arguments of evaluate_run, without its device and its folder
    untrained   whether the initial weights are evaluated too, as the floor
    transfers   keyword arguments of evaluate_run, `shards` among them, for evaluations of the trained weights on shards
                that they were not trained on (Figure 15)
    checkpoints  epochs after which weights are kept (train.keep_epochs) and evaluated as the last ones are
    kind        of the shards, for lists (paper/runs.toml)
    """

    name: str
    recipe: str
    settings: tuple[str, ...]
    shards: Path
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    untrained: bool = False
    transfers: tuple[Mapping[str, Any], ...] = ()
    checkpoints: tuple[int, ...] = ()
    kind: str = ""

    def config(self) -> RunConfig:
        """The run's settings, validated; ConfigError names every mistake."""
        return load_recipe(self.recipe, self.settings)

    def evaluations(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """("untrained" | "trained" | "transfer", keyword arguments of evaluate_run), in the order of the work."""
        for weights in ("untrained", "trained") if self.untrained else ("trained",):
            yield weights, dict(self.evaluation)
        for transfer in self.transfers:
            yield "transfer", dict(transfer)

    @property
    def on_the_way(self) -> dict[str, Any]:
        """The evaluation of its checkpoints: without the unpooled map, which takes longer than all else."""
        return {**self.evaluation, "unpooled": False}


@dataclass(frozen=True)
class State:
    """How far a job has got. epochs: done so far, of epochs_planned. reason: why a run is unreadable."""

    stage: Stage
    epochs: int
    epochs_planned: int
    reason: str = ""

    def __str__(self) -> str:
        if self.stage == "training":
            return f"training {self.epochs} of {self.epochs_planned} epochs"
        return f"{self.stage}: {self.reason}" if self.reason else self.stage


def run_job(
    job: Job,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> Path:
    """Do what is left to do of `job` in out/name, and return that run directory.

    say is called with a line before each part that is done. Raises UsageError where out/name holds another run;
    Interrupted after a signal while training (the state was saved); whatever training and evaluation raise.
    """
    train_job(job, out, device=device, workers=workers, progress=progress, say=say)
    return evaluate_job(job, out, device=device, progress=progress, say=say)


def train_job(
    job: Job, out: Path, *, device: str, workers: int | None, progress: bool = True, say: Say | None = None
) -> None:
    """Train the run, or what is left of it. Arguments and errors as of run_job."""
    run, config = Path(out) / job.name, job.config()
    if not is_trained(run, config, job.shards):
        if say:
            say(f"{job.name}: train {config.optim.epochs} epochs")
        train(config, job.shards, run, device=device, workers=workers, progress=progress)


def evaluate_job(job: Job, out: Path, *, device: str, progress: bool = True, say: Say | None = None) -> Path:
    """Do the evaluations of a trained run whose numbers are not there. Arguments and errors as of run_job."""
    run = Path(out) / job.name
    for weights, evaluation in job.evaluations():
        if numbers_of(run, weights, evaluation, job.shards) is not None:
            continue
        if say:
            subject = f"on {evaluation['shards']}" if weights == "transfer" else f"the {weights} weights"
            say(f"{job.name}: evaluate {subject}")
        asked = {"shards": job.shards, **evaluation, "untrained": weights == "untrained"}
        results = evaluate_run(run, device=device, progress=progress, **asked)
        note_evaluation(run, weights, evaluation, results, job.shards)
    if any(not _is_looked_at(job, run, epoch) for epoch in job.checkpoints):
        if say:
            say(f"{job.name}: evaluate the weights after {', '.join(map(str, job.checkpoints))} epochs")
        evaluate_checkpoints(run, job.shards, job.checkpoints, device=device, progress=progress, **job.on_the_way)
    return run


def evaluations_left(job: Job, out: Path) -> int:
    """How many of a job's evaluations, of weights on the way too, have no numbers yet."""
    run = Path(out) / job.name
    left = sum(numbers_of(run, *evaluation, job.shards) is None for evaluation in job.evaluations())
    return left + sum(not _is_looked_at(job, run, epoch) for epoch in job.checkpoints)


def _is_looked_at(job: Job, run: Path, epoch: int) -> bool:
    """Whether the weights after so many epochs have their numbers."""
    return numbers_at(run, job.shards, epoch, EvalConfig(**job.on_the_way)) is not None


def is_trained(run: Path, config: RunConfig, shards: Path) -> bool:
    """Whether `run` holds the finished, whole weights of this run. UsageError where it holds another run."""
    if not (run / RUN).exists():
        return False
    source = open_training_data(shards, config)
    check_same_run(run, RunPlan(source.config, source.data, source.names))
    return _has_weights_of(run, config.optim.epochs)


def refuse_other_runs(job: Job, out: Path) -> None:
    """Raise what would stop the job before it begins: ConfigError for its settings, UsageError for out/name."""
    run, config = Path(out) / job.name, job.config()
    ours = run.is_dir() and ((run / RUN).exists() or all(p.name.startswith(TEMPORARY) for p in run.iterdir()))
    if run.exists() and not ours:
        raise UsageError(f"{run} is there and is not a run directory; choose another --out")
    is_trained(run, config, job.shards)


def state_of(job: Job, out: Path) -> State:
    """The state of out/name. The shards are not opened, so two sets with the same settings are not told apart.

    "another run": the folder holds one with other settings, which the job would refuse. "unreadable": files of the run
    are damaged.
    """
    try:
        return _state_of(job, Path(out) / job.name)
    except (FormatError, DamageError, ConfigError) as error:
        return State("unreadable", 0, job.config().optim.epochs, str(error))


def _state_of(job: Job, run: Path) -> State:
    config = job.config()
    planned = config.optim.epochs
    if not (run / RUN).exists():
        return State("missing", 0, planned)
    done = len(read_epochs(run / METRICS))
    if (run / CONFIG).exists() and _differs(read_run_config(run), config):
        return State("another run", done, planned)
    if read_run_json(run).get("finished_epochs") != planned:
        return State("training", done, planned)
    if not _has_weights_of(run, planned):
        return State("unreadable", done, planned, f"{run / WEIGHTS} is not there or not whole")
    return State("trained" if evaluations_left(job, run.parent) else "evaluated", done, planned)


def _differs(there: RunConfig, asked: RunConfig) -> bool:
    """Whether settings differ that a resumed run may not change."""
    old, new = flatten(there.model_dump()), flatten(asked.model_dump())
    if asked.data.action == OF_THE_SHARDS:
        del new["data.action"]  # the run notes what the shards declare
    return any(old[key] != value for key, value in new.items() if key not in FREE_KEYS)


def _has_weights_of(run: Path, epochs: int) -> bool:
    """Whether run.json says that `epochs` are done, and the weights are whole and of so many (in old runs: of any)."""
    return read_run_json(run).get("finished_epochs") == epochs and weights_epochs(run / WEIGHTS) in (epochs, None)
