"""What is drawn from: a Pipeline for each view, two in a Recipe, one for the target view (docs/fidelity.md #20)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from shards.errors import ConfigError

_PROBABILITIES = ("flip", "jitter", "grayscale", "blur", "solarise")
_STRENGTHS = {"brightness": float("inf"), "contrast": float("inf"), "saturation": float("inf"), "hue": 0.5}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(name: str, value: Any, least: float, most: float) -> None:
    if not _is_number(value) or not least <= value <= most or value == float("inf"):
        allowed = f"{least} … {most}" if most != float("inf") else f"a number from {least} on"
        raise ConfigError(f"augmentation {name} is {value!r}; allowed is {allowed}")


def _require_range(name: str, value: Any, most: float) -> None:
    pair = value if isinstance(value, tuple) and len(value) == 2 and all(map(_is_number, value)) else (0, 0)
    if not 0 < pair[0] <= pair[1] <= most or pair[1] == float("inf"):
        limit = f" ≤ {most}" if most != float("inf") else ""
        raise ConfigError(f"augmentation {name} is {value!r}; allowed are two numbers 0 < low ≤ high{limit}")


@dataclass(frozen=True)
class Pipeline:
    """The augmentation of one view, in the order in which it is applied. Everything off gives the image itself.

    scale       smallest and largest part of the image's area that a random resized crop takes; None: no crop
    ratio       smallest and largest width / height of the crop, drawn uniformly in its logarithm
    flip        probability of a horizontal flip
    jitter      probability of colour jitter: brightness, contrast, saturation factors U(max(0, 1 − x), 1 + x), a hue
                shift U(−x, x) in turns, applied in random order
    grayscale   probability           blur   probability, with sigma U(low, high) in pixels of the view
    solarise    probability; pixels of `threshold` (0 … 255) and more are inverted

    Raises ConfigError for a value out of range.
    """

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    threshold: int = 128

    def __post_init__(self) -> None:
        for name in _PROBABILITIES:
            _require(name, getattr(self, name), 0, 1)
        for name, most in _STRENGTHS.items():
            _require(name, getattr(self, name), 0, most)
        _require("threshold", self.threshold, 0, 255)
        if self.scale is not None:
            _require_range("scale", self.scale, 1)
        _require_range("ratio", self.ratio, float("inf"))
        _require_range("sigma", self.sigma, float("inf"))


@dataclass(frozen=True)
class Recipe:
    """`observation` is for all views but the last, `target` for the last, whatever the number of views."""

    observation: Pipeline
    target: Pipeline

    def pipelines(self, views: int) -> list[Pipeline]:
        """One for each of `views` ≥ 1 views."""
        return [*[self.observation] * (views - 1), self.target]


_EQUIMOD = Pipeline(
    scale=(0.2, 1.0),
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=1.0,
)
_CROP = Pipeline(scale=_EQUIMOD.scale)
_SIMCLR = replace(_EQUIMOD, saturation=0.4, blur=0.5)
_COLOUR = replace(_SIMCLR, scale=None, flip=0.0)

RECIPES: dict[str, Recipe] = {
    "equimod": Recipe(_EQUIMOD, replace(_EQUIMOD, blur=0.1, solarise=0.2)),  # docs/fidelity.md #19
    "simclr": Recipe(_SIMCLR, _SIMCLR),  # STL-10 of Table 3, where the paper gives no recipe
    "colour": Recipe(_COLOUR, _COLOUR),  # beside the actions of stored views, which it leaves true
    "crop": Recipe(_CROP, _CROP),  # no row of the paper: all that differs between views stands in the action
    "none": Recipe(Pipeline(), Pipeline()),
}


def build_recipe(
    name: str, observation: Mapping[str, Any] | None = None, target: Mapping[str, Any] | None = None
) -> Recipe:
    """A recipe of RECIPES, fields of its pipelines replaced. Raises ConfigError for unknown names and bad values."""
    if name not in RECIPES:
        raise ConfigError(f"there is no augmentation recipe {name!r}; there are: {', '.join(RECIPES)}")
    recipe = RECIPES[name]
    return Recipe(_changed(recipe.observation, observation or {}), _changed(recipe.target, target or {}))


def kernel_size(size: int) -> int:
    """Width of the blur kernel for views of `size` pixels: 2 · round((size − 10) / 20) + 1, at least 1.

    As released: hafezgh/seq-jepa@73e0550 datasets.py:169.
    """
    return max(1, 2 * round((size - 10) / 20) + 1)


def _changed(pipeline: Pipeline, changes: Mapping[str, Any]) -> Pipeline:
    known = [field.name for field in fields(Pipeline)]
    if unknown := [name for name in changes if name not in known]:
        raise ConfigError(f"there is no augmentation {', '.join(unknown)}; there are: {', '.join(known)}")
    as_fields = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return replace(pipeline, **as_fields)
