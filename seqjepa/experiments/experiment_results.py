"""What an experiment's runs score: rows for each method and length, for each change beside the run that it changes, and
for schedules of a cosine against lengths of training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from seqjepa.config import EvalConfig
from seqjepa.evaluate.checkpoints import numbers_at, numbers_of
from seqjepa.experiments.compare import follows_average
from seqjepa.experiments.experiment import METHODS, Experiment, Run
from seqjepa.experiments.job import Job
from seqjepa.recipes import flatten
from shards.errors import FormatError, UsageError, reason_of
from shards.json_fields import json_object, strings, take

SCORES = {
    "top1_z": "top1_z",
    "r2_rel": "r2_rel_rot_avg",
    "r2_indiv": "r2_indiv_rot_avg",
    "map_r2_rel": "unpooled.r2_rel_rot_avg",
    "mrr": "retrieval.mrr",
    "mrr_blind": "retrieval.mrr_blind",
}
"""Key in a row → in results.json. Beside these top1_agg.1 … by the number of views."""
AGGREGATE = "top1_agg."
ORDERED = {"r2_rel": "R² rel", "top1_z": "top-1 of z"}
"""Scores that methods are put into an order by."""
LONGEST_SEED = 20
Scores = dict[str, float]
Place = tuple[str, str, int, int]
"""Part, name, length of the run, length after which it is measured."""
ROW_FIELDS: Mapping[str, type[Any]] = {
    **dict.fromkeys(("part", "name", "schedule"), str),
    **dict.fromkeys(("length", "steps", "schedule_length"), int),
    "finished": bool,
}
"""Of a row of --json, and their types."""


@dataclass(frozen=True)
class Row:
    """Scores, by seed, of one run after `length` times the scale's steps; steps: as the trainer counts them.

    finished: whether the learning rate is then where the schedule of a run of that length ends.
    """

    part: str
    name: str
    length: int
    steps: int
    schedule: str
    schedule_length: int
    finished: bool
    by_seed: Mapping[int, Scores]
    folders: tuple[str, ...]

    @property
    def seeds(self) -> list[int]:
        return list(self.by_seed)

    def over_seeds(self, statistic: Callable[[list[float]], float]) -> Scores:
        """A statistic of each score that every seed has."""
        each = list(self.by_seed.values())
        keys = [key for key in each[0] if all(key in one for one in each)]
        return {key: statistic([one[key] for one in each]) for key in keys}

    @property
    def mean(self) -> Scores:
        return self.over_seeds(fmean)

    @property
    def std(self) -> Scores:
        """Of the sample of seeds; empty where there is one seed."""
        return self.over_seeds(stdev) if len(self.by_seed) > 1 else {}

    def less(self, base: Row) -> Row:
        """The differences to another row, seed by seed, of seeds that both have."""
        both = {
            seed: {key: value - base.by_seed[seed][key] for key, value in mine.items() if key in base.by_seed[seed]}
            for seed, mine in self.by_seed.items()
            if seed in base.by_seed
        }
        return replace(self, by_seed=both)

    @property
    def place(self) -> Place:
        """What makes it another row than the next."""
        return self.part, self.name, self.schedule_length, self.length

    def joined(self, other: Row) -> Row:
        """With the seeds of the same row elsewhere that this one lacks."""
        if set(other.by_seed) <= set(self.by_seed):
            return self
        by_seed = {**other.by_seed, **self.by_seed}
        folders = tuple(dict.fromkeys((*self.folders, *other.folders)))
        return replace(self, by_seed=dict(sorted(by_seed.items())), folders=folders)

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> Row:
        """What as_json gave. FormatError: it is none."""
        by_seed = {_seed(seed): _numbers(one) for seed, one in take(values, "by_seed", dict).items()}
        if not by_seed:
            raise FormatError("by_seed holds no seed")
        fields = {name: take(values, name, kind) for name, kind in ROW_FIELDS.items()}
        return cls(**fields, by_seed=by_seed, folders=strings(values, "runs"))

    def as_json(self) -> dict[str, Any]:
        fields = {key: value for key, value in vars(self).items() if key not in ("by_seed", "folders")}
        by_seed = {str(seed): scores for seed, scores in self.by_seed.items()}
        return {
            **fields,
            "seeds": self.seeds,
            "mean": self.mean,
            "std": self.std,
            "by_seed": by_seed,
            "runs": list(self.folders),
        }


@dataclass(frozen=True)
class Results:
    """rows: of methods, and of changes each after the run that it changes. untrained: of the base's initial weights."""

    experiment: Experiment
    rows: Sequence[Row]
    untrained: Row | None

    @property
    def finished(self) -> list[Row]:
        """Of methods, by steps. Where runs of several lengths are measured after the same steps, the longest counts,
        with the seeds that only shorter ones have, if they train alike.
        """
        rows = [row for row in self.rows if row.part == METHODS and row.finished]
        found: dict[tuple[str, int], Row] = {}
        for row in sorted(rows, key=lambda row: row.schedule_length):
            shorter = found.get((row.name, row.length))
            found[row.name, row.length] = row.joined(shorter) if shorter and self._train_alike(row, shorter) else row
        names = list(dict.fromkeys(row.name for row in rows))
        return sorted(found.values(), key=lambda row: (names.index(row.name), row.length))

    def _train_alike(self, *rows: Row) -> bool:
        """Whether runs of several lengths have the same weights after the same steps of a seed.

        So where neither learning rate nor τ looks to the run's end, and the warm-up, which the shortest length that is
        measured bounds, is as long.
        """
        name = rows[0].name
        runs = {(name, row.schedule_length) for row in rows}
        shortest = {run: min(r.length for r in self.rows if (r.name, r.schedule_length) == run) for run in runs}
        constant = all(row.schedule == "constant" for row in rows)
        method = self.experiment.runs.methods[name].method or name
        return constant and not follows_average(method) and len(set(shortest.values())) == 1

    @property
    def methods(self) -> list[Row]:
        """Finished runs at the lengths that methods are compared at."""
        return [row for row in self.finished if row.length in self.experiment.lengths]

    @property
    def schedules(self) -> list[Row]:
        """Of runs with a cosine, all looks: schedules of several lengths, each followed for several."""
        return [row for row in self.rows if row.part == METHODS and row.schedule == "cosine"]

    def base(self, length: int) -> Row | None:
        """The run that changes of that length are made to."""
        wanted = self.experiment.runs.base, length
        return next((row for row in self.finished if (row.name, row.length) == wanted), None)

    def order(self, key: str) -> dict[int, list[str]]:
        """By seed, the methods after the longest training from the highest score to the lowest."""
        last = [row for row in self.methods if row.length == self.experiment.lengths[-1]]
        seeds = sorted({seed for row in last for seed in row.by_seed})
        scores = {seed: {row.name: row.by_seed[seed].get(key) for row in last if seed in row.by_seed} for seed in seeds}
        return {
            seed: sorted((name for name in found if found[name] is not None), key=lambda name: -(found[name] or 0.0))
            for seed, found in scores.items()
        }

    def changes(self, part: str) -> list[Row]:
        return [row for row in self.rows if row.part == part]

    def as_json(self) -> dict[str, Any]:
        """rows, each change with `difference` from the base (mean, std, by_seed, over seeds that both have)."""
        rows = []
        for row in self.rows:
            rows.append(row.as_json())
            base = self.base(row.length) if row.part != METHODS else None
            if base and (less := row.less(base)).by_seed:
                rows[-1]["difference"] = {key: less.as_json()[key] for key in ("seeds", "mean", "std", "by_seed")}
        orders = {key: {str(seed): names for seed, names in self.order(key).items()} for key in ORDERED}
        untrained = self.untrained.as_json() if self.untrained else None
        return {"evaluation": self.evaluation, "rows": rows, "untrained": untrained, "orders": orders}

    @property
    def evaluation(self) -> dict[str, Any]:
        """How all runs are evaluated, as JSON has it."""
        return json.loads(self.experiment.at.compare.evaluation.model_dump_json(exclude_unset=True))


