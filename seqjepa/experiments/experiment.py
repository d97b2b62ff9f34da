"""An experiment (paper/runs.toml): methods alike as `seqjepa compare` has them, at several lengths of training, and one
of them with one change at a time; as jobs.

A run with a constant learning rate is a finished run at any length, so one serves all of them: its weights are kept and
evaluated on the way. With a cosine each length is a run of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.experiments.compare import common_settings, compared_recipe, method_settings, training_samples
from seqjepa.experiments.job import Job, refuse_other_runs
from seqjepa.experiments.paper_runs import ExperimentRuns, Variant, paper_experiments
from seqjepa.experiments.scale import RunScale, SynthSet, assignments, load_scale
from seqjepa.experiments.schedule import LENGTHS, Schedule, plan_steps
from seqjepa.experiments.sweep import FIRST_SEED, Runs, one_task, options
from seqjepa.experiments.time_left import Pace
from seqjepa.recipes import did_you_mean, flatten, load_recipe
from shards.errors import UsageError
from shards.stores.store import INFO

METHODS = "methods"
KEYS = ("part", "name", "length", "seed")
"""What --only chooses by."""


@dataclass(frozen=True)
class Run:
    """One run's place. part: "methods", or which changes. length: of training, in the scale's `steps`.

    looks     shorter lengths at which its weights are kept and evaluated: ascending
    schedule  of the learning rate, "constant" or "cosine"
    """

    part: str
    name: str
    length: int
    seed: int
    looks: tuple[int, ...]
    schedule: str

    def finished_at(self, lengths: Iterable[int]) -> tuple[int, ...]:
        """Those of `lengths` that it serves as a finished run."""
        mine = {self.length, *(self.looks if self.schedule == "constant" else ())}
        return tuple(length for length in lengths if length in mine)


@dataclass(frozen=True)
class Experiment(Runs):
    """The runs of the experiment `table`. seeds, scale: None for what it is meant with.

    shards     of its kind
    only       "KEY=A,B" each (KEYS): of all runs those that have one of the values, for each key
    to_render  what `shards` will hold, where nothing is there yet
    """

    table: str
    shards: Path
    seeds: int | None = None
    scale: str | None = None
    untrained: bool = False
    only: tuple[str, ...] = ()
    to_render: SynthSet | None = None

    @cached_property
    def runs(self) -> ExperimentRuns:
        return paper_experiments()[self.table]

    @cached_property
    def at(self) -> RunScale:
        return load_scale(self.scale_name)

    @property
    def pace(self) -> Pace:
        return Pace(self.at.experiment.views_per_s, self.at.experiment.evaluation_s)

    def jobs(self, task: int | None = None) -> dict[int, Job]:
        """By its number in the list of all, every job that --only leaves, or the one of number `task`.

        UsageError, ConfigError: --only says nothing of ours, no such task, or settings that are not allowed.
        """
        return one_task({number: job for number, (_, job) in self.listed.items()}, task)

    @cached_property
    def listed(self) -> dict[int, tuple[Run, Job]]:
        """jobs, each with its place: all of a seed before the next, methods before changes.

        Of a part of them, the runs that its changes are made to are part.
        """
        wanted = _parse_only(self.only)
        places = {n: {**vars(run), "length": run.finished_at(self.lengths)} for n, (run, _) in self.every.items()}
        _refuse_unknown(wanted, places.values())
        chosen = {n for n in self.every if all(wanted[key].intersection(_words(places[n][key])) for key in wanted)}
        changed = {(run.seed, run.length) for n, (run, _) in self.every.items() if n in chosen and run.part != METHODS}
        return {
            n: (run, job)
            for n, (run, job) in self.every.items()
            if n in chosen or any((run.seed, length) in changed for length in self.base_at(run))
        }

    @cached_property
    def every(self) -> dict[int, tuple[Run, Job]]:
        """All jobs, whatever --only says, each with its place."""
        seeds = range(FIRST_SEED, FIRST_SEED + (self.seeds or self.runs.seeds))
        return dict(enumerate(chain.from_iterable(map(self._of_seed, seeds))))

    def base_at(self, run: Run) -> tuple[int, ...]:
        """Lengths at which it is the run that changes are made to."""
        is_base = run.part == METHODS and run.name == self.runs.base
        return run.finished_at(self.at.experiment.changed_at) if is_base else ()

    @property
    def lengths(self) -> tuple[int, ...]:
        """At which methods are compared, and those of changes: ascending."""
        return tuple(sorted({*self.at.experiment.lengths, *self.at.experiment.changed_at}))

    def schedule_of(self, variant: Variant, views: int) -> Schedule:
        """Of length 1, for sequences of so many views."""
        usual = self.at.compare.views_per_step
        of = sorted({*LENGTHS, views}) if variant.views_per_step in (0, usual) else [views]
        return plan_steps(self.training_samples, self.at.experiment.steps, variant.views_per_step or usual, of)

    def steps_of(self, run: Run, length: int) -> int:
        """Optimizer steps of a run after `length` times the scale's steps."""
        variant = (self.runs.methods if run.part == METHODS else self.runs.changes[run.part])[run.name]
        views = self._plain(run.name, variant).data.context + 1
        return self.schedule_of(variant, views).times(length).steps

    def check(self, jobs: Iterable[Job], out: Path) -> None:
        """UsageError: another run is in a job's folder."""
        for job in jobs:
            refuse_other_runs(job, out)

    def arguments(self) -> list[str]:
        """The words after `seqjepa sweep` that ask for it."""
        only = [word for text in self.only for word in ("--only", text)]
        shards = ["--shards", f"{self.runs.kind}={self.shards}"]
        return [self.table, *shards, *only, *options(seeds=self.seeds, scale=self.scale, untrained=self.untrained)]

    @cached_property
    def training_samples(self) -> int:
        """Of the set, be it there yet or not."""
        if self.to_render is None:
            return training_samples(self.shards)
        from seqjepa.experiments.demos import training_objects  # renders, which few commands need

        return training_objects(self.to_render.model_dump())

    def _of_seed(self, seed: int) -> Iterator[tuple[Run, Job]]:
        for name, variant in self.runs.methods.items():
            plain = self._plain(name, variant)
            constant = plain.optim.schedule == "constant"
            for length in self.lengths[-1:] if constant else self.lengths:
                yield self._run(METHODS, name, variant, plain, length, seed)
        for part, variants in self.runs.changes.items():
            for name, variant in variants.items():
                plain = self._plain(name, variant)
                for length in sorted({*self.at.experiment.changed_at}):
                    yield self._run(part, name, variant, plain, length, seed)

    def _run(self, part: str, name: str, variant: Variant, plain: RunConfig, length: int, seed: int) -> tuple[Run, Job]:
        looks = sorted({*self.lengths, *self.at.experiment.looks}) if part == METHODS else []
        run = Run(part, name, length, seed, tuple(look for look in looks if look < length), plain.optim.schedule)
        return run, self._job(run, variant, plain)

    def _job(self, run: Run, variant: Variant, plain: RunConfig) -> Job:
        method, views = variant.method or run.name, plain.data.context + 1
        once = self.schedule_of(variant, views)
        # Weights on the way are those of finished runs only if warm-up ends long before.
        shortest = once.times(min((run.length, *run.looks))) if run.schedule == "constant" else None
        kept = [once.epochs[views] * look for look in run.looks]
        scale = "" if self.at.name == self.runs.scale else f"{self.at.name}-"
        asked = self.at.compare.evaluation.model_dump(exclude_unset=True)
        job = Job(
            name=f"{run.name}-{scale}x{run.length}-seed{run.seed}",
            recipe=compared_recipe(method)[0],
            settings=(
                *self._own_settings(method, variant),
                *common_settings(run.name, plain, once.times(run.length), shortest),
                *((f"train.keep_epochs={kept}",) if kept else ()),
                f"name={self.table}-{run.name}",
                f"seed={run.seed}",
            ),
            shards=self.shards,
            evaluation={**asked, "seed": run.seed},
            untrained=self.untrained or (run.name == self.runs.base and run.length == self.lengths[0]),
            checkpoints=tuple(kept),
            kind=self.runs.kind,
        )
        job.config()  # every mistake before the first run
        return job

    def _plain(self, name: str, variant: Variant) -> RunConfig:
        method = variant.method or name
        return load_recipe(compared_recipe(method)[0], self._own_settings(method, variant))

    def _own_settings(self, method: str, variant: Variant) -> tuple[str, ...]:
        return (*method_settings(method, self.at), *assignments(flatten(variant.settings)))


