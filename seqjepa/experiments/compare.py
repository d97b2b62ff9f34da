"""How methods whose sequences differ in length come to the same number of steps, and of views in a step.

From a comparison's settings to one job for each method and seed.

The comparison itself: job after job, each picked up where it was, and then all rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

from seqjepa.data.actions import ROTATION_COLUMNS
from seqjepa.devices import pick_device
from seqjepa.evaluate.results import read_results
from seqjepa.experiments.compare_scales import METHODS, SCALES, Entry, Scale
from seqjepa.experiments.compare_table import differing, floor_of, row_of, short
from seqjepa.experiments.job import Job, Say, refuse_other_runs, run_job
from seqjepa.files import write_file
from seqjepa.recipes import did_you_mean, load_recipe
from shards.environment import pass_environment_on
from shards.errors import ConfigError, UsageError
from shards.json_fields import strict_json
from shards.reader import ShardSet
from shards.schema import ViewSpec

LENGTHS = (2, 3, 4)
"""Views in a sequence, of any method."""
COMMON = 3
"""In as many passes over sequences of four views, sequences of two and of three fit whole passes too."""


@dataclass(frozen=True)
class Plan:
    """What every method trains for, exactly: `steps` optimizer steps, `views_per_step` views in each, up to rounding.

    batch, epochs  by the number of views in a sequence: sequences in a batch, passes over the training split
    """

    steps: int
    views_per_step: int
    batch: dict[int, int]
    epochs: dict[int, int]


def plan_steps(samples: int, steps: int, views_per_step: int) -> Plan:
    """The plan nearest to `steps` and `views_per_step` in which every method makes whole passes over `samples`.

    A pass over sequences of T views has T / 4 as many steps as one over sequences of four. UsageError: too few samples.
    """
    length = _steps_in_a_pass(samples, views_per_step)
    rounds = max(1, round(steps / (COMMON * length)))
    total = rounds * COMMON * length
    in_pass = {T: length * T // 4 for T in LENGTHS}
    return Plan(
        steps=total,
        views_per_step=round(4 * samples / length),
        batch={T: ceil(samples / in_pass[T]) for T in LENGTHS},
        epochs={T: total // in_pass[T] for T in LENGTHS},
    )


def _steps_in_a_pass(samples: int, views_per_step: int) -> int:
    """Over sequences of four views: the multiple of 4 that is nearest to the wish and can be had for all lengths."""
    wish = 4 * samples / views_per_step
    for length in sorted(range(4, samples + 1, 4), key=lambda k: abs(k - wish)):
        if all(_batches(samples, ceil(samples / part)) == part for part in (length * T // 4 for T in LENGTHS)):
            return length
    raise UsageError(
        f"a training split of {samples} samples cannot be cut into batches for sequences of "
        f"{', '.join(map(str, LENGTHS))} views alike; use one of at least 16"
    )


def _batches(samples: int, batch: int) -> int:
    """Batches of a pass, as the trainer cuts them: a last one of a single sequence is dropped."""
    whole, rest = divmod(samples, batch)
    return whole + (rest > 1)


@dataclass(frozen=True)
class Comparison:
    """What is compared: methods in the order of their rows, all on `shards`, each with every seed."""

    shards: Path
    methods: tuple[str, ...] = METHODS
    steps: int = 1200
    seeds: tuple[int, ...] = (0,)
    scale: str = "small"

    @property
    def sizes(self) -> Scale:
        return SCALES[self.scale]

    def plan(self) -> Plan:
        """UsageError or FormatError: shards that are not of views with rotations, or too few of them."""
        return plan_steps(_samples(self.shards), self.steps, self.sizes.views_per_step)

    def jobs(self) -> dict[str, list[Job]]:
        """By method, one for each seed. The first method's initial weights are evaluated too, as the floor of all."""
        plan, first = self.plan(), self.methods[0]
        return {name: [self._job(name, seed, plan, name == first) for seed in self.seeds] for name in self.methods}

    def _job(self, method: str, seed: int, plan: Plan, floor: bool) -> Job:
        entry = self.sizes.entries[method]
        return Job(
            name=f"{method}-seed{seed}",
            recipe=entry.recipe,
            settings=(f"method={method}", f"name=compare-{method}", f"seed={seed}", *_settings(entry, plan)),
            shards=self.shards,
            evaluation={**self.sizes.evaluation, "seed": seed},
            untrained=floor,
        )


