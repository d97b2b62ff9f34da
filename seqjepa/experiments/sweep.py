"""From a table and a scale to jobs: which runs, on which shards, evaluated how.

What `seqjepa sweep` prints without --run: as text, and as JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqjepa.experiments.job import Job, State, Transfer, state_of
from seqjepa.experiments.kinds import KINDS, kind_of
from seqjepa.experiments.scale import Scale, load_scale
from seqjepa.experiments.tables import IMAGENET, OOD, SHEETS, Sheet, find_sheet
from seqjepa.recipes import load_recipe
from shards.errors import UsageError

FIRST_SEED = 42
NOT_GIVEN = Path()
"""Stands for shards that a list can do without."""


@dataclass(frozen=True)
class Request:
    """What is asked of a sweep. seeds, scale: None for what the table is published or meant with."""

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


def tasks_of(request: Request) -> list[Task]:
    """Every run that the table needs, in the order of its rows. UsageError, ConfigError: what is asked is not there."""
    sheet = find_sheet(request.table)
    scale = load_scale(request.scale or sheet.scale)
    seeds = range(FIRST_SEED, FIRST_SEED + (request.seeds or sheet.seeds))
    wanted = [(recipe, seed) for recipe in sheet.recipes for seed in seeds]
    return [_task(number, recipe, seed, sheet, scale, request) for number, (recipe, seed) in enumerate(wanted)]


def pick(tasks: Sequence[Task], number: int | None) -> list[Task]:
    """All of them, or the one of that number. UsageError: there is none."""
    if number is not None and number >= len(tasks):
        raise UsageError(f"--task {number}: there are {len(tasks)} tasks, 0 to {len(tasks) - 1}")
    return list(tasks) if number is None else [tasks[number]]


def require_shards(request: Request, tasks: Sequence[Task]) -> None:
    """UsageError where shards are not given that the tasks cannot do without: all kinds, with how they are made."""
    sheet = find_sheet(request.table)
    needed = [task.kind for task in tasks if task.job.shards == NOT_GIVEN]
    needed += [OOD] if sheet.ood and OOD not in request.shards else []
    needed += [IMAGENET] if sheet.patches and IMAGENET not in request.shards else []
    if needed:
        missing = "; ".join(f"--shards {kind}=DIR (made by `{KINDS[kind].made_by}`)" for kind in dict.fromkeys(needed))
        raise UsageError(f"{request.table} needs shards that are not given: {missing}")


def _task(number: int, recipe: str, seed: int, sheet: Sheet, scale: Scale, request: Request) -> Task:
    native = kind_of(load_recipe(recipe))
    kind = native if native in request.shards else scale.kinds.get(native, native)
    job = Job(
        name=f"{recipe}{'' if scale.name == 'paper' else f'-{scale.name}'}-seed{seed}",
        recipe=recipe,
        settings=(*scale.changed_settings(recipe, native), f"seed={seed}"),
        shards=request.shards.get(kind, NOT_GIVEN),
        evaluation=_evaluation(recipe, native, sheet, scale, request),
        untrained=request.untrained,
        transfers=_transfers(recipe, native, sheet, scale, request),
    )
    job.config()
    return Task(number, recipe, seed, kind, job)


def _evaluation(recipe: str, kind: str, sheet: Sheet, scale: Scale, request: Request) -> dict[str, Any]:
    """A run is asked the same for every table, as far as that goes, so that tables share runs and their numbers."""
    asked: dict[str, Any] = {"suite": KINDS[kind].suite, **scale.evaluation_of(recipe, kind)}
    if kind == "3diebench" and OOD in request.shards:
        asked["ood"] = request.shards[OOD]
    if sheet.path:
        asked["path"] = True
    return asked


def _transfers(recipe: str, kind: str, sheet: Sheet, scale: Scale, request: Request) -> tuple[Transfer, ...]:
    lengths = {**scale.evaluation_of(recipe, kind), "path": False}
    shards = request.shards.get(IMAGENET, NOT_GIVEN)
    return tuple(Transfer(shards, {**lengths, "patch": patch}) for patch in sheet.patches)


def sheets_as_text() -> str:
    """A line for each table and figure: its name, how many runs it needs, what it is."""
    return "\n".join(f"{name:20}{_count(sheet):>9}  {sheet.title}" for name, sheet in SHEETS.items())


def sheets_as_json() -> list[dict[str, Any]]:
    return [
        {"table": name, "title": sheet.title, "recipes": list(sheet.recipes), "seeds": sheet.seeds, "note": sheet.note}
        for name, sheet in SHEETS.items()
    ]


def _count(sheet: Any) -> str:
    runs = len(sheet.recipes) * sheet.seeds
    return f"{runs} run{'s' if runs > 1 else ''}"


def tasks_as_text(request: Request, tasks: Sequence[Task], out: Path) -> str:
    """A line for each run: its number, folder, shards and how far it has got; then a sum."""
    sheet = SHEETS[request.table]
    states = [task.state(out) for task in tasks]
    width = max(len(task.job.name) for task in tasks)
    lines = [f"{request.table}: {sheet.title}; scale {request.scale or sheet.scale}"]
    lines += [f"({sheet.note})"] if sheet.note else []
    lines.append(f"{'task':>4}  {'run, in ' + str(out):{width}}  {'shards':14} state")
    lines += [
        f"{task.number:>4}  {task.job.name:{width}}  {task.kind:14} {state}"
        for task, state in zip(tasks, states, strict=True)
    ]
    counted = Counter(state.stage for state in states)
    lines.append(", ".join(f"{count} {stage}" for stage, count in counted.items()))
    return "\n".join(lines)


def tasks_as_json(request: Request, tasks: Sequence[Task], out: Path) -> dict[str, Any]:
    sheet = SHEETS[request.table]
    return {
        "table": request.table,
        "title": sheet.title,
        "note": sheet.note,
        "scale": request.scale or sheet.scale,
        "runs": [task.as_json(out) for task in tasks],
    }
