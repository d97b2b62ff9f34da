"""From a comparison's settings to one job for each method and seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from seqjepa.compare.plan import Plan, plan_steps
from seqjepa.compare.scales import METHODS, SCALES, Entry, Scale
from seqjepa.data.actions import ROTATION_COLUMNS
from seqjepa.jobs.job import Job
from seqjepa.recipes import did_you_mean, load_recipe
from shards.errors import ConfigError, UsageError
from shards.reader import ShardSet
from shards.schema import ViewSpec


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