def parse_methods(text: str) -> tuple[str, ...]:
    """ "all", or names with commas → names in that order, each once. UsageError for any other name."""
    if text.strip() == "all":
        return METHODS
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in METHODS:
            hint = did_you_mean(name, METHODS)
            raise UsageError(f"--methods: {name!r} is not a method{hint}; choose all, or from {', '.join(METHODS)}")
    return names


def _settings(entry: Entry, plan: Plan) -> tuple[str, ...]:
    """What the entry changes, then what is the same for all. Warm-up takes its part of training, as in the recipe."""
    optim, epochs = load_recipe(entry.recipe, entry.changes).optim, plan.epochs[entry.views]
    return (
        *entry.changes,
        f"data.context={entry.views - 1}",
        "data.image_size=0",
        "data.normalisation=shards",
        f"optim.batch_size={plan.batch[entry.views]}",
        f"optim.epochs={epochs}",
        f"optim.warmup_epochs={optim.warmup_epochs * epochs / optim.epochs:.6f}",
    )


def _samples(shards: Path) -> int:
    """Samples of the training split of a set of views that know their rotation."""
    opened = ShardSet.open(shards)
    spec = opened.info.spec
    names = [field.name for field in spec.params] if isinstance(spec, ViewSpec) else []
    if missing := [name for name in ROTATION_COLUMNS if name not in names]:
        raise ConfigError(
            f"{shards} has no views with {', '.join(missing)}, and methods are compared on rotations; give shards of "
            "3DIEBench or 3DIE-Synth (`seqjepa-data shard 3diebench`, `seqjepa demo`)"
        )
    if "train" not in opened.splits:
        raise ConfigError(f"{shards} has no split train; it has {', '.join(opened.splits)}")
    return len(opened.split("train"))


FILE = "comparison.json"


def compare(
    comparison: Comparison,
    out: Path = Path("runs/compare"),
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Does what is left to do below `out` – a run directory for each method and seed – and returns all rows.

    {"rows": one a method (rows.row_of), "untrained": the scores of the initial encoder, "settings": …}, which
    out/comparison.json holds as well. say hears what is done. Raises what a job raises; what is finished is kept.
    """
    hear, jobs = say or (lambda line: None), comparison.jobs()
    refuse_foreign(out / FILE)
    for job in chain(*jobs.values()):  # every mistake before the first minute
        refuse_other_runs(job, out)
    rows = []
    for number, (method, mine) in enumerate(jobs.items(), start=1):
        hear(f"[{number}/{len(jobs)}] {method}")
        runs = [run_job(job, out, device=device, workers=workers, progress=progress, say=hear) for job in mine]
        rows.append(row_of(method, runs))
        hear(short(rows[-1]))
    first = [Path(run) for run in rows[0]["runs"]]
    settings = _notes(comparison, jobs, first[0], device)
    if otherwise := differing(Path(run) for row in rows for run in row["runs"]):
        settings["differently_measured"] = otherwise
    results = {"rows": rows, "untrained": floor_of(first), "settings": settings}
    write_file(out / FILE, (json.dumps(results, indent=2) + "\n").encode())
    return results


def refuse_foreign(file: Path) -> None:
    """UsageError if there is a file of that name that no comparison wrote."""
    if not file.exists():
        return
    try:
        ours = {"rows", "settings"} <= set(strict_json(file.read_bytes(), nan=True))
    except (OSError, ValueError, TypeError) as error:
        pass_environment_on(error)
        ours = False
    if not ours:
        raise UsageError(f"{file} is there and was not written by `seqjepa compare`; move it, or choose another --out")


def _notes(comparison: Comparison, jobs: Mapping[str, list[Job]], run: Path, device: str) -> dict[str, Any]:
    """What was compared and how, for the notes under the table."""
    plan, protocol = comparison.plan(), read_results(run)["trained"]["protocol"]
    known = ("dataset", "resolution", "train_samples", "val_samples", "probe_epochs")
    return {
        **{key: protocol[key] for key in known},
        "shards": str(comparison.shards),
        "scale": comparison.scale,
        "steps_asked": comparison.steps,
        "steps": plan.steps,
        "views_per_step": plan.views_per_step,
        "seeds": list(comparison.seeds),
        "device": str(pick_device(device)),
        "changes": {job.name: list(job.settings) for job in chain(*jobs.values())},
    }
