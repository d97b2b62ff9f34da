"""Choosing a recipe by what a shard set holds – its kind, parameters and classes – where none is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqjepa.data.actions import OF_THE_SHARDS, implied_action
from seqjepa.data.stored import usual_order
from seqjepa.methods import find_method
from seqjepa.paper.sets import CLASSES_SHA256, classes_sha256
from seqjepa.recipes import OF_RESNETS, chooses_timm, load_recipe, toml_value
from seqjepa.recipes.library import OWN_VIEWS
from seqjepa.training.data import BY_DEFAULT, incompatibilities, training_split
from shards.errors import ConfigError
from shards.reader import ShardSet
from shards.schema import DatasetInfo, ImageSpec, MapSpec, ViewSpec

LARGE = 10_000
"""Training samples from which a set that is not the paper's gets the paper's network and schedule, not a demo's."""
FEWEST_STEPS = 2000
"""Of a run on views of the user's own."""
STANDARD_STEM = 64
"""Pixels a side from which a ResNet keeps its stem, which sees a quarter of the resolution."""
STEPS = 4
"""An epoch has at least so many steps, or the batch is made smaller."""


@dataclass(frozen=True)
class Choice:
    """recipe, settings: what `load_recipe` takes. why: what the set holds that decided."""

    recipe: str
    settings: tuple[str, ...]
    why: str

    def without(self, overrides: Sequence[str]) -> Choice:
        """The same without what `overrides` ("KEY=VALUE") give themselves, or what their encoder has not."""
        keys = {text.partition("=")[0].strip() for text in overrides}
        keys |= set(OF_RESNETS) if chooses_timm(overrides) else set()
        kept = (text for text in self.settings if text.partition("=")[0] not in keys)
        return replace(self, settings=tuple(kept))

    def __str__(self) -> str:
        changed = f", with {', '.join(self.settings)}" if self.settings else ""
        return f"recipe {self.recipe}{changed}: {self.why}; --recipe takes another"


def choose_recipe(shards: Path, overrides: Sequence[str] = ()) -> Choice:
    """The row of the paper that is for such a set, or the demo's recipe for a set of such a size.

    overrides: "KEY=VALUE" that are given beside it, of which data.split, data.action and method count: batch and epochs
    are for the split's samples. Which recipe follows from the split that is trained on by default, where there is one.
    ConfigError: no recipe fits, or there is no such split or method. FormatError: no shard set.
    """
    opened = ShardSet.open(shards)
    info = opened.info
    of_split = [text for text in overrides if text.partition("=")[0].strip() == "data.split"]
    split = training_split(opened, load_recipe(overrides=of_split))
    by_default = next((name for name in BY_DEFAULT if name in info.splits), split)
    told = Told.of(overrides)
    found = _find(info, info.splits[by_default].samples, told)
    if found is None and isinstance(info.spec, ViewSpec) and _single(info.spec):
        raise ConfigError(
            f"{opened.place} holds one view of each sample, and no action leads from one to itself: put several into "
            "one sequence, or write the pictures as images (`seqjepa-data shard folder`)"
        )
    if found is None:
        raise ConfigError(
            f"no recipe is for {opened.place}, which holds {_describe(info)}; declare actions of its parameters "
            "(data.action), train without any (data.action=none), or give one of `seqjepa recipes ls` with --recipe"
        )
    recipe, fixed, why = found
    fixed += tuple(told.views())
    settings = (*fixed, *_settings_of_size(recipe, fixed, info, info.splits[split].samples))
    config = load_recipe(recipe, settings)
    if problems := list(incompatibilities(info, config.data, config.method)):
        raise ConfigError(f"{opened.place} {'; '.join(problems)}, for recipe {recipe}; or give another with --recipe")
    return Choice(recipe, settings, f"{opened.place} holds {why}")


Found = tuple[str, tuple[str, ...], str]


@dataclass(frozen=True)
class Told:
    """What of overrides says how views of one's own are trained on: data.action ("shards": nothing), method."""

    action: Any = OF_THE_SHARDS
    method: str = "seq_jepa"

    @classmethod
    def of(cls, overrides: Sequence[str]) -> Told:
        parts = (text.partition("=") for text in overrides)
        given = {key.strip(): toml_value(value.strip()) for key, _, value in parts if value.strip()}
        return cls(given.get("data.action", cls.action), str(given.get("method", cls.method)))

    def views(self) -> Iterator[str]:
        """The context that a method on pairs or triples takes, whatever the recipe's."""
        if (method := find_method(self.method)) and method.views_needed is not None:
            yield f"data.context={method.views_needed - 1}"


def _find(info: DatasetInfo, samples: int, told: Told) -> Found | None:
    """Recipe, the settings that make it fit, and why."""
    known, large = CLASSES_SHA256.get(classes_sha256(info.classes), ""), samples >= LARGE
    match info.spec:
        case ViewSpec() as spec:
            return _of_views(spec, known, large, _describe(info), told)
        case ImageSpec() as spec:
            return _of_images(spec, known, large, _describe(info))
        case MapSpec():
            return None


