"""Fixations: where to look next, drawn from saliency maps with inhibition of return, for a whole batch on any device.

Letters: B samples, T fixations of a sample, H × W pixels of a map, p the side of a patch. Positions are (row, col).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from seqjepa.data.draws import Purpose, uniform
from shards.errors import ConfigError

# Added to each pixel before renormalising (docs/fidelity.md #14): what is left if all else is inhibited.
_FLOOR = 1e-16
_PIXELS_AT_ONCE = 1 << 20  # of maps, on a CPU: what about stays in its cache


@dataclass(frozen=True)
class Fixating:
    """How patches are taken from an image (paper §A.1; docs/fidelity.md #8–15). ConfigError for unknown values.

    patch       side of a patch, pixels
    inhibition  what a fixation closes to all later ones: the disc of radius patch/2 around it, the square of that half
                width (as released), or nothing
    fixations   drawn from the saliency map, or uniform over all pixels (then nothing is inhibited)
    fill        what lies outside the image: black, or the data set's mean colour
    fidelity    author: the released transposed bilinear grid instead of an exact crop
    """

    patch: int = 32
    inhibition: Literal["disc", "square", "none"] = "disc"
    fixations: Literal["saliency", "uniform"] = "saliency"
    fill: Literal["black", "mean"] = "black"
    fidelity: Literal["paper", "author"] = "paper"

    def __post_init__(self) -> None:
        if self.patch < 1:
            raise ConfigError(f"patch is {self.patch}; allowed is 1 or more pixels")
        types = get_type_hints(type(self))
        for name in [field.name for field in fields(self) if field.name != "patch"]:
            value, allowed = getattr(self, name), get_args(types[name])
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")

    @property
    def radius(self) -> int:
        """Of what is inhibited, in pixels."""
        return self.patch // 2

    def check_size(self, height: int, width: int) -> None:
        """ConfigError where patches are larger than the images, or transposed places may be outside them."""
        if self.patch > min(height, width):
            raise ConfigError(
                f"patches of {self.patch} pixels do not fit images of {height}×{width}; "
                f"use a patch of {min(height, width)} or less"
            )
        if self.fidelity == "author" and height != width:
            raise ConfigError(
                f"the released code transposes places, which takes square images, and these are {height}×{width}; "
                "use fidelity paper, or square images"
            )


def fixation_numbers(seed: int, epoch: int, samples: ArrayLike, count: int) -> Tensor:
    """The draws behind `count` fixations of each sample: float64 [B, count, 2] in [0, 1). More of them extend fewer."""
    numbers = uniform(seed, epoch, Purpose.FIXATIONS, samples, 2 * count)
    return torch.from_numpy(numbers.reshape(-1, count, 2))


def fixations_on(maps: np.ndarray, count: int, how: Fixating, seed: int = 0) -> np.ndarray:
    """`count` fixations on each map, for pictures: float [B, H, W] → int64 [B, count, 2], (row, col)."""
    numbers = fixation_numbers(seed, 0, np.arange(len(maps)), count)
    return sample_fixations(torch.from_numpy(maps), numbers, how).numpy()


def sample_fixations(maps: Tensor, numbers: Tensor, how: Fixating) -> Tensor:
    """One sequence of fixations for each map.

    maps     float [B, H, W], finite, not negative; only proportions matter
    numbers  float64 [B, T, 2], uniform in [0, 1), on the device of the maps
    Returns  int64 [B, T, 2], (row, col). Row b depends on map b and numbers b alone.

    Each fixation is drawn from the map without what its predecessors inhibit, exactly: a row by its mass, then a column
    in it, both by inverting a cumulative sum. A map that is used up counts as uniform over all pixels from then on, and
    is inhibited anew (docs/fidelity.md #14).
    """
    if how.fixations == "uniform":
        size = torch.tensor(maps.shape[1:], dtype=torch.float64, device=maps.device)
        return (numbers * size).long()
    if maps.device.type != "cpu":
        return _sample(maps, numbers, how)
    samples = max(1, _PIXELS_AT_ONCE // maps[0].numel())
    pieces = zip(maps.split(samples), numbers.split(samples), strict=True)
    return torch.cat([_sample(piece, draws, how) for piece, draws in pieces])


def _sample(maps: Tensor, numbers: Tensor, how: Fixating) -> Tensor:
    left = _Remaining(maps, how)
    drawn = []
    for draw in numbers.unbind(1):
        left.refill()
        row, col = left.pick(draw)
        drawn.append(torch.stack([row, col], 1))
        if how.inhibition != "none" and len(drawn) < numbers.shape[1]:
            left.inhibit(row, col)
    return torch.stack(drawn, 1)


class _Remaining:
    """The maps without what is inhibited so far, and the mass of each of their rows.

    Rows lie in one matrix, `margin` empty ones above and below each map, so that the rows around a fixation are there
    wherever it is.
    """

    def __init__(self, maps: Tensor, how: Fixating) -> None:
        self.B, self.H, self.W = maps.shape
        self.margin = 0 if how.inhibition == "none" else how.radius
        self.device = maps.device
        padded = torch.empty((self.B, self.H + 2 * self.margin, self.W), device=self.device)
        above, self.maps, below = padded.split([self.margin, self.H, self.margin], 1)
        self.maps.copy_(maps)
        above.zero_()
        below.zero_()
        self.rows = padded.view(-1, self.W)
        self.mass = padded.sum(2).double()  # [B, H + 2 margin]
        self.first = torch.arange(self.B, device=self.device) * padded.shape[1]
        self.least: Tensor | float = 0.0  # a map of no more mass than this is used up
        self.span = torch.arange(-self.margin, self.margin + 1, device=self.device)
        self.reach = torch.tensor(_reach(how.inhibition, self.margin), dtype=torch.int16, device=self.device)[:, None]
        self.columns = torch.arange(self.W, dtype=torch.int16, device=self.device)

    def refill(self) -> None:
        """Make maps that are used up uniform."""
        used_up = self.mass.sum(1) <= self.least
        # On a GPU, asking whether there are any would wait for all the work queued there.
        if self.device.type != "cpu" or bool(used_up.any()):
            self.maps.masked_fill_(used_up[:, None, None], 1.0)
            self.mass.narrow(1, self.margin, self.H).masked_fill_(used_up[:, None], float(self.W))

    def pick(self, draw: Tensor) -> tuple[Tensor, Tensor]:
        """float64 [B, 2] → rows and columns, int64 [B] each, in the maps."""
        place = _invert(self.mass, draw[:, 0])
        col = _invert(self.rows[self.first + place].double(), draw[:, 1])
        return place - self.margin, col

    def inhibit(self, row: Tensor, col: Tensor) -> None:
        """Take away what lies around (row, col)."""
        self.least = self.mass.sum(1) * (self.H * self.W * _FLOOR)
        places = (row + self.margin)[:, None] + self.span  # [B, 2 margin + 1]
        lines = (self.first[:, None] + places).flatten()
        distance = (self.columns - col[:, None].short()).abs_()
        near = distance[:, None, :] <= self.reach  # [B, 2 margin + 1, W]
        rest = self.rows.index_select(0, lines).masked_fill_(near.flatten(0, 1), 0.0)
        self.rows.index_copy_(0, lines, rest)
        self.mass.scatter_(1, places, rest.sum(1).double().view(self.B, -1))


def _invert(weights: Tensor, draw: Tensor) -> Tensor:
    """For each row of weights float64 [B, n], the index that a uniform number [B] falls on: int64 [B].

    It is the first whose cumulative sum is beyond draw · total, so nothing of weight 0 is ever chosen.
    """
    total = weights.cumsum(1)
    return torch.searchsorted(total, total[:, -1:] * draw[:, None], right=True).squeeze(1)


@lru_cache(maxsize=16)
def _reach(inhibition: str, radius: int) -> tuple[int, ...]:
    """For the rows −radius … radius from a fixation, how many columns to either side are inhibited."""
    rows = np.arange(-radius, radius + 1)
    half = np.sqrt(radius**2 - rows**2) if inhibition == "disc" else np.full(len(rows), radius)
    return tuple(int(value) for value in half)  # √ of a perfect square is exact, so rounding down is right
