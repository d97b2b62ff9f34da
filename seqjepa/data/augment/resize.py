"""Random resized crops: a small matrix per sample and axis, in batches, where the images are.

Its weights are those of torchvision's resized_crop with BICUBIC and antialias=True (ATen's upsample_bicubic2d_aa, which
follows PIL): Keys' cubic with a = −0.5, widened where the crop is shrunk, cut off at the edges of the crop and
normalised.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from seqjepa.data.augment.colour import Levels

_A = -0.5


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, zero from |x| = 2 on."""
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def weights(length: int, size: int) -> Tensor:
    """float64 [size, length]: rows that resample `length` pixels to `size`; each sums to 1."""
    scale = length / size
    centres = scale * (torch.arange(size, dtype=torch.float64) + 0.5)
    pixels = torch.arange(length, dtype=torch.float64) + 0.5
    raw = cubic((pixels - centres[:, None]) / max(scale, 1.0))
    return raw / raw.sum(dim=1, keepdim=True)


@lru_cache(maxsize=8)
def bank(extent: int, size: int, device: torch.device) -> Tensor:
    """Weights for every crop along an axis of `extent` pixels: float32 [2·extent, extent + 1, size, extent].

    [l − 1, extent − s] is for the `l` pixels from `s` on, [extent + l − 1, …] the same with the output reversed.
    Only [2·extent, size, 2·extent] is stored: moving along the second axis slides a window over rows with zeros on
    both sides.
    """
    rows = torch.zeros(2, extent, size, 2 * extent, dtype=torch.float64)
    for length in range(1, extent + 1):
        rows[0, length - 1, :, extent : extent + length] = weights(length, size)
    rows[1] = rows[0].flip(1)
    stored = rows.flatten(0, 1).to(device, torch.float32)
    return stored.as_strided((2 * extent, extent + 1, size, extent), (size * 2 * extent, 1, 2 * extent, 1))


def resampling_matrices(start: Tensor, length: Tensor, reverse: Tensor | None, bank: Tensor) -> Tensor:
    """float32 [N, size, extent]: row n resamples pixels start … start + length (int64 [N]) of an axis to `size`.

    reverse: int64 [N] of 0 and 1, or None; 1 gives the output mirrored. bank: of the axis.
    """
    extent = bank.shape[-1]
    kind = length - 1 if reverse is None else length - 1 + extent * reverse
    return bank[kind, extent - start]


def crop_resize(images: Tensor, crop: Tensor, flip: Tensor, levels: Levels, banks: tuple[Tensor, Tensor]) -> Tensor:
    """Random resized crop and flip: images float32 [N, 3, H, W], crop int64 [N, 4] (i, j, h, w), flip int64 [N] 0 or 1.

    banks: of rows and of columns, for H and W pixels and one size. Returns float32 [N, 3, size, size]. In whole levels
    it differs from torchvision's by rounding alone.
    """
    N, C, H, W = images.shape
    top, left, height, width = crop.unbind(1)
    across = resampling_matrices(left, width, flip, banks[1])
    down = resampling_matrices(top, height, None, banks[0])
    narrow = torch.bmm(images.view(N, C * H, W), across.transpose(1, 2)).view(N, C, H, -1)
    return levels.nearest(torch.matmul(down[:, None], narrow))