def _of_views(spec: ViewSpec, known: str, large: bool, words: str, told: Told) -> Found | None:
    if _single(spec):
        return None
    own = "views" if large else "views-tiny", tuple(_of_own_views(spec, told)), words
    if spec.actions is not None or spec.ordered or not spec.params:
        return own
    match implied_action(spec.param_names):
        case "rotation" if known == "3DIEBench":
            return "3die-rot-M3", (), f"3DIEBench's classes in {words}"
        case "rotation":
            return ("3die-rot-M3", _OTHER_DATA, words) if large else ("synth-tiny", (), words)
        case "position":
            return "stl-pls-M4" if large else "saccades-tiny", ("data.patch=0", *_OTHER_DATA), words
        case "augmentation":
            baked = ("data.augment=none", "data.action=augmentation", *_OTHER_DATA)
            return "tiny-all-M2" if large else "cifar-tiny", baked, words
    method = find_method(told.method)
    return own if told.action != OF_THE_SHARDS or (method and not method.uses_actions) else None


def _single(spec: ViewSpec) -> bool:
    """Whether samples have no second view."""
    return (spec.sequence or spec.views) < 2 and not spec.chunked


def _of_own_views(spec: ViewSpec, told: Told) -> Iterator[str]:
    """Its own actions and order, a stem for its size, and which actions the method needs."""
    action, method = told.action, find_method(told.method)
    if action == OF_THE_SHARDS and not (spec.actions and spec.actions.terms):
        action = "none" if spec.actions else implied_action(spec.param_names)
        yield f"data.action={action}"
    if action in ("none", []) and method and "model.condition" in method.settings:
        yield "model.condition=none"
    if usual_order(spec) == "window":
        yield "data.order=window"
    if min(spec.height, spec.width) < STANDARD_STEM:
        yield "model.stem=cifar"


def _of_images(spec: ImageSpec, known: str, large: bool, words: str) -> Found | None:
    """Demos' recipes learn crops of whole images, the one action whose effect shows within minutes."""
    named = f"{known}'s classes in {words}" if known else words
    if spec.kind == "saliency":
        own = () if known == "STL-10" else _OTHER_DATA
        return "stl-pls-M4" if large or known == "STL-10" else "saccades-tiny", own, named
    if known in _RECIPE_OF_SET:
        return _RECIPE_OF_SET[known], (), named
    if spec.height != spec.width:  # augmented views are square, patches at fixations are cut from any image
        uniform = ("data.fixations=uniform", "data.inhibition=none", *_OTHER_DATA)
        return "stl-pls-nosal-M4" if large else "saccades-tiny", uniform, named
    rows = "c100-all-M2" if spec.height < 48 else "tiny-all-M2"
    return (rows, _OTHER_DATA, named) if large else ("cifar-tiny", (), named)


_RECIPE_OF_SET = {"CIFAR100": "c100-all-M2", "TinyImageNet": "tiny-all-M2", "STL-10": "stl-fullsize-M4"}
_OTHER_DATA = ('data.set=""', "data.normalisation=shards")


def _settings_of_size(recipe: str, fixed: tuple[str, ...], info: DatasetInfo, samples: int) -> Iterator[str]:
    """Settings that differ from the recipe's because the set is of another size."""
    config, spec = load_recipe(recipe, fixed), info.spec
    assert not isinstance(spec, MapSpec), "_find finds nothing for maps"
    if config.data.image_size and (spec.height, spec.width) != (config.data.image_size,) * 2:
        yield "data.image_size=0"
    if config.data.patch > min(spec.height, spec.width):
        yield f"data.patch={min(spec.height, spec.width)}"
    views = (spec.sequence or spec.views) if isinstance(spec, ViewSpec) and not spec.chunked else 0
    if 0 < views <= config.data.context:
        yield f"data.context={views - 1}"
    epochs = -(-FEWEST_STEPS // max(1, -(-samples // config.optim.batch_size)))
    if recipe in OWN_VIEWS and epochs > config.optim.epochs:
        yield f"optim.epochs={epochs}"
    if samples < STEPS * config.optim.batch_size:
        batch = max(2, samples // STEPS)
        yield f"optim.batch_size={batch - batch % 8 if batch > 8 else batch}"


def _describe(info: DatasetInfo) -> str:
    match info.spec:
        case ViewSpec() as spec:
            columns = ", ".join(spec.param_names) or "no parameters"
            views = "sequences of views" if spec.chunked else f"{spec.views} views"
            return f"{views} of {spec.height}×{spec.width} with {columns}"
        case ImageSpec() as spec:
            maps = "with saliency maps" if spec.kind == "saliency" else "without saliency maps"
            return f"images of {spec.height}×{spec.width} {maps}"
        case MapSpec():
            return "saliency maps without images"
