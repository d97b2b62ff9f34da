"""`seqjepa compare`: every method on the same shards, with the same encoder, steps, views in a step, seed and probes.

Each method has its recipe on 3DIEBench at a scale (scale.py). docs/comparison.md says where its settings are not
the paper's, and why.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from seqjepa.config import RunConfig
from seqjepa.data.actions import ROTATION_COLUMNS, action_name
from seqjepa.data.sampling import long_enough
from seqjepa.data.stored import usual_order
from seqjepa.devices import pick_device
from seqjepa.evaluate.results import read_results
from seqjepa.experiments.compare_table import (
    different_protocols,
    method_row,
    progress_line,
    unfinished_note,
    untrained_row,
)
from seqjepa.experiments.job import Job, Say, refuse_other_runs, run_job
from seqjepa.experiments.scale import RunScale, assignments, load_scale
from seqjepa.experiments.schedule import LENGTHS, Schedule, plan_steps
from seqjepa.files import write_file
from seqjepa.methods import find_method, method_names
from seqjepa.methods.base import Method
from seqjepa.models.ema import MovingAverage
from seqjepa.recipes import did_you_mean, flatten, load_recipe
from shards.errors import ConfigError, UsageError
from shards.machine.files import refuse_foreign
from shards.reader import ShardSet
from shards.schema import ViewSpec

FILE = "comparison.json"
SIGN = b'{\n  "rows": ['
RECIPES: Mapping[str, tuple[str, ...]] = {
    "seq_jepa": ("3die-rot-M3",),
    "simclr": ("simclr-3die",),
    "byol": ("byol-3die",),
    "vicreg": ("vicreg-3die",),
    "vicreg_traj": ("vicreg-traj-3die",),
    "sen": ("sen-3die-rot",),
    "equimod": ("equimod-3die-rot",),
    "sie": ("sie-3die-rot",),
    "conditional_byol": ("conditional-byol-3die-rot",),
    "context_ssl": ("context-ssl-3die",),
    "conv_jepa": (
        *("conv-jepa-stl-M4", "data.context=3", "data.action=rotation", "data.patch=0", "model.stem=standard"),
    ),
}
"""Method → its recipe for rotations of 3DIEBench's objects, and what is changed in a recipe for something else.

Methods that are not here have seq-JEPA's, with as many views as they take.
"""


CONVERGED_STEPS = 3600
"""Steps below which methods that follow a moving average are still far from where they end, of 256 views each: on
3DIE-Synth's plain set seq_jepa's R² of relative rotation was 0.46, 0.62, 0.70 and 0.70–0.715 after 1,200, 2,400, 3,600
and 4,800 steps (author fidelity, one seed), where simclr's did not change."""


@dataclass(frozen=True)
class Comparison:
    """What is compared: methods in the order of their rows, all on `shards`, each with every seed, at one scale."""

    shards: Path
    methods: tuple[str, ...] = tuple(RECIPES)
    steps: int = 1200
    seeds: tuple[int, ...] = (0,)
    scale: str = "small"

    def schedule(self) -> Schedule:
        """ConfigError or FormatError: shards that are not of views with rotations. UsageError: too few samples."""
        views_per_step = load_scale(self.scale).compare.views_per_step
        return plan_steps(training_samples(self.shards), self.steps, views_per_step)

    @property
    def left_out(self) -> dict[str, str]:
        """Why methods are not compared, by name: their package is broken, or own data has not what they need."""
        spec = own_views(ShardSet.open(self.shards))
        return {method: why for method in self.methods if (why := _why_not(method, spec))}

    def jobs(self) -> dict[str, list[Job]]:
        """By method, one for each seed. The first method's initial weights are evaluated too: all share the encoder.

        ConfigError: no method can be trained on these shards.
        """
        scale, schedule, left_out = load_scale(self.scale), self.schedule(), self.left_out
        spec = own_views(ShardSet.open(self.shards))
        own = () if spec is None else ("data.action=shards", f"data.order={usual_order(spec)}")
        methods = [method for method in self.methods if method not in left_out]
        if not methods:
            raise ConfigError("; ".join(f"{method} {why}" for method, why in left_out.items()))
        found: dict[str, list[Job]] = {}
        for method in methods:
            mine = method_settings(method, scale)
            plain = load_recipe(compared_recipe(method)[0], mine)
            settings = (*mine, *common_settings(method, plain, schedule), *own)
            asked = scale.compare.evaluation.model_dump(exclude_unset=True)
            found[method] = [
                Job(
                    name=f"{method}-seed{seed}",
                    recipe=compared_recipe(method)[0],
                    settings=(*settings, f"name=compare-{method}", f"seed={seed}"),
                    shards=self.shards,
                    evaluation={**asked, "seed": seed},
                    untrained=method == methods[0],
                )
                for seed in self.seeds
            ]
        return found


