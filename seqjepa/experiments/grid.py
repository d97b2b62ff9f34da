"""`seqjepa sweep grid`: every combination of the values that some settings take, on one set of anybody's own views."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.data.actions import OF_THE_SHARDS
from seqjepa.evaluate.results import read_results
from seqjepa.experiments.compare_table import HEADS, aligned, cells_of, method_row, target_notes, top1_notes
from seqjepa.experiments.job import Job, refuse_other_runs, state_of
from seqjepa.experiments.scale import assignments, load_scale
from seqjepa.experiments.sweep import FIRST_SEED, Runs, one_task, options
from seqjepa.methods import METHODS, is_idle
from seqjepa.recipes import toml_value
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.data import check_batches, open_training_data
from seqjepa.training.distributed import World
from seqjepa.training.recipe_choice import choose_recipe
from shards.errors import UsageError
from shards.stores.cache import local_folder

MOST_RUNS = 10_000
PAIR = ("method", "data.context")


@dataclass(frozen=True)
class Grid(Runs):
    """Runs on `shards`: one for each combination of `vary` and each of `seeds` seeds.

    vary      "a.b=1,2,3" each: a setting and the values that it takes
    recipe    None: what is chosen for such a set (`seqjepa train` says which)
    settings  "a.b=c" each, for all runs
    scale     None: recipes as they are
    """

    shards: Path
    vary: tuple[str, ...] = ()
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    seeds: int | None = None
    scale: str | None = None
    untrained: bool = False

    table = "grid"

    @property
    def note(self) -> str:
        """Which combinations there are no runs of."""
        left_out = [f"{point['method']} with data.context={point['data.context']}" for point in self._unfit()]
        return f"left out, as they take another number of views: {', '.join(left_out)}" if left_out else ""

    @property
    def scale_name(self) -> str:
        return self.scale or "paper"

    @property
    def title(self) -> str:
        return f"{' × '.join(self.values) or 'one setting'} on {self.shards}"

    @property
    def values(self) -> dict[str, tuple[Any, ...]]:
        """What each setting takes. UsageError: not of the form KEY=VALUE,VALUE."""
        return dict(map(_parse, self.vary))

    def jobs(self, task: int | None = None) -> dict[int, Job]:
        """By number, seeds of a combination one after the other, the last setting changing first.

        UsageError, ConfigError: no such task, too many runs, or settings that are not allowed.
        """
        points, seeds = self.points(), range(FIRST_SEED, FIRST_SEED + (self.seeds or 1))
        self._refuse_said_twice()
        recipe, common = self._recipe()
        evaluation = load_scale(self.scale_name).evaluation_of(recipe, "")
        found: dict[int, Job] = {}
        for name, point in points.items():
            for seed in seeds:
                job = Job(
                    name=f"{name}-seed{seed}",
                    recipe=recipe,
                    settings=(*common, *self._context_of(point), *assignments(point), f"seed={seed}"),
                    shards=self.shards,
                    evaluation={"suite": "probes", **evaluation},
                    untrained=self.untrained,
                    kind=self.shards.name,
                )
                found[len(found)] = job
        self._refuse_idle([job.config() for job in found.values()])  # every mistake before the first run
        return one_task(found, task)

    def _refuse_idle(self, configs: Sequence[RunConfig]) -> None:
        """UsageError for what is varied and changes nothing: the same run would be trained again and again."""
        for key, text in zip(self.values, self.vary, strict=True):
            if all(is_idle(key, config) for config in configs):
                raise UsageError(f"--vary {text}: nothing in these runs looks at {key}; leave it out")

    def _refuse_said_twice(self) -> None:
        """UsageError for a setting of all runs that is varied too: it would say nothing."""
        instead = {"seed": "--seeds N says how many seeds each combination has"}
        instead |= {key: f"--vary {text} says it already" for key, text in zip(self.values, self.vary, strict=True)}
        for text in self.settings:
            if said := instead.get(text.partition("=")[0].strip()):
                raise UsageError(f"--set {text}: {said}; leave one out")

    def points(self) -> dict[str, dict[str, Any]]:
        """Every combination by the name of its folders, "context=3-simclr": {"data.context": 3, "method": "simclr"}."""
        values = self.values
        many = prod(map(len, values.values())) * (self.seeds or 1)
        if many > MOST_RUNS:
            raise UsageError(f"{many} runs; a grid has at most {MOST_RUNS}")
        unfit = self._unfit()
        points = [dict(zip(values, point, strict=True)) for point in product(*values.values())]
        points = [point for point in points if {key: point.get(key) for key in PAIR} not in unfit]
        if not points:
            raise UsageError(f"--vary leaves no runs: {self.note}")
        return dict(zip(_names(points), points, strict=True))

    def _unfit(self) -> list[dict[str, Any]]:
        """Pairs of method and data.context, both varied, that do not go together."""
        methods, sizes = (self.values.get(key, ()) for key in PAIR)
        pairs = product((m for m in methods if m in METHODS), sizes)
        return [dict(zip(PAIR, (m, c), strict=True)) for m, c in pairs if METHODS[m].views_needed not in (None, c + 1)]

    def _context_of(self, point: Mapping[str, Any]) -> tuple[str, ...]:
        """As many views as the method takes, where methods are varied and nothing says how many."""
        method = METHODS.get(point.get("method", ""))
        given = {text.partition("=")[0].strip() for text in (*self.settings, *self.vary)}
        if method is None or method.views_needed is None or "data.context" in given:
            return ()
        return (f"data.context={method.views_needed - 1}",)

    def check(self, jobs: Iterable[Job], out: Path) -> None:
        """What would stop a run later: another run in its folder, data or a method that does not fit its settings,
        more views or a larger batch than samples give."""
        for job in jobs:
            refuse_other_runs(job, out)
            source = open_training_data(job.shards, job.config())
            check_batches(source, source.config, World.from_environment())
            initial_method(source.config, source.data.action_size)

    def arguments(self) -> list[str]:
        """The words after `seqjepa sweep` that ask for this grid."""
        words = ["grid", "--shards", str(self.shards)]
        words += [word for text in self.vary for word in ("--vary", text)]
        words += [word for text in self.settings for word in ("--set", text)]
        return [
            *words,
            *options(recipe=self.recipe, seeds=self.seeds, scale=self.scale, untrained=self.untrained),
        ]

    def _recipe(self) -> tuple[str, tuple[str, ...]]:
        own = tuple(self.settings)
        if self.recipe is not None:
            chosen, recipe = (), self.recipe
        else:
            actions = [a for a in self.values.get("data.action", ()) if a not in ("none", [], OF_THE_SHARDS)]
            told = assignments({"data.action": actions[0]}) if actions else ()  # what counts is that there is one
            choice = choose_recipe(self.shards, [*own, *told]).without([*own, *(f"{key}=" for key in self.values)])
            chosen, recipe = choice.settings, choice.recipe
        return recipe, (*chosen, *load_scale(self.scale_name).changed_settings(recipe, ""), *own)


def one_folder(given: Sequence[str]) -> Path:
    """The set of a grid. UsageError: not exactly one folder."""
    folders = [local_folder(place) for place in given]
    if len(folders) != 1 or not folders[0].is_dir():
        raise UsageError(f"--shards is {', '.join(given) or 'not given'}; a grid needs the folder of one shard set")
    return folders[0]


def _parse(text: str) -> tuple[str, tuple[Any, ...]]:
    """ "data.context=1,2" → ("data.context", (1, 2)): TOML's values with commas between, or else words."""
    key, equals, rest = text.partition("=")
    try:
        values = tomllib.loads(f"v = [{rest}]")["v"]
    except (ValueError, RecursionError):
        values = [toml_value(word.strip()) for word in rest.split(",")]
    if not equals or not key.strip() or not values or "" in values:
        raise UsageError(f"--vary is {text!r}; write a setting and its values, as data.context=1,2,3")
    if len({json.dumps(value, default=str) for value in values}) < len(values):
        raise UsageError(f"--vary {text}: a value is given twice")
    if key.strip() == "seed":
        raise UsageError(f"--vary {text}: --seeds N says how many seeds each combination has")
    return key.strip(), tuple(values)


