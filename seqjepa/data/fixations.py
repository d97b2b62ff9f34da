"""Fixations and the patches that they see, for a whole batch on any device (paper §A.1; docs/fidelity.md #8–15).

Fixations are drawn from saliency maps with inhibition of return; patches are cut around them. `fused_patches` is the
same for full batches on a GPU, in the few kernels that a compiler makes of it.

Letters: B images of H × W pixels with a map each, T fixations of an image, p the side of a patch. Positions are
(row, col).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from seqjepa.compiling import CompiledForGpu
from seqjepa.data.draws import Purpose, uniform
from seqjepa.devices import constant
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


def fixating_as(fidelity: str, **given: Any) -> Fixating:
    """What is not given as the fidelity has it: the released code inhibits a square (docs/fidelity.md #8)."""
    return Fixating(**{"inhibition": "square" if fidelity == "author" else "disc", "fidelity": fidelity, **given})


def fixation_numbers(
    seed: int, epoch: int, samples: ArrayLike, count: int, purpose: Purpose = Purpose.FIXATIONS
) -> Tensor:
    """The draws behind `count` fixations of each sample: float64 [B, count, 2] in [0, 1). More of them extend fewer."""
    numbers = uniform(seed, epoch, purpose, samples, 2 * count)
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
        return (numbers * constant(maps.shape[1:], maps.device, torch.float64)).long()
    reach = reach_of(how, maps.device)
    if maps.device.type != "cpu":
        return draw_fixations(maps, numbers, how, reach)
    samples = max(1, _PIXELS_AT_ONCE // maps[0].numel())
    pieces = zip(maps.split(samples), numbers.split(samples), strict=True)
    return torch.cat([draw_fixations(piece, draws, how, reach) for piece, draws in pieces])


def draw_fixations(maps: Tensor, numbers: Tensor, how: Fixating, reach: Tensor) -> Tensor:
    """sample_fixations from all maps at once, not uniform. reach: see reach_of."""
    left = _Remaining(maps, how, reach)
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
    wherever it is. reach: see reach_of.
    """

    def __init__(self, maps: Tensor, how: Fixating, reach: Tensor) -> None:
        self.B, self.H, self.W = maps.shape
        self.margin = len(reach) // 2
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
        self.reach = reach[:, None]
        self.columns = torch.arange(self.W, dtype=torch.int16, device=self.device)

    def refill(self) -> None:
        """Make maps that are used up uniform."""
        used_up = self.mass.sum(1) <= self.least
        # On a GPU, asking whether there are any would wait for all the work queued there; a graph knows no ifs.
        if self.device.type != "cpu" or torch.compiler.is_compiling() or bool(used_up.any()):
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


def reach_of(how: Fixating, device: torch.device) -> Tensor:
    """int16 [2 margin + 1]: how many columns to either side of a fixation are inhibited in each row around it."""
    margin = 0 if how.inhibition == "none" else how.radius
    return constant(_reach(how.inhibition, margin), device, torch.int16)


@lru_cache(maxsize=16)
def _reach(inhibition: str, radius: int) -> tuple[int, ...]:
    """For the rows −radius … radius from a fixation, how many columns to either side are inhibited."""
    rows = np.arange(-radius, radius + 1)
    half = np.sqrt(radius**2 - rows**2) if inhibition == "disc" else np.full(len(rows), radius)
    return tuple(int(value) for value in half)  # √ of a perfect square is exact, so rounding down is right


_GREY = (0.5, 0.5, 0.5)
_PADDED_PIXELS_AT_ONCE = 1 << 20  # of padded images, on a CPU: what stays in its cache


def cut_patches(images: Tensor, fixations: Tensor, how: Fixating, mean: Sequence[float] = _GREY) -> Tensor:
    """The patches that a sequence of fixations sees.

    images     uint8 [B, 3, H, W]; strides of [B, H, W, 3] are fastest
    fixations  int64 [B, T, 2], (row, col)
    mean       per channel, in [0, 1]: what lies outside the image where how.fill is "mean"
    Returns    uint8 [B, T, 3, p, p] strided as [B, T, p, p, 3]: rows r − p//2 … r − p//2 + p − 1, columns alike.
               With fidelity "author", [B, T, 3, p, p] of the released grid: truncated to uint8 over black (STL-10),
               float32 in 0 … 255 over the mean (ImageNet)

    Raises ConfigError where a patch is larger than the image.
    """
    how.check_size(*images.shape[2:])
    cut = _cut_released if how.fidelity == "author" else _cut_exact
    (H, W), samples = images.shape[2:], max(1, len(images))
    if images.device.type == "cpu":
        samples = max(1, _PADDED_PIXELS_AT_ONCE // ((H + how.patch) * (W + how.patch)))
    pieces = zip(images.permute(0, 2, 3, 1).split(samples), fixations.split(samples), strict=True)
    patches = [cut(some, looks, how, mean) for some, looks in pieces]
    return (torch.cat(patches) if len(patches) > 1 else patches[0]).permute(0, 1, 4, 2, 3)


def positions(fixations: Tensor, size: tuple[int, int], how: Fixating) -> Tensor:
    """int64 [..., 2] (row, col) in images of size (H, W) → float32 [..., 2] in [0, 1): (x, y) of what is seen there.

    (col / W, row / H); with fidelity "author" (row / H, col / W), which is (x, y) of the released, transposed patch.
    """
    fractions = fixations / constant(size, fixations.device)
    return fractions if how.fidelity == "author" else fractions.flip(-1)


def _cut_exact(images: Tensor, fixations: Tensor, how: Fixating, mean: Sequence[float]) -> Tensor:
    """uint8 [B, H, W, 3] → [B, T, p, p, 3]."""
    p = how.patch
    padded = _padded(images, p, fill_colour(how, mean))
    windows = padded.unfold(1, p, 1).unfold(2, p, 1).permute(0, 1, 2, 4, 5, 3)  # a view: [B, H + 1, W + 1, p, p, 3]
    sample = torch.arange(len(images), device=images.device)[:, None]
    return windows[sample, fixations[..., 0], fixations[..., 1]]


def _padded(images: Tensor, p: int, colour: Sequence[int]) -> Tensor:
    """uint8 [B, H, W, 3] → [B, H + p, W + p, 3] with p // 2 pixels of `colour` before, the rest behind."""
    B, H, W, _ = images.shape
    padded = images.new_empty((B, H + p, W + p, 3))
    before = p // 2
    if len(set(colour)) == 1:
        padded.fill_(colour[0])
    else:
        padded.copy_(constant(colour, images.device, torch.uint8))
    padded[:, before : before + H, before : before + W] = images
    return padded


def fill_colour(how: Fixating, mean: Sequence[float]) -> list[int]:
    return [0, 0, 0] if how.fill == "black" else [round(255 * value) for value in mean]


def _cut_released(images: Tensor, fixations: Tensor, how: Fixating, mean: Sequence[float]) -> Tensor:
    """uint8 [B, H, W, 3] → [B, T, p, p, 3]: released patches (docs/fidelity.md #9, 10).

    Bilinear samples at c − 0.5 + p/2 · t down and r − 0.5 + p/2 · t across, t from −1 to 1: note r and c.

    Truncation shows the last bit, so the arithmetic is fixed: float32, in the released order, each product rounded.
    (torch's grid_sample fuses products and sums on some machines, and is one level off at 1 of 10⁵ values there.)
    """
    device, (H, W) = images.device, images.shape[1:3]
    outside = constant(mean if how.fill == "mean" else (0.0,) * 3, device)
    levels = constant((255.0,), device)  # a tensor: a GPU would multiply by the reciprocal of a number
    pixels = images.float() / levels - outside
    pixels = F.pad(pixels, (0, 0, *[how.patch // 2 + 2] * 4))
    down, south = _released_lines(fixations[..., 1], H, how.patch)
    across, east = _released_lines(fixations[..., 0], W, how.patch)
    patches = _bilinear(pixels, (down[..., :, None], south[..., :, None]), (across[..., None, :], east[..., None, :]))
    patches = (patches + outside) * levels
    return patches if how.fill == "mean" else patches.byte()


def _released_lines(centres: Tensor, side: int, p: int) -> tuple[Tensor, Tensor]:
    """Where the p lines of a patch lie along an axis of `side` pixels, around each of the centres int64 [B, T].

    Returns the pixels before them, int64 [B, T, p] in an image with a margin of p//2 + 2, and how far beyond, float32.
    """
    pixel, beyond = _released_grid(side, p, centres.device)
    return pixel[centres], beyond[centres]


@lru_cache(maxsize=16)
def _released_grid(side: int, p: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """What _released_lines takes from, for every centre: [side, p] both."""
    line = torch.linspace(-1, 1, p) * (p / side)
    middle = torch.arange(side).float() * 2 / side - 1  # grid_sample's coordinates, −1 … 1
    places = ((line + middle[:, None] + 1) * side - 1) / 2
    before = places.floor()
    return (before.long() + p // 2 + 2).to(device), (places - before).to(device)


def _bilinear(pixels: Tensor, rows: tuple[Tensor, Tensor], cols: tuple[Tensor, Tensor]) -> Tensor:
    """float32 [B, H, W, 3] → [B, T, p, p, 3] between pixels (row, col) and (row + 1, col + 1)."""
    (row, south), (col, east) = rows, cols
    north, west = 1 - south, 1 - east
    sample = torch.arange(len(pixels), device=pixels.device)[:, None, None, None]

    def weighed(down: int, right: int, weight: Tensor) -> Tensor:
        return pixels[sample, row + down, col + right].mul_(weight[..., None])

    seen = weighed(0, 0, north * west)
    seen += weighed(0, 1, north * east)
    seen += weighed(1, 0, south * west)
    return seen.add_(weighed(1, 1, south * east))


_compiled: list[CompiledForGpu] = []


def fused_patches(
    images: Tensor, maps: Tensor, numbers: Tensor, how: Fixating, mean: Sequence[float]
) -> tuple[Tensor, Tensor] | None:
    """Fixations int64 [B, T, 2] and patches uint8 [B, T, 3, p, p], as sample_fixations and cut_patches give them.

    None where these are to be called: with released patches, for smaller batches, and where there is no compiler.
    ConfigError: a patch is larger than the image.
    """
    how.check_size(*images.shape[2:])
    if how.fidelity == "author":
        return None
    if not _compiled:
        _compiled.append(CompiledForGpu(looks_of, "fixations and patches"))
    around = constant(fill_colour(how, mean), images.device, torch.uint8)
    return _compiled[0](len(images), images, maps, numbers, how, reach_of(how, images.device), around)


def looks_of(
    images: Tensor, maps: Tensor, numbers: Tensor, how: Fixating, reach: Tensor, around: Tensor
) -> tuple[Tensor, Tensor]:
    """around: uint8 [3], what lies outside of an image."""
    (H, W), p = images.shape[2:], how.patch
    if how.fixations == "uniform":
        fixations = torch.stack([numbers[..., 0] * H, numbers[..., 1] * W], dim=-1).long()
    else:
        fixations = draw_fixations(maps, numbers, how, reach)
    lines = torch.arange(-(p // 2), p - p // 2, device=images.device)
    rows, cols = fixations[..., :1] + lines, fixations[..., 1:] + lines  # [B, T, p]
    inside = ((rows >= 0) & (rows < H))[..., :, None] & ((cols >= 0) & (cols < W))[..., None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    seen = images.permute(0, 2, 3, 1)[sample, rows.clamp(0, H - 1)[..., :, None], cols.clamp(0, W - 1)[..., None, :]]
    return fixations, torch.where(inside[..., None], seen, around).permute(0, 1, 4, 2, 3)