def compared_recipe(method: str) -> tuple[str, ...]:
    """A recipe's name, and what is changed in it, "a.b=c" each."""
    found = find_method(method)
    views = (found and found.views_needed) or max(LENGTHS)
    return RECIPES.get(method) or ("3die-rot-M3", f"method={method}", f"data.context={views - 1}")


def compared_methods() -> tuple[str, ...]:
    """Every method, those of the paper first, those of other packages last."""
    return tuple(dict.fromkeys((*RECIPES, *method_names())))


def parse_methods(text: str) -> tuple[str, ...]:
    """ "all", or names with commas → names in that order, each once. UsageError for any other name."""
    known = compared_methods()
    if text.strip() == "all":
        return known
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UsageError(f"--methods: {name!r} is not a method{hint}; choose all, or from {', '.join(known)}")
    return names


def method_settings(method: str, scale: RunScale) -> tuple[str, ...]:
    """What a method's recipe changes at a scale, "a.b=c" each: the one place where methods may differ."""
    recipe, *changes = compared_recipe(method)
    own = assignments(flatten(scale.compare.settings.get(method, {})))
    return (*changes, *scale.changed_settings(recipe, "3diebench"), *own)


def common_settings(
    method: str, plain: RunConfig, schedule: Schedule, warm_up: Schedule | None = None
) -> tuple[str, ...]:
    """What is the same for all, as far as sequences of one length go; `plain` is the run without it.

    ConfigError: sequences of a length that the schedule has not.
    """
    views = plain.data.context + 1
    if views not in schedule.batch:
        least, most = min(schedule.batch), max(schedule.batch)
        raise ConfigError(f"{method} takes {views} views a sequence; methods are compared on {least} to {most}")
    same = ("data.set=", "data.image_size=0", "data.normalisation=shards", "data.fraction=1.0")
    return (*same, *schedule.settings(plain, warm_up))


def own_views(opened: ShardSet) -> ViewSpec | None:
    """What a set of somebody's own views holds, by order or by actions that it declares; None: any other set."""
    spec = opened.info.spec
    if not isinstance(spec, ViewSpec):
        return None
    declares = spec.actions is not None and action_name(spec.actions) != "rotation"
    if set(ROTATION_COLUMNS) <= set(spec.param_names) and not declares:
        return None
    return spec if spec.ordered or spec.actions is not None or not spec.params else None


def _why_not(name: str, spec: ViewSpec | None) -> str:
    """Why a method cannot be trained, on these own views or at all; "" if it can."""
    try:
        method = find_method(name) or Method
    except ConfigError as error:
        return f"cannot be used: {error}"
    if spec is None:
        return ""
    if missing := [name for name in method.params_needed if name not in spec.param_names]:
        return f"needs views with {', '.join(missing)}"
    return "needs actions, and the set declares none" if method.uses_actions and not spec.actions else ""


