"""What makes a run fit the machine: a small TOML file that changes settings of recipes and lengths of evaluations.

    # one line that says what it is for
    epochs = 0.1                      # of the recipe's, and of its warm-up
    [kinds]                           # shards to take where those of a kind are not given
    [defaults.model]                  # settings where the recipe itself says nothing
    [settings.data]                   # settings, whatever the recipe says
    [evaluation]                      # keyword arguments of evaluate_run
    [kind.stl10.settings.data]        # the same three for recipes of one kind of shards,
    [method.simclr.settings.optim]    # and for one method; later ones win

`data.fraction` among the settings takes a part of the training objects. The scales of the package are in scales/.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seqjepa import recipes
from seqjepa.config import RunConfig
from seqjepa.recipes import did_you_mean, flatten
from seqjepa.toml_writer import dumps
from shards.errors import ConfigError


class Changes(BaseModel):
    """Settings as nested tables, and keyword arguments of evaluate_run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    defaults: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    evaluation: dict[str, Any] = {}


class Scale(Changes):
    """One scale; its name is the file's."""

    name: str
    epochs: float = Field(default=1.0, gt=0)
    kinds: dict[str, str] = {}
    kind: dict[str, Changes] = {}
    method: dict[str, Changes] = {}

    def changed_settings(self, recipe: str, kind: str) -> tuple[str, ...]:
        """What `load_recipe(recipe, …)` is to be given, "a.b=c" each."""
        own = set(flatten(tomllib.loads(recipes.text(recipe))))
        plain = recipes.load_recipe(recipe)
        layers = list(self._layers(kind, plain.method))
        found: dict[str, object] = {}
        for layer in layers:
            found |= {key: value for key, value in flatten(layer.defaults).items() if key not in own}
        found |= self._shortened(plain)
        for layer in layers:
            found |= flatten(layer.settings)
        if plain.model.projector_kind == "transformer":
            found.pop("model.projector", None)  # widths of an MLP, which that is not
        return tuple(_assignment(key, value) for key, value in found.items())

    def evaluation_of(self, recipe: str, kind: str) -> dict[str, Any]:
        """Keyword arguments of evaluate_run for a run of `recipe`."""
        layers = self._layers(kind, recipes.load_recipe(recipe).method)
        return {name: value for layer in layers for name, value in layer.evaluation.items()}

    def _layers(self, kind: str, method: str) -> Iterator[Changes]:
        yield self
        yield self.kind.get(kind, Changes())
        yield self.method.get(method, Changes())

    def _shortened(self, plain: RunConfig) -> dict[str, object]:
        if self.epochs == 1:
            return {}
        warmup = round(plain.optim.warmup_epochs * self.epochs, 3)
        return {"optim.epochs": max(1, round(plain.optim.epochs * self.epochs)), "optim.warmup_epochs": warmup}


def scale_names() -> list[str]:
    folder = resources.files("seqjepa") / "sweep" / "scales"
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load_scale(name: str) -> Scale:
    """A scale of the package, or a file where `name` ends in .toml. ConfigError: every mistake in one line."""
    try:
        return Scale.model_validate({**tomllib.loads(_text(name)), "name": Path(name).name.removesuffix(".toml")})
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--scale {name} is not TOML: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"--scale {name}: " + "; ".join(map(_explain, error.errors()))) from None


def _text(name: str) -> str:
    if name.endswith(".toml"):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the scale {name}: {error}") from None
    known = scale_names()
    if name not in known:
        raise ConfigError(f"there is no scale {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return (resources.files("seqjepa") / "sweep" / "scales" / f"{name}.toml").read_text(encoding="utf-8")


def _explain(error: Mapping[str, Any]) -> str:
    path = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        section = Scale if len(error["loc"]) == 1 else Changes
        allowed = [name for name in section.model_fields if name != "name"]
        return f"unknown key {path}{did_you_mean(str(error['loc'][-1]), allowed)}, allowed here: {', '.join(allowed)}"
    return f"{path} = {error['input']!r}: {error['msg']}"


def _assignment(key: str, value: object) -> str:
    """ "optim.lr=0.001", the value as TOML."""
    written = dumps({"v": value}).strip().removeprefix("v = ")
    return f"{key}={written}"
