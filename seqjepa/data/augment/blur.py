"""Gaussian blur, a sigma for each sample: two passes of shifted sums, edges reflected, as torchvision does it."""

from __future__ import annotations

import torch
from torch import Tensor

from seqjepa.data.augment.levels import Levels


def gaussian_taps(sigma: Tensor, kernel: int) -> Tensor:
    """Half of each normalised kernel, centre first: sigma float32 [N] > 0 → float32 [N, kernel // 2 + 1]."""
    distance = torch.arange(kernel // 2 + 1, dtype=sigma.dtype, device=sigma.device)
    taps = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    return taps / (2 * taps.sum(dim=1, keepdim=True) - 1)


def gaussian_blur(x: Tensor, sigma: Tensor, kernel: int, levels: Levels) -> Tensor:
    """Blur float32 [N, 3, H, W] with sigma float32 [N] > 0 (pixels), kernel odd; H and W are above kernel // 2."""
    if kernel == 1:
        return x
    taps = gaussian_taps(sigma, kernel).T.contiguous()
    return levels.nearest(_along(_along(x, taps, dim=3), taps, dim=2))


def _along(x: Tensor, taps: Tensor, dim: int) -> Tensor:
    """One axis: Σ_d taps[d] · (x shifted by d + x shifted by −d)."""
    reach, extent = len(taps) - 1, x.shape[dim]
    before = x.narrow(dim, 1, reach).flip(dim)
    after = x.narrow(dim, extent - 1 - reach, reach).flip(dim)
    padded = torch.cat([before, x, after], dim=dim)
    factors = taps.view(len(taps), -1, 1, 1, 1)
    result = x * factors[0]
    for d in range(1, reach + 1):
        both = padded.narrow(dim, reach - d, extent) + padded.narrow(dim, reach + d, extent)
        result.addcmul_(both, factors[d])
    return result