def training_samples(shards: Path) -> int:
    """Samples of the training split of a set of views whose rotations are known, or of somebody's own."""
    opened = ShardSet.open(shards)
    spec, own = opened.info.spec, own_views(opened)
    names = [field.name for field in spec.params] if isinstance(spec, ViewSpec) else []
    if own is None and (missing := [name for name in ROTATION_COLUMNS if name not in names]):
        raise ConfigError(
            f"{opened.place} has no views with {', '.join(missing)}, and methods are compared on rotations; give "
            "shards of 3DIEBench or 3DIE-Synth (`seqjepa-data shard 3diebench`, `seqjepa demo`), or of views that "
            "declare actions"
        )
    if "train" not in opened.splits:
        raise ConfigError(f"{opened.place} has no split train; it has {', '.join(opened.splits)}")
    index = opened.split("train")
    longest = min(max(LENGTHS), int(index.sequences.counts.max()))  # of all methods: each leaves out shorter ones
    return len(long_enough(index, usual_order(own) if own else "random", longest, 1))


def compare(
    comparison: Comparison,
    out: Path = Path("runs/compare"),
    *,
    device: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Do what is left to do below `out` – a run directory for each method and seed – and return all rows.

    {"rows": one a method (compare_table.method_row), "untrained": the scores of the initial encoder, "settings": …},
    which out/comparison.json holds as well. say is called with what is done. Raises what a job raises; what is finished
    is kept.
    """
    hear, jobs = say or (lambda line: None), comparison.jobs()
    if (out / FILE).exists():
        refuse_foreign(out / FILE, SIGN, "seqjepa compare")
    for job in chain(*jobs.values()):  # every mistake before the first minute
        refuse_other_runs(job, out)
    for method, why in comparison.left_out.items():
        hear(f"{method} is left out: it {why}")
    if unfinished := unfinished_methods(jobs, comparison.schedule().steps):
        hear(f"warning: {unfinished_note(unfinished, CONVERGED_STEPS)}")
    rows = []
    for number, (method, mine) in enumerate(jobs.items(), start=1):
        hear(f"[{number}/{len(jobs)}] {method}")
        runs = [run_job(job, out, device=device, workers=workers, progress=progress, say=hear) for job in mine]
        rows.append(method_row(method, runs))
        hear(progress_line(rows[-1]))
    first = [Path(run) for run in rows[0]["runs"]]
    settings = _settings_of(comparison, jobs, first[0], device)
    if different := different_protocols(Path(run) for row in rows for run in row["runs"]):
        settings["differently_measured"] = different
    results = {"rows": rows, "untrained": untrained_row(first), "settings": settings}
    write_file(out / FILE, (json.dumps(results, indent=2) + "\n").encode())
    return results


def unfinished_methods(jobs: Iterable[str], steps: int) -> list[str]:
    """Methods that follow a moving average, where so many steps are too few for them."""
    return [name for name in jobs if follows_average(name)] if steps < CONVERGED_STEPS else []


def follows_average(method: str) -> bool:
    """Whether its target is a moving average, whose τ rises to 1 at the last step of a run."""
    return issubclass(find_method(method) or Method, MovingAverage)


def _settings_of(comparison: Comparison, jobs: Mapping[str, list[Job]], run: Path, device: str) -> dict[str, Any]:
    """What was compared and how, for the notes under the table."""
    schedule, protocol = comparison.schedule(), read_results(run)["trained"]["protocol"]
    known = ("dataset", "resolution", "train_samples", "val_samples", "probe_epochs")
    targets = {"targets": protocol["targets"]} if protocol.get("targets") else {}
    return {
        **{key: protocol[key] for key in known},
        **targets,
        "shards": str(comparison.shards),
        "scale": comparison.scale,
        "steps_asked": comparison.steps,
        "steps": schedule.steps,
        "schedules": {method: mine[0].config().optim.schedule for method, mine in jobs.items()},
        "unfinished": unfinished_methods(jobs, schedule.steps),
        "converged_steps": CONVERGED_STEPS,
        "views_per_step": schedule.views_per_step,
        "seeds": list(comparison.seeds),
        "device": str(pick_device(device)),
        "changes": {job.name: list(job.settings) for job in chain(*jobs.values())},
    }