def experiment_named(
    table: str,
    shards: Mapping[str, Path],
    out: Path,
    seeds: int | None,
    scale: str | None,
    untrained: bool,
    only: tuple[str, ...],
) -> Experiment:
    """An experiment on the shards of its kind, or where there are none on a set below `out` that its scale says.

    UsageError, ConfigError: shards of another kind, or a scale that says nothing that can be rendered.
    """
    runs = paper_experiments()[table]
    if others := set(shards) - {runs.kind}:
        raise UsageError(f"--shards {min(others)}=…: {table} takes {runs.kind}=DIR, or renders a set of its own")
    if runs.kind in shards:
        return Experiment(table, shards[runs.kind], seeds, scale, untrained, only)
    own = load_scale(scale or runs.scale).experiment.set
    folder = out / f"3die-{own.preset}-{own.objects}x{own.views}-{own.size}px"
    missing = None if (folder / INFO).exists() else own
    return Experiment(table, folder, seeds, scale, untrained, only, missing)


def _parse_only(given: Iterable[str]) -> dict[str, set[str]]:
    """["length=1,4"] → {"length": {"1", "4"}}, of a key that is given twice all values. UsageError: another form."""
    found: dict[str, set[str]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        words = {word.strip() for word in values.split(",")} - {""}
        if key not in KEYS or not equals or not words:
            raise UsageError(
                f"--only is {text!r}; write {', '.join(f'{k}=A,B' for k in KEYS)}, as name=seq_jepa,simclr"
            )
        found[key] = found.get(key, set()) | words
    return found


def _refuse_unknown(wanted: Mapping[str, set[str]], served: Collection[Mapping[str, Any]]) -> None:
    for key, words in wanted.items():
        known = list(dict.fromkeys(word for place in served for word in _words(place[key])))
        for word in sorted(words.difference(known)):
            raise UsageError(
                f"--only {key}={word}: no run has it{did_you_mean(word, known)}; there are: {', '.join(known)}"
            )


def _words(value: object) -> list[str]:
    return [str(one) for one in (value if isinstance(value, tuple) else (value,))]
