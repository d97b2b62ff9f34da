"""A scale makes runs fit the machine: a small TOML file that changes settings of recipes and lengths of evaluations.

    # one line that says what it is for
    epochs = 0.1                      # of the recipe's, and of its warm-up
    [kinds]                           # shards to take where those of a kind are not given
    [defaults.model]                  # settings where the recipe itself says nothing
    [settings.data]                   # settings, whatever the recipe says
    [evaluation]                      # keyword arguments of evaluate_run
    [kind.stl10.settings.data]        # the same three for recipes of one kind of shards,
    [method.simclr.settings.optim]    # and for one method; later ones win
    [compare]                         # of comparisons and experiments: views_per_step, evaluation,
    [compare.settings.context_ssl]    # and settings of one method
    [experiment]                      # of experiments (paper/runs.toml) alone: ExperimentScale

A file may begin with `extends = "small"`: another scale, whose values it changes. `data.fraction` among the settings
takes a part of the training objects. The scales of the package are in scales/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from seqjepa import recipes
from seqjepa.config import EvalOptions
from seqjepa.evaluate.studies import DEFAULT, SUITES
from seqjepa.experiments.paper_runs import shard_kinds
from seqjepa.methods import method_names
from seqjepa.recipes import did_you_mean, flatten
from seqjepa.recipes.library import merge_tables, read_text
from shards.errors import ConfigError

FOLDER = resources.files("seqjepa") / "experiments" / "scales"


def _one_of(names: Callable[[], Iterable[str]], what: str) -> AfterValidator:
    """ValueError for other words, with those that there are."""

    def check(word: str) -> str:
        known = tuple(names())
        if word not in known:
            raise ValueError(f"there is no {what} {word!r}{did_you_mean(word, known)}; there are: {', '.join(known)}")
        return word

    return AfterValidator(check)


ShardKind = Annotated[str, _one_of(shard_kinds, "kind of shards")]
MethodName = Annotated[str, _one_of(method_names, "method")]
Length = Annotated[int, Field(ge=1)]
LISTED = BeforeValidator(lambda given: given if isinstance(given, list | tuple) else (given,))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Evaluation(EvalOptions):
    """Keyword arguments of evaluate_run that a scale may give; runs, shards and devices are the sweep's."""

    suite: Annotated[str, _one_of(lambda: SUITES, "suite")] = DEFAULT


class Changes(_Section):
    """Settings as nested tables, and how runs are evaluated."""

    defaults: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    evaluation: Evaluation = Evaluation()


class ComparisonScale(_Section):
    """What a comparison needs beyond the runs' own settings. settings: by method, nested tables."""

    views_per_step: int = Field(default=1024, ge=8)
    evaluation: Evaluation = Evaluation(m_val=(1, 2, 3, 4, 5), val_draws=8)
    settings: dict[MethodName, dict[str, Any]] = {}


class SynthSet(_Section):
    """What `seqjepa-data synth 3die` renders, by the names of its options."""

    preset: str = "plain"
    objects: int = Field(ge=1)
    views: int = Field(default=16, ge=2)
    size: int = Field(default=48, ge=16)
    families: int | None = None
    seed: int = 0


class ExperimentScale(_Section):
    """How long the runs of an experiment are, and on what where no shards are given.

    steps         of length 1, to the next whole passes
    lengths       of training, times `steps`
    looks         lengths at which weights are kept and evaluated on the way
    changed_at    lengths at which one change at a time is tried; one of them may stand by itself
    views_per_s   that a run is thought to train on a CPU core, evaluation_s that an evaluation is thought to take: for
                  the hours that are said before any run is finished
    """

    steps: int = Field(default=1200, ge=1)
    lengths: tuple[Length, ...] = (1, 4, 16)
    looks: tuple[Length, ...] = (1, 4)
    changed_at: Annotated[tuple[Length, ...], LISTED, Field(min_length=1)] = (4,)
    views_per_s: float = Field(default=2000.0, gt=0)
    evaluation_s: float = Field(default=60.0, ge=0)
    set: SynthSet = SynthSet(preset="hard", objects=3300)


class RunScale(Changes):
    """One scale; its name is the file's."""

    name: str
    epochs: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    kinds: dict[ShardKind, ShardKind] = {}
    kind: dict[ShardKind, Changes] = {}
    method: dict[MethodName, Changes] = {}
    compare: ComparisonScale = ComparisonScale()
    experiment: ExperimentScale = ExperimentScale()

    def changed_settings(self, recipe: str, kind: str) -> tuple[str, ...]:
        """What `load_recipe(recipe, …)` is to be given, "a.b=c" each."""
        own = set(flatten(recipes.find_recipe(recipe).settings))
        plain = recipes.load_recipe(recipe)
        layers = list(self._layers(kind, plain.method))
        found: dict[str, object] = {}
        for layer in layers:
            found |= {key: value for key, value in flatten(layer.defaults).items() if key not in own}
        if self.epochs != 1:
            found["optim.epochs"] = max(1, round(plain.optim.epochs * self.epochs))
            found["optim.warmup_epochs"] = round(plain.optim.warmup_epochs * self.epochs, 3)
        for layer in layers:
            found |= flatten(layer.settings)
        if plain.model.projector_kind == "transformer":
            found.pop("model.projector", None)  # widths of an MLP, which that is not
        return assignments(found)

    def evaluation_of(self, recipe: str, kind: str) -> dict[str, Any]:
        """Keyword arguments of evaluate_run for a run of `recipe`."""
        layers = self._layers(kind, recipes.load_recipe(recipe).method)
        asked = [layer.evaluation.model_dump(exclude_unset=True) for layer in layers]
        return {name: value for one in asked for name, value in one.items()}

    def _layers(self, kind: str, method: str) -> Iterator[Changes]:
        yield self
        yield self.kind.get(kind, Changes())
        yield self.method.get(method, Changes())


def scale_names() -> list[str]:
    return sorted(file.name.removesuffix(".toml") for file in FOLDER.iterdir() if file.name.endswith(".toml"))


def load_scale(name: str) -> RunScale:
    """A scale of the package, or a file where `name` ends in .toml. ConfigError: every mistake in one line."""
    given = _extended(name)
    try:
        return RunScale.model_validate({**given, "name": Path(name).name.removesuffix(".toml")})
    except ValidationError as error:
        raise ConfigError(f"--scale {name}: {recipes.mistakes(error, RunScale)}") from None


def _extended(name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a scale over those of the one that it extends."""
    own = recipes.parse(_text(name), f"--scale {name}")
    base = own.pop("extends", None)
    if base is None:
        return own
    if isinstance(base, str) and base.endswith(".toml"):
        base = str(Path(name).parent / base)
    if not isinstance(base, str) or base in (*seen, name):
        raise ConfigError(f"--scale {name}: extends = {base!r:.80} should be the name of another scale")
    return merge_tables(_extended(base, (*seen, name)), own)


def _text(name: str) -> str:
    if name.endswith(".toml"):
        return read_text(Path(name), "scale")
    known = scale_names()
    if name not in known:
        raise ConfigError(f"there is no scale {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def assignments(settings: Mapping[str, object]) -> tuple[str, ...]:
    """{"optim.lr": 0.001} → ("optim.lr=0.001",). JSON's numbers, strings, booleans and arrays of them are TOML too."""
    return tuple(f"{key}={json.dumps(value, ensure_ascii=False, default=str)}" for key, value in settings.items())