def experiment_results(experiment: Experiment, out: Path) -> Results:
    """What is evaluated so far of the experiment's runs below `out`; runs that cannot be read are left out."""
    found: dict[Place, Row] = {}
    untrained: Row | None = None
    for run, job in experiment.listed.values():
        for row in _rows(run, job, out, experiment):
            found[row.place] = found[row.place].joined(row) if row.place in found else row
        if scores := _scores(numbers_of(out / job.name, "untrained", job.evaluation, job.shards)):
            initial = _row(run, 0, 0, scores, out / job.name)
            untrained = untrained.joined(initial) if untrained else initial
    return Results(experiment, list(found.values()), untrained)


def with_numbers(results: Results, files: Iterable[Path]) -> Results:
    """With what `seqjepa sweep … --json` printed elsewhere, seed by seed; what is measured here counts before it.

    Rows stand in the experiment's order. UsageError: a file that is none, of runs that are not the experiment's, or of
    other evaluations.
    """
    rows, untrained = {row.place: row for row in results.rows}, results.untrained
    planned = _places(results.experiment)
    for file in files:
        there, initial = _read_numbers(file, results.evaluation)
        for row in there:
            if (steps := planned.get(row.place)) != row.steps:
                known = "no such run is of the experiment at this scale" if steps is None else f"here it is {steps:,}"
                raise UsageError(f"{file} has {row.name} after {row.steps:,} steps ({row.part}); {known}")
            rows[row.place] = rows[row.place].joined(row) if row.place in rows else row
        untrained = untrained.joined(initial) if untrained and initial else untrained or initial
    in_order = [rows[place] for place in planned if place in rows]
    return Results(results.experiment, in_order, untrained)


