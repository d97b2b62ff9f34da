"""`seqjepa sweep`: the runs that a table or figure needs, as jobs, and the list of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.experiments.job import Job, State, state_of
from seqjepa.experiments.paper_runs import (
    TableRuns,
    find_table,
    paper_experiments,
    paper_tables,
    shard_kind_of,
    shard_kinds,
)
from seqjepa.experiments.scale import RunScale, load_scale
from seqjepa.recipes import did_you_mean, load_recipe
from shards.errors import UsageError
from shards.stores.cache import local_folder

FIRST_SEED = 42
IMAGENET = "imagenet"
OOD = "3diebench-ood"
NOT_GIVEN = Path()
"""Stands for shards that a list can do without."""


class Runs(ABC):
    """What can be listed and run: a table of the paper (Sweep), a grid of settings (grid.Grid), an experiment.

    table, title, note, scale_name  what lists and scripts say of it
    runs                            of a table or experiment: its entry of paper/runs.toml
    pace                            what is assumed of its runs before one is measured; None: nothing
    """

    table: str
    scale: str | None
    runs: Any
    pace: Any = None

    @property
    def title(self) -> str:
        return self.runs.title

    @property
    def note(self) -> str:
        return self.runs.note

    @property
    def scale_name(self) -> str:
        return self.scale or self.runs.scale

    @abstractmethod
    def jobs(self, task: int | None = None) -> dict[int, Job]:
        """Every run by its number, or the one of number `task`."""

    @abstractmethod
    def check(self, jobs: Iterable[Job], out: Path) -> None:
        """Raise what would stop these jobs, before the first of them."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """The words after `seqjepa sweep` that ask for it."""


@dataclass(frozen=True)
class Sweep(Runs):
    """The runs of a table or figure. shards: by kind. seeds, scale: None for what it is published or meant with."""

    table: str
    shards: Mapping[str, Path] = field(default_factory=dict)
    seeds: int | None = None
    scale: str | None = None
    untrained: bool = False

    @property
    def runs(self) -> TableRuns:
        """UsageError: there is no such table."""
        return find_table(self.table)

    def jobs(self, task: int | None = None) -> dict[int, Job]:
        """By its number in the order of rows, every job that the table needs, or the one of number `task`.

        UsageError, ConfigError: no such table, scale or task, or settings that are not allowed.
        """
        scale = load_scale(self.scale_name)
        seeds = range(FIRST_SEED, FIRST_SEED + (self.seeds or self.runs.seeds))
        jobs = dict(enumerate(self._job(recipe, seed, scale) for recipe in self.runs.recipes for seed in seeds))
        return one_task(jobs, task)

    def check(self, jobs: Iterable[Job], out: Path) -> None:
        """UsageError where shards that the jobs need are not given: all kinds at once, with how they are made."""
        needed = [job.kind for job in jobs if job.shards == NOT_GIVEN]
        needed += [OOD] if self.runs.ood and OOD not in self.shards else []
        needed += [IMAGENET] if self.runs.patches and IMAGENET not in self.shards else []
        if needed:
            made = {kind: shard_kinds()[kind].made_by for kind in needed}
            missing = "; ".join(f"--shards {kind}=DIR (made by `{command}`)" for kind, command in made.items())
            raise UsageError(f"{self.table} needs shards that are not given: {missing}")

    def arguments(self) -> list[str]:
        """The words after `seqjepa sweep` that ask for this table."""
        shards = [word for kind, folder in self.shards.items() for word in ("--shards", f"{kind}={folder}")]
        return [self.table, *shards, *options(seeds=self.seeds, scale=self.scale, untrained=self.untrained)]

    def _job(self, recipe: str, seed: int, scale: RunScale) -> Job:
        native = shard_kind_of(load_recipe(recipe))
        kind = native if native in self.shards else scale.kinds.get(native, native)
        lengths = scale.evaluation_of(recipe, native)
        # The same evaluation for every table, as far as that goes, so that tables share runs and their numbers.
        evaluation = {"suite": shard_kinds()[native].suite, **lengths}
        if native == "3diebench" and OOD in self.shards:
            evaluation["ood"] = self.shards[OOD]
        if self.runs.path:
            evaluation["path"] = True
        transfer = {**lengths, "shards": self.shards.get(IMAGENET, NOT_GIVEN), "path": False}
        job = Job(
            name=f"{recipe}{'' if scale.name == 'paper' else f'-{scale.name}'}-seed{seed}",
            recipe=recipe,
            settings=(*scale.changed_settings(recipe, native), f"seed={seed}"),
            shards=self.shards.get(kind, NOT_GIVEN),
            evaluation=evaluation,
            untrained=self.untrained,
            transfers=tuple({**transfer, "patch": patch} for patch in self.runs.patches),
            kind=kind,
        )
        job.config()  # every mistake of a scale before the first run
        return job


def options(**given: object) -> list[str]:
    """Words for the options that are given: seeds=3, untrained=True → --seeds 3 --untrained."""
    words = [["--" + name] if value is True else ["--" + name, str(value)] for name, value in given.items() if value]
    return [word for pair in words for word in pair]


def one_task(jobs: dict[int, Job], task: int | None) -> dict[int, Job]:
    """All jobs, or the one of number `task`. UsageError: there is none."""
    if task is not None and task not in jobs:
        raise UsageError(
            f"--task {task}: there are {len(jobs)} tasks, {min(jobs, default=0)} to {max(jobs, default=0)}"
        )
    return jobs if task is None else {task: jobs[task]}


def parse_shards(given: Sequence[str]) -> dict[str, Path]:
    """["3diebench=DIR", …] → {"3diebench": Path("DIR"), …}. UsageError: not of this form, no such kind or folder."""
    found: dict[str, Path] = {}
    kinds = shard_kinds()
    for text in given:
        kind, equals, folder = text.partition("=")
        if not equals or not folder:
            raise UsageError(f"--shards is {text!r}; name what they are, as in 3diebench={text or 'DIR'}")
        if kind not in kinds:
            raise UsageError(f"--shards {text}: no kind {kind!r}{did_you_mean(kind, kinds)}; kinds: {', '.join(kinds)}")
        found[kind] = local_folder(folder)
        if not found[kind].is_dir():
            raise UsageError(f"--shards {text}: {folder} is not a folder; give the folder of a shard set")
    return found


def tables_as_text() -> str:
    """A line for each table and figure: its name, how many runs it needs, what it is."""
    runs = {name: len(table.recipes) * table.seeds for name, table in paper_tables().items()}
    count = {name: f"{number} run{'s' if number > 1 else ''}" for name, number in runs.items()}
    lines = [f"{name:20}{count[name]:>9}  {table.title}" for name, table in paper_tables().items()]
    return "\n".join([*lines, *(f"{name:20}{'':9}  {one.title}" for name, one in paper_experiments().items())])


def tables_as_json() -> list[dict[str, Any]]:
    of_recipes = {name: list(table.recipes) for name, table in paper_tables().items()}
    return [
        {"table": name, "title": one.title, "recipes": of_recipes.get(name, []), "seeds": one.seeds, "note": one.note}
        for name, one in (*paper_tables().items(), *paper_experiments().items())
    ]


def jobs_as_text(sweep: Runs, jobs: Mapping[int, Job], out: Path) -> str:
    """A line for each run: its number, folder, shards and how far it has got; then a sum."""
    states = {number: state_of(job, out) for number, job in jobs.items()}
    width = max((len(job.name) for job in jobs.values()), default=0)
    lines = [f"{sweep.table}: {sweep.title}; scale {sweep.scale_name}"]
    lines += [f"({sweep.note})"] if sweep.note else []
    lines.append(f"{'task':>4}  {'run, in ' + str(out):{width}}  {'shards':14} state")
    lines += [f"{n:>4}  {job.name:{width}}  {job.kind:14} {states[n]}" for n, job in jobs.items()]
    counted = Counter(state.stage for state in states.values())
    lines.append(", ".join(f"{count} {stage}" for stage, count in counted.items()))
    return "\n".join(lines)


def jobs_as_json(sweep: Runs, jobs: Mapping[int, Job], out: Path) -> dict[str, Any]:
    return {
        "table": sweep.table,
        "title": sweep.title,
        "note": sweep.note,
        "scale": sweep.scale_name,
        "runs": [_job_as_json(number, job, state_of(job, out)) for number, job in jobs.items()],
    }


def _job_as_json(number: int, job: Job, state: State) -> dict[str, Any]:
    return {
        "task": number,
        "name": job.name,
        "recipe": job.recipe,
        "seed": job.config().seed,
        "kind": job.kind,
        "shards": None if job.shards == NOT_GIVEN else str(job.shards),
        "settings": list(job.settings),
        "evaluation": {k: str(v) if isinstance(v, Path) else v for k, v in job.evaluation.items()},
        "transfers": [{k: v for k, v in transfer.items() if k != "shards"} for transfer in job.transfers],
        "state": str(state),
        "epochs": state.epochs,
        "epochs_planned": state.epochs_planned,
    }
