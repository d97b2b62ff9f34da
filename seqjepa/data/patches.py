"""Patches at fixations, cut for a whole batch on any device, and where they are (docs/fidelity.md #9–13).

Letters: B images of H × W pixels, T fixations of each, p the side of a patch. Positions are (row, col).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from seqjepa.data.fixations import Fixating

POSITION_NAMES = ("x", "y")
_GREY = (0.5, 0.5, 0.5)
_PIXELS_AT_ONCE = 1 << 20  # of padded images, on a CPU: what stays in its cache


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
        samples = max(1, _PIXELS_AT_ONCE // ((H + how.patch) * (W + how.patch)))
    pieces = zip(images.permute(0, 2, 3, 1).split(samples), fixations.split(samples), strict=True)
    patches = [cut(some, looks, how, mean) for some, looks in pieces]
    return (torch.cat(patches) if len(patches) > 1 else patches[0]).permute(0, 1, 4, 2, 3)


def positions(fixations: Tensor, size: tuple[int, int], how: Fixating) -> Tensor:
    """int64 [..., 2] (row, col) in images of size (H, W) → float32 [..., 2] in [0, 1): (x, y) of what is seen there.

    (col / W, row / H); with fidelity "author" (row / H, col / W), which is (x, y) of the released, transposed patch.
    """
    fractions = fixations / torch.tensor(size, dtype=torch.float32, device=fixations.device)
    return fractions if how.fidelity == "author" else fractions.flip(-1)


def _cut_exact(images: Tensor, fixations: Tensor, how: Fixating, mean: Sequence[float]) -> Tensor:
    """uint8 [B, H, W, 3] → [B, T, p, p, 3]."""
    p = how.patch
    padded = _padded(images, p, _fill_colour(how, mean))
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
        padded.copy_(torch.tensor(colour, dtype=torch.uint8, device=images.device))
    padded[:, before : before + H, before : before + W] = images
    return padded


def _fill_colour(how: Fixating, mean: Sequence[float]) -> list[int]:
    return [0, 0, 0] if how.fill == "black" else [round(255 * value) for value in mean]


def _cut_released(images: Tensor, fixations: Tensor, how: Fixating, mean: Sequence[float]) -> Tensor:
    """uint8 [B, H, W, 3] → [B, T, p, p, 3]: released patches (docs/fidelity.md #9, 10).

    Bilinear samples at c − 0.5 + p/2 · t down and r − 0.5 + p/2 · t across, t from −1 to 1: note r and c.

    Truncation shows the last bit, so the arithmetic is fixed: float32, in the released order, each product rounded.
    (torch's grid_sample fuses products and sums on some machines, and is one level off at 1 of 10⁵ values there.)
    """
    device, (H, W) = images.device, images.shape[1:3]
    outside = torch.tensor(mean if how.fill == "mean" else (0.0,) * 3, device=device)
    levels = torch.tensor(255.0, device=device)  # a tensor: a GPU would multiply by the reciprocal of a number
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
    line = torch.linspace(-1, 1, p) * (p / side)
    middle = torch.arange(side).float() * 2 / side - 1  # grid_sample's coordinates, −1 … 1
    places = ((line + middle[:, None] + 1) * side - 1) / 2
    before = places.floor()
    pixel, device = before.long() + p // 2 + 2, centres.device
    return pixel.to(device)[centres], (places - before).to(device)[centres]


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