def _read_numbers(file: Path, evaluation: Mapping[str, Any]) -> tuple[list[Row], Row | None]:
    """Rows, and that of the initial weights. UsageError: the file is no such JSON, or of another evaluation."""
    try:
        found = take(json_object(file.read_bytes(), "the file", nan=True), "results", dict)
        rows = [Row.of_json(row) for row in take(found, "rows", list)]
        untrained = Row.of_json(found["untrained"]) if found.get("untrained") else None
    except (OSError, FormatError) as error:
        raise UsageError(
            f"--numbers {file} is not what `seqjepa sweep paper-small --json` prints: {reason_of(error)}"
        ) from error
    there = found.get("evaluation", evaluation)  # files of before do not say it
    if there != evaluation:
        raise UsageError(f"--numbers {file}: runs were evaluated by {there!r:.200} there, by {dict(evaluation)} here")
    return rows, untrained


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < LONGEST_SEED):
        raise FormatError(f"{text!r:.40} is no seed")
    return int(text)


def _numbers(scores: Any) -> Scores:
    if not isinstance(scores, dict) or not all(type(value) in (int, float) for value in scores.values()):
        raise FormatError(f"scores must be numbers by name, found {scores!r:.60}")
    return {name: float(value) for name, value in scores.items()}


def _places(experiment: Experiment) -> dict[Place, int]:
    """Place of every row that there may be, in order → optimizer steps.

    Those of runs that somebody with other time has too: of a constant learning rate that end sooner, of changes of
    every length.
    """
    return {
        (run.part, run.name, ends, length): experiment.steps_of(run, length)
        for run, _ in experiment.every.values()
        for ends, length in _ends_and_looks(run, experiment.lengths)
    }


def _ends_and_looks(run: Run, lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(length of the whole run, length after which it is measured)."""
    if run.part != METHODS:
        yield from ((length, length) for length in lengths)
        return
    for ends in (run.length, *(run.looks[::-1] if run.schedule == "constant" else ())):
        yield from ((ends, length) for length in (*run.looks, run.length) if length <= ends)


def _rows(run: Run, job: Job, out: Path, experiment: Experiment) -> Iterator[Row]:
    """Of one run: of its weights on the way, then of the last ones."""
    folder = out / job.name
    config = EvalConfig(**job.on_the_way)
    for length, epoch in zip(run.looks, job.checkpoints, strict=True):
        if scores := _scores(numbers_at(folder, job.shards, epoch, config)):
            yield _row(run, length, experiment.steps_of(run, length), scores, folder)
    if scores := _scores(numbers_of(folder, "trained", job.evaluation, job.shards)):
        yield _row(run, run.length, experiment.steps_of(run, run.length), scores, folder)


def _scores(results: Mapping[str, Any] | None) -> Scores:
    flat = flatten(results or {})
    named = {key: flat.get(name) for key, name in SCORES.items()}
    named |= {key: value for key, value in flat.items() if key.startswith(AGGREGATE)}
    return {key: float(value) for key, value in named.items() if isinstance(value, int | float)}


def _row(run: Run, length: int, steps: int, scores: Scores, folder: Path) -> Row:
    # A learning rate that is constant is, after any length, where that of a finished run is.
    finished = length == run.length or run.schedule == "constant"
    by_seed = {run.seed: scores}
    return Row(run.part, run.name, length, steps, run.schedule, run.length, finished, by_seed, (str(folder),))
