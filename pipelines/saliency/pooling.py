"""A density on one grid → a density on another: by area (mass is kept) or as the released scripts do it.

Pixels are unit squares; both grids cover the same image. A density is float [B, H, W] and sums to 1 over H × W.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def area_matrix(pixels: int, cells: int) -> Tensor:
    """float64 [cells, pixels]: the share of each pixel's length that lies in each cell. Every column sums to 1.

    Exact for any two sizes, integer ratio or not, coarser or finer: edges are compared in units of 1 / (pixels·cells).
    """
    pixel = torch.arange(pixels)[None, :] * cells
    cell = torch.arange(cells)[:, None] * pixels
    overlap = torch.minimum(pixel + cells, cell + pixels) - torch.maximum(pixel, cell)
    return overlap.clamp(min=0).double() / cells


def area_pool(density: Tensor, size: tuple[int, int]) -> Tensor:
    """The mass of [B, H, W] in each cell of a grid of `size`: [B, *size], same sum. A·P·Aᵀ, SALIENCY recipe [R]."""
    rows, cols = (area_matrix(n, m).to(density) for n, m in zip(density.shape[1:], size, strict=True))
    return rows @ density @ cols.mT


def author_pool(log_density: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation of the **log** density [B, H, W], then exp, then renormalised, as released."""
    log = F.interpolate(log_density[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return log.flatten(1).softmax(1).view_as(log)
