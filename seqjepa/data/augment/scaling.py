"""Actions from augmentation parameters: nine numbers of nine scales, brought to one before they are subtracted.

zscore (default)  (p − mean) / std with constants frozen per recipe and image size
author            p over its L2 norm along the views of the sample, as released (docs/fidelity.md #22); depends on T
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_COLUMNS, AUGMENTATION_PARTS
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import RECIPES, Recipe
from shards.errors import ConfigError, FormatError
from shards.schema import DatasetInfo

ScalingMode = Literal["zscore", "author"]
_MOST = 1e6  # of a mean or std, and its reciprocal the least of a std


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of the nine parameters, in their own units; std is 1 where a parameter is constant.

    Raises ConfigError unless there are nine numbers each, none beyond a million, and every std is positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        numbers = torch.tensor([*self.mean, *self.std], dtype=torch.float64)
        if not len(self.mean) == len(self.std) == len(AUGMENTATION_COLUMNS) or not numbers.isfinite().all():
            raise ConfigError(f"scaling needs finite means and stds for: {', '.join(AUGMENTATION_COLUMNS)}")
        if numbers.abs().max() > _MOST or 0 < min(self.std) < 1 / _MOST:
            raise ConfigError(f"scaling has numbers beyond {_MOST:.0e}, or a std below {1 / _MOST:.0e}")
        if min(self.std) <= 0:
            raise ConfigError(f"scaling has a std of {min(self.std)}; allowed is > 0 (1 for a constant parameter)")

    def standardise(self, params: Tensor) -> Tensor:
        """float32 [..., 9] in pixels, factors, turns → z-scores [..., 9]."""
        mean, std = (torch.tensor(v, dtype=torch.float32, device=params.device) for v in (self.mean, self.std))
        return (params - mean) / std

    def as_json(self) -> dict[str, Any]:
        """What goes into a baked set's metadata; stored_scaling() gives the scaling back."""
        return {name: list(values) for name, values in asdict(self).items()}


def augmentation_actions(params: Tensor, kind: str, scaling: Scaling | None) -> Tensor:
    """Differences between neighbouring views: params float32 [B, T, 9] → [B, T-1, A].

    kind     one of AUGMENTATION_PARTS
    scaling  constants of the z-scores; None: the released normalisation. A column that is zero in all views gives zero.

    Raises ConfigError for an unknown kind.
    """
    if kind not in AUGMENTATION_PARTS:
        raise ConfigError(f"unknown augmentation action {kind!r}; there are: {', '.join(AUGMENTATION_PARTS)}")
    scaled = scaling.standardise(params) if scaling else params / _norm(params)
    return scaled[..., AUGMENTATION_PARTS[kind]].diff(dim=1)


def _norm(params: Tensor) -> Tensor:
    """L2 norm over views: [B, T, 9] → [B, 1, 9], at least 1e-12.

    Summed view by view: a reduction's order, and so the last bit, may depend on how many samples there are.
    """
    total = torch.zeros_like(params[:, 0])
    for view in params.unbind(1):
        total += view * view
    return total.sqrt_().clamp_(min=1e-12)[:, None]


def stored_scaling(info: DatasetInfo) -> Scaling | None:
    """The constants noted with a set of baked augmentations; None: it is no such set. FormatError: no constants."""
    if "augmenting" not in info.fingerprint:
        return None
    try:
        noted = info.fingerprint["augmenting"]["scaling"]
        return Scaling(*(tuple(float(value) for value in noted[name]) for name in ("mean", "std")))
    except (KeyError, TypeError, ValueError, OverflowError, ConfigError) as error:
        raise FormatError(
            f"{info.name}: the scaling of its augmentation parameters is unusable ({type(error).__name__}: {error}); "
            "bake the set again"
        ) from error


def estimate_constants(recipe: Recipe, height: int, width: int, n: int = 100_000, seed: int = 0) -> Scaling:
    """Scaling measured on n samples of two views, one from each pipeline, of height × width images."""
    params = draw_parameters(recipe, range(n), 2, height=height, width=width, seed=seed, epoch=0)
    values = params.vector().flatten(0, 1).to(torch.float64)
    constant = values.amax(dim=0) == values.amin(dim=0)
    std = values.std(dim=0).masked_fill(constant, 1.0)
    return Scaling(tuple(values.mean(dim=0).tolist()), tuple(std.tolist()))


def constants_for(recipe: Recipe, height: int, width: int) -> Scaling:
    """The frozen constants, or for other recipes and sizes an estimate that is the same every time."""
    return FROZEN.get((recipe, height, width)) or estimate_constants(recipe, height, width)


FROZEN: dict[tuple[Recipe, int, int], Scaling] = {
    (RECIPES["equimod"], 32, 32): Scaling(
        mean=(4.3122, 4.3166, 23.378, 23.374, 1.0, 1.0, 1.0, 0.0, 0.57837),
        std=(3.9814, 3.9804, 4.9629, 4.9579, 0.20657, 0.20648, 0.10326, 0.051633, 0.66257),
    ),
    (RECIPES["equimod"], 64, 64): Scaling(
        mean=(8.7465, 8.7535, 46.512, 46.505, 1.0, 1.0, 1.0, 0.0, 0.57837),
        std=(7.779, 7.7766, 9.8116, 9.8033, 0.20657, 0.20648, 0.10326, 0.051633, 0.66257),
    ),
    (RECIPES["simclr"], 96, 96): Scaling(
        mean=(13.184, 13.195, 69.638, 69.628, 1.0, 1.0, 1.0, 0.0, 0.525),
        std=(11.575, 11.572, 14.657, 14.645, 0.20657, 0.20648, 0.20653, 0.051633, 0.6528),
    ),
}
"""By recipe, height and width: estimate_constants with n = 1,000,000; symmetric draws have their exact means."""
