"""How long the rest of a list of jobs will take, from the rates of those that are under way or done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.evaluate.checkpoints import FOLDER as CHECKPOINTS
from seqjepa.evaluate.results import read_results
from seqjepa.experiments.job import Job, evaluations_left
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run_files import METRICS
from shards.errors import DamageError, FormatError
from shards.reader import ShardSet

Kind = tuple[str, float]
"""What views/s depend on most: the method and the encoder's width."""


@dataclass(frozen=True)
class Pace:
    """What is assumed before anything is measured: views/s of a run in training, seconds of an evaluation."""

    views_per_s: float
    evaluation_s: float


@dataclass
class Measured:
    """views, seconds: of training, by kind; evaluations: seconds of each."""

    views: dict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    seconds: dict[Kind, float] = field(default_factory=lambda: defaultdict(float))
    evaluations: list[float] = field(default_factory=list)

    def views_per_s(self, kind: Kind | None = None) -> float | None:
        """Of that kind of runs, or else of all."""
        views, seconds = (self.views.get(kind), self.seconds.get(kind)) if kind else (None, None)
        if views and seconds:
            return views / seconds
        total = sum(self.seconds.values())
        return sum(self.views.values()) / total if total else None


def time_left(jobs: Collection[Job], out: Path, lanes: int, *, assumed: Pace | None = None, samples: int = 0) -> str:
    """In words, of all that is to be done with `lanes` runs at a time; "" where nothing is, or nothing is known.

    jobs: those that are done too, whose rates are measured. samples: of an epoch, where the shards are not there yet.
    """
    measured, configs = Measured(), {job.name: job.config() for job in jobs}
    for job in jobs:
        _measure(measured, out / job.name, _kind(configs[job.name]))
    rate = measured.views_per_s()
    if rate is None and assumed is None:
        return ""
    seconds = sum(_seconds_left(job, configs[job.name], out, measured, assumed, samples) for job in jobs) / lanes
    if not seconds:
        return ""
    known = f"{rate:,.0f} views/s measured" if rate else f"{assumed.views_per_s:,.0f} views/s assumed"  # type: ignore[union-attr]
    beside = f", {lanes} runs at a time" if lanes > 1 else ""
    return f"about {in_words(seconds)} to go ({known}{beside})"


def in_words(seconds: float) -> str:
    """ "1 minute", "40 minutes", "5.3 hours", "31 hours"."""
    hours, minutes = seconds / 3600, max(1, round(seconds / 60))
    if hours < 1:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{hours:.{1 if hours < 10 else 0}f} hours"


def _kind(config: RunConfig) -> Kind:
    return config.method, config.model.width


def _measure(measured: Measured, run: Path, kind: Kind) -> None:
    """Add what the run says of its training and its evaluations; nothing where it cannot be read."""
    try:
        for line in read_epochs(run / METRICS):
            seconds = float(str(line["seconds"]))
            measured.views[kind] += seconds * float(str(line["views_per_s"]))
            measured.seconds[kind] += seconds
        measured.evaluations += _evaluation_seconds(run)
    except (DamageError, FormatError, KeyError):
        return


def _evaluation_seconds(run: Path) -> Iterator[float]:
    for folder in (run, *(run / CHECKPOINTS).glob("epoch-*")):
        results: dict[str, Any] = read_results(folder)
        yield from (results[side]["seconds"] for side in ("trained", "untrained") if "seconds" in results.get(side, {}))


def _seconds_left(
    job: Job, config: RunConfig, out: Path, measured: Measured, assumed: Pace | None, samples: int
) -> float:
    try:
        done, left = len(read_epochs(out / job.name / METRICS)), evaluations_left(job, out)
    except (DamageError, FormatError):
        return 0.0  # unreadable: it will fail
    views = (config.optim.epochs - done) * (samples or _samples(job, config)) * (config.data.context + 1)
    rate = measured.views_per_s(_kind(config)) or (assumed.views_per_s if assumed else 0.0)
    each = fmean(measured.evaluations) if measured.evaluations else assumed.evaluation_s if assumed else 0.0
    return views / rate + left * each


def _samples(job: Job, config: RunConfig) -> float:
    """Of an epoch, about: of windows and sets without labels more or fewer."""
    opened = ShardSet.open(job.shards)
    split = config.data.split or ("unlabeled" if "unlabeled" in opened.splits else "train")
    return len(opened.split(split)) * config.data.fraction
