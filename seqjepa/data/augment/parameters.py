"""The parameters of augmentations: drawn as a pure function of (seed, epoch, sample, view), and scaled for actions.

B samples, T views of a sample; the last view is the target. Actions are differences of the nine recorded parameters,
which have nine scales and are brought to one first:

zscore (default)  (p − mean) / std with constants frozen per recipe and image size
author            p over its L2 norm along the views of the sample, as released (docs/fidelity.md #22); depends on T
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from itertools import permutations
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_COLUMNS, as_spec
from seqjepa.data.augment.recipes import RECIPES, Pipeline, Recipe
from seqjepa.data.draws import Purpose, uniform
from shards.errors import ConfigError, FormatError
from shards.schema import ActionSpec, ActionTerm, DatasetInfo

HUE = 3  # the factor after brightness, contrast and saturation
ORDERS = np.array(list(permutations(range(4))), dtype=np.int64)

# Which of a view's 36 numbers is for what. Part of every run's reproducibility: 13 to 15 are free, add there.
_NUMBERS = 36
_FLIP, _JITTER, _FACTORS, _ORDER, _GRAYSCALE = 0, 1, slice(2, 6), 6, 7
_BLUR, _SIGMA, _SOLARISE, _TOP, _LEFT = 8, 9, 10, 11, 12
_AREAS, _RATIOS = slice(16, 36, 2), slice(17, 36, 2)


@dataclass(frozen=True)
class AugmentParams:
    """The augmentation of N = B × T (or any) views. CPU tensors with leading shape [...] = [B, T].

    crop       int64 [..., 4]     top i, left j, height h, width w, in pixels of the source image
    flip       bool [...]         applied after the crop
    jitter     bool [...]         whether colours are jittered
    factors    float32 [..., 4]   of brightness, contrast and saturation, hue in turns; (1, 1, 1, 0) without jitter
    order      int64 [..., 4]     order[..., k] is the factor that is applied k-th
    grayscale  bool [...]
    sigma      float32 [...]      of the blur, in pixels of the view; 0 without
    threshold  int64 [...]        grey levels from this on are inverted; 256 without solarising
    """

    crop: Tensor
    flip: Tensor
    jitter: Tensor
    factors: Tensor
    order: Tensor
    grayscale: Tensor
    sigma: Tensor
    threshold: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.flip.shape

    def vector(self) -> Tensor:
        """float32 [..., 9]: the recorded parameters, columns actions.AUGMENTATION_COLUMNS."""
        return torch.cat([self.crop.to(torch.float32), self.factors, self.sigma[..., None]], dim=-1)

    def flat(self) -> AugmentParams:
        """The same views along one axis, [B·T]."""
        depth = self.flip.ndim
        return self._each(lambda value: value.flatten(0, depth - 1))

    def as_samples(self) -> AugmentParams:
        """Each view as the one of a sample of its own, [B·T, 1]."""
        return self.flat()._each(lambda value: value[:, None])

    def __getitem__(self, rows: slice | int | Tensor) -> AugmentParams:
        """Views (or samples) `rows` of the leading axis."""
        return self._each(lambda value: value[rows])

    def _each(self, change) -> AugmentParams:
        return AugmentParams(**{field.name: change(getattr(self, field.name)) for field in fields(self)})


def draw_parameters(
    recipe: Recipe,
    samples: ArrayLike,
    views: int,
    *,
    height: int,
    width: int,
    seed: int,
    epoch: int,
    purpose: Purpose = Purpose.AUGMENT,
) -> AugmentParams:
    """Parameters for `views` views of each sample: samples int [B], images of height × width pixels → [B, T].

    View t of a sample depends on (seed, epoch, sample, t), and on whether it is the last. Raises ConfigError.
    """
    if views < 1 or height < 1 or width < 1:
        raise ConfigError(f"views is {views}, the image {height}×{width}; allowed is 1 and more")
    numbers = uniform(seed, epoch, purpose, samples, views * _NUMBERS).reshape(-1, views, _NUMBERS)
    draw = _Draw(recipe.pipelines(views), numbers)
    crop = np.stack(draw.crops(height, width), axis=-1)
    jitter, factors = draw.jitter()
    order = ORDERS[(numbers[..., _ORDER] * len(ORDERS)).astype(np.int64)]
    sigma = np.where(draw.coin("blur", _BLUR), draw.between("sigma", numbers[..., _SIGMA]), 0.0)
    threshold = np.where(draw.coin("solarise", _SOLARISE), draw.of("threshold"), 256)
    return AugmentParams(
        crop=torch.from_numpy(crop),
        flip=torch.from_numpy(draw.coin("flip", _FLIP)),
        jitter=torch.from_numpy(jitter),
        factors=torch.from_numpy(factors.astype(np.float32)),
        order=torch.from_numpy(order),
        grayscale=torch.from_numpy(draw.coin("grayscale", _GRAYSCALE)),
        sigma=torch.from_numpy(sigma.astype(np.float32)),
        threshold=torch.from_numpy(threshold.astype(np.int64)),
    )


class _Draw:
    """Uniform numbers [B, T, 36] turned into parameters, pipeline t for view t."""

    def __init__(self, pipelines: list[Pipeline], numbers: NDArray[np.float64]) -> None:
        self.pipelines, self.numbers = pipelines, numbers

    def of(self, name: str) -> NDArray:
        """A field of each view's pipeline: [T] or, for a range, [T, 2]."""
        return np.array([getattr(pipeline, name) for pipeline in self.pipelines])

    def coin(self, name: str, column: int) -> NDArray[np.bool_]:
        return self.numbers[..., column] < self.of(name)

    def between(self, name: str, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self.of(name).T
        return low + (high - low) * numbers

    def jitter(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        strengths = np.stack([self.of(name) for name in ("brightness", "contrast", "saturation", "hue")], axis=-1)
        low, high = np.maximum(0, 1 - strengths), 1 + strengths
        low[:, HUE], high[:, HUE] = -strengths[:, HUE], strengths[:, HUE]
        factors = low + (high - low) * self.numbers[..., _FACTORS]
        on = self.coin("jitter", _JITTER)
        return on, np.where(on[..., None], factors, np.array([1.0, 1.0, 1.0, 0.0]))

    def crops(self, height: int, width: int) -> tuple[NDArray[np.int64], ...]:
        """Top, left, height, width [B, T] as torchvision's RandomResizedCrop draws them: the first of ten that fits."""
        h, w = self._sizes(height, width)
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.argmax(axis=-1)[..., None]
        h, w = (np.take_along_axis(side, first, axis=-1)[..., 0] for side in (h, w))
        top = np.floor(self.numbers[..., _TOP] * (height - h + 1)).astype(np.int64)
        left = np.floor(self.numbers[..., _LEFT] * (width - w + 1)).astype(np.int64)
        boxes = np.stack([top, left, h, w], axis=-1)
        central = np.array([_central_box(pipeline, height, width) for pipeline in self.pipelines])
        drawn = fits.any(axis=-1) & np.array([pipeline.scale is not None for pipeline in self.pipelines])
        return tuple(np.moveaxis(np.where(drawn[..., None], boxes, central), -1, 0))

    def _sizes(self, height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Heights and widths of the ten attempts, int64 [B, T, 10], rounded half to even as Python's round."""
        scale = np.array([pipeline.scale or (1.0, 1.0) for pipeline in self.pipelines])[..., None]
        ratio = np.log(self.of("ratio"))[..., None]
        area = height * width * (scale[:, 0] + (scale[:, 1] - scale[:, 0]) * self.numbers[..., _AREAS])
        aspect = np.exp(ratio[:, 0] + (ratio[:, 1] - ratio[:, 0]) * self.numbers[..., _RATIOS])
        return np.rint(np.sqrt(area / aspect)).astype(np.int64), np.rint(np.sqrt(area * aspect)).astype(np.int64)


def _central_box(pipeline: Pipeline, height: int, width: int) -> tuple[int, int, int, int]:
    """Without a crop the whole image; where ten attempts fail its middle, at the nearest allowed ratio."""
    h, w = height, width
    if pipeline.scale is not None and width / height < pipeline.ratio[0]:
        h = round(width / pipeline.ratio[0])
    elif pipeline.scale is not None and width / height > pipeline.ratio[1]:
        w = round(height * pipeline.ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w


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

    def as_json(self) -> dict[str, Any]:
        """What goes into a baked set's metadata; stored_scaling() gives the scaling back."""
        return {name: list(values) for name, values in asdict(self).items()}


def check_scaling_mode(mode: str) -> None:
    """ConfigError for another than those of ScalingMode."""
    if mode not in get_args(ScalingMode):
        raise ConfigError(
            f"there is no normalisation {mode!r} of actions; there are: {', '.join(get_args(ScalingMode))}"
        )


def scaled(action: str | ActionSpec, scaling: Scaling | None) -> ActionSpec:
    """An action made of the parameters of augmentations, its z-scores with these constants if they have none.

    None: the released scaling, over the norm along the views of a sample (docs/fidelity.md #22); it depends on T.
    """
    return ActionSpec(tuple(_scaled_term(term, scaling) for term in as_spec(action).terms))


def _scaled_term(term: ActionTerm, scaling: Scaling | None) -> ActionTerm:
    if term.normalise != "zscore" or term.mean:
        return term
    if scaling is None:
        return replace(term, normalise="norm")
    at = [AUGMENTATION_COLUMNS.index(name) for name in term.columns]
    return replace(term, mean=tuple(scaling.mean[k] for k in at), std=tuple(scaling.std[k] for k in at))


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


@lru_cache(maxsize=64)
def constants_for(recipe: Recipe, height: int, width: int) -> Scaling:
    """The frozen constants, or for other recipes and sizes an estimate that is the same every time; it takes 0.3 s."""
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
