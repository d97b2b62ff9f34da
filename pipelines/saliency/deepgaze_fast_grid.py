"""The grids of DeepGaze IIE for one image size: pixels H × W, half resolution n × m, readout cells h × w."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.saliency.pooling import area_matrix

CELL = 32  # pixels of the image to one cell of the readout grid
SIZES_KEPT = 32  # image sizes whose matrices stay on the device: copying them there makes the host wait


@dataclass(frozen=True)
class HalfGrid:
    """rows int64 [H], cols int64 [W]: the half-resolution place that each pixel repeats. counts float [n, m]: how many
    pixels repeat a place (4, more in places where a side is odd). cells: (h, w) = ceil(side / 32)."""

    rows: Tensor
    cols: Tensor
    counts: Tensor
    cells: tuple[int, int]

    @staticmethod
    def of(height: int, width: int) -> HalfGrid:
        rows, cols = nearest_source(height // 2, height), nearest_source(width // 2, width)
        counts = torch.bincount(rows, minlength=height // 2)[:, None] * torch.bincount(cols, minlength=width // 2)
        return HalfGrid(rows, cols, counts, (math.ceil(height / CELL), math.ceil(width / CELL)))

    def to(self, device: torch.device, dtype: torch.dtype) -> HalfGrid:
        return HalfGrid(self.rows.to(device), self.cols.to(device), self.counts.to(device, dtype), self.cells)

    def half(self, x: Tensor) -> Tensor:
        """[…, H, W] → […, n, m]: every second value, as nearest-neighbour halving takes them."""
        n, m = self.counts.shape
        return x[..., : 2 * n : 2, : 2 * m : 2]


def nearest_source(source: int, target: int) -> Tensor:
    """int64 [target]: where nearest-neighbour enlargement takes each value from, rounded as torch rounds it."""
    index = torch.arange(source, dtype=torch.float32)
    return F.interpolate(index[None, None], target)[0, 0].long()


def half_area_matrix(full: int, cells: int) -> Tensor:
    """float64 [cells, full // 2]: area_matrix(full, cells) after enlargement from half to full resolution."""
    matrix = torch.zeros(cells, full // 2, dtype=torch.float64)
    return matrix.index_add_(1, nearest_source(full // 2, full), area_matrix(full, cells))