def _names(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """A folder's name for each combination, "context=3-simclr"; with whole keys where two end in the same word."""
    keys = list(points[0])
    whole = len({key.rpartition(".")[2] for key in keys}) < len(keys)
    names = ["-".join(_word(*item, whole) for item in point.items()) or "run" for point in points]
    if len(set(names)) < len(names):
        raise UsageError("two combinations of --vary would have the same folder; vary other values")
    return names


def _word(key: str, value: Any, whole: bool) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if key != "method":
        text = f"{key if whole else key.rpartition('.')[2]}={text}"
    return re.sub(r"[^\w.+=-]+", "_", text).strip("_.") or "_"


def grid_results(grid: Grid, out: Path) -> list[dict[str, Any]]:
    """A row for each combination of which all seeds are evaluated: its name and settings ("varied"), then as
    compare_table.method_row has them."""
    jobs, many = list(grid.jobs().values()), grid.seeds or 1
    rows = []
    for place, (name, point) in enumerate(grid.points().items()):
        mine = jobs[place * many : (place + 1) * many]
        if all(state_of(job, out).stage == "evaluated" for job in mine):
            row = method_row(name, [out / job.name for job in mine])
            rows.append({"name": row.pop("method"), "varied": point, **row})
    return rows


def results_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line a row of grid_results, mean ± standard deviation over seeds where there are several."""
    named = [{"method": row["name"], **row} for row in rows]
    targets = read_results(Path(rows[0]["runs"][0]))["trained"]["protocol"].get("targets", {})
    lines = aligned([("combination", *HEADS[1:]), *map(cells_of, named)])
    return "\n".join([*lines, *target_notes(targets), *top1_notes(named)])
