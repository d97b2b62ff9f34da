"""`seqjepa sweep`: the runs that a table or figure needs, as jobs, and the list of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.experiments.job import Job, State, Transfer, state_of
from seqjepa.experiments.scale import Scale, load_scale
from seqjepa.experiments.tables import TableRuns, find_table, paper_tables, shard_kind_of, shard_kinds
from seqjepa.recipes import did_you_mean, load_recipe
from shards.errors import UsageError

FIRST_SEED = 42
IMAGENET = "imagenet"
OOD = "3diebench-ood"
NOT_GIVEN = Path()
"""Stands for shards that a list can do without."""


@dataclass(frozen=True)
class SweepRequest:
    """What is asked of a sweep. shards: by kind. seeds, scale: None for what the table is published or meant with."""

    table: str
    shards: Mapping[str, Path] = field(default_factory=dict)
    seeds: int | None = None
    scale: str | None = None
    untrained: bool = False


@dataclass(frozen=True)
class Task:
    """One run of a sweep. kind: of the shards that it trains on."""

    number: int
    recipe: str
    seed: int
    kind: str
    job: Job

    def state(self, out: Path) -> State:
        return state_of(self.job, out)

    def as_json(self, out: Path) -> dict[str, Any]:
        """What `seqjepa sweep --json` says of it."""
        state = self.state(out)
        return {
            "task": self.number,
            "name": self.job.name,
            "recipe": self.recipe,
            "seed": self.seed,
            "kind": self.kind,
            "shards": None if self.job.shards == NOT_GIVEN else str(self.job.shards),
            "settings": list(self.job.settings),
            "evaluation": {k: str(v) if isinstance(v, Path) else v for k, v in self.job.evaluation.items()},
            "transfers": [dict(transfer.evaluation) for transfer in self.job.transfers],
            "state": str(state),
            "epochs": state.epochs,
            "epochs_planned": state.epochs_planned,
        }


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
        if not Path(folder).is_dir():
            raise UsageError(f"--shards {text}: {folder} is not a folder; give the folder of a shard set")
        found[kind] = Path(folder)
    return found


def tasks_of(request: SweepRequest) -> list[Task]:
    """Every run that the table needs, in the order of its rows. UsageError, ConfigError: what is asked is not there."""
    table = find_table(request.table)
    scale = load_scale(request.scale or table.scale)
    seeds = range(FIRST_SEED, FIRST_SEED + (request.seeds or table.seeds))
    wanted = [(recipe, seed) for recipe in table.recipes for seed in seeds]
    return [_task(number, recipe, seed, table, scale, request) for number, (recipe, seed) in enumerate(wanted)]


def pick(tasks: Sequence[Task], number: int | None) -> list[Task]:
    """All of them, or the one of that number. UsageError: there is none."""
    if number is not None and number >= len(tasks):
        raise UsageError(f"--task {number}: there are {len(tasks)} tasks, 0 to {len(tasks) - 1}")
    return list(tasks) if number is None else [tasks[number]]


def require_shards(request: SweepRequest, tasks: Sequence[Task]) -> None:
    """UsageError where shards that the tasks need are not given: all kinds at once, with how they are made."""
    table = find_table(request.table)
    needed = [task.kind for task in tasks if task.job.shards == NOT_GIVEN]
    needed += [OOD] if table.ood and OOD not in request.shards else []
    needed += [IMAGENET] if table.patches and IMAGENET not in request.shards else []
    if needed:
        kinds = shard_kinds()
        missing = "; ".join(f"--shards {kind}=DIR (made by `{kinds[kind].made_by}`)" for kind in dict.fromkeys(needed))
        raise UsageError(f"{request.table} needs shards that are not given: {missing}")


def _task(number: int, recipe: str, seed: int, table: TableRuns, scale: Scale, request: SweepRequest) -> Task:
    native = shard_kind_of(load_recipe(recipe))
    kind = native if native in request.shards else scale.kinds.get(native, native)
    lengths = scale.evaluation_of(recipe, native)
    # The same evaluation for every table, as far as that goes, so that tables share runs and their numbers.
    evaluation = {"suite": shard_kinds()[native].suite, **lengths}
    if native == "3diebench" and OOD in request.shards:
        evaluation["ood"] = request.shards[OOD]
    if table.path:
        evaluation["path"] = True
    imagenet = request.shards.get(IMAGENET, NOT_GIVEN)
    job = Job(
        name=f"{recipe}{'' if scale.name == 'paper' else f'-{scale.name}'}-seed{seed}",
        recipe=recipe,
        settings=(*scale.changed_settings(recipe, native), f"seed={seed}"),
        shards=request.shards.get(kind, NOT_GIVEN),
        evaluation=evaluation,
        untrained=request.untrained,
        transfers=tuple(Transfer(imagenet, {**lengths, "path": False, "patch": patch}) for patch in table.patches),
    )
    job.config()
    return Task(number, recipe, seed, kind, job)


def tables_as_text() -> str:
    """A line for each table and figure: its name, how many runs it needs, what it is."""
    runs = {name: len(table.recipes) * table.seeds for name, table in paper_tables().items()}
    count = {name: f"{number} run{'s' if number > 1 else ''}" for name, number in runs.items()}
    return "\n".join(f"{name:20}{count[name]:>9}  {table.title}" for name, table in paper_tables().items())


def tables_as_json() -> list[dict[str, Any]]:
    return [
        {"table": name, "title": table.title, "recipes": list(table.recipes), "seeds": table.seeds, "note": table.note}
        for name, table in paper_tables().items()
    ]


def tasks_as_text(request: SweepRequest, tasks: Sequence[Task], out: Path) -> str:
    """A line for each run: its number, folder, shards and how far it has got; then a sum."""
    table = find_table(request.table)
    states = [task.state(out) for task in tasks]
    width = max(len(task.job.name) for task in tasks)
    lines = [f"{request.table}: {table.title}; scale {request.scale or table.scale}"]
    lines += [f"({table.note})"] if table.note else []
    lines.append(f"{'task':>4}  {'run, in ' + str(out):{width}}  {'shards':14} state")
    lines += [
        f"{task.number:>4}  {task.job.name:{width}}  {task.kind:14} {state}"
        for task, state in zip(tasks, states, strict=True)
    ]
    counted = Counter(state.stage for state in states)
    lines.append(", ".join(f"{count} {stage}" for stage, count in counted.items()))
    return "\n".join(lines)


def tasks_as_json(request: SweepRequest, tasks: Sequence[Task], out: Path) -> dict[str, Any]:
    table = find_table(request.table)
    return {
        "table": request.table,
        "title": table.title,
        "note": table.note,
        "scale": request.scale or table.scale,
        "runs": [task.as_json(out) for task in tasks],
    }
