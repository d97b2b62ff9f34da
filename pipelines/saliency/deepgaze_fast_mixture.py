"""From 120 readouts to one density, equal to DeepGaze IIE's up to rounding, on the grid of half the resolution.

Per component k the package enlarges the readout r to half resolution, smooths it with a Gaussian of its own width
(edges replicated), adds a multiple of the centre bias, doubles the resolution and normalises. Enlarging, padding and
smoothing are linear and separable, so they are A_k · r · B_kᵀ with small matrices. Doubling repeats values: each one
of the half grid counts as often as it is repeated (1 to 4 times; sides may be odd). The mixture is the mean of the
normalised densities, which is what log-mean-exp of their logarithms is.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.saliency.deepgaze_fast_grid import SIZES_KEPT, nearest_source

TRUNCATE = 3.0  # standard deviations to either side
ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}  # of the fields worked on at a time: what stays in a cache, what fits


def gaussian_kernels(sigma: Tensor) -> Tensor:
    """float64 [K, 2R + 1]: normalised kernels of widths [K], zero beyond their own ceil(3 sigma)."""
    radius = torch.ceil(TRUNCATE * sigma)[:, None]  # in the parameter's own precision, as the package does
    reach = int(radius.max())
    offset = torch.arange(-reach, reach + 1, device=sigma.device)
    kernels = torch.exp(-0.5 * (offset / sigma.double()[:, None]) ** 2) * (offset.abs() <= radius)
    return kernels / kernels.sum(1, keepdim=True)


def blur_matrices(kernels: Tensor, cells: int, pixels: int) -> Tensor:
    """float64 [K, pixels, cells]: enlarge `cells` values to `pixels`, replicate the edges, smooth. Rows sum to 1."""
    reach = kernels.shape[1] // 2
    seen = torch.arange(pixels)[:, None] + torch.arange(-reach, reach + 1)
    source = nearest_source(cells, pixels)[seen.clamp(0, pixels - 1)]  # [pixels, 2R + 1]
    chosen = F.one_hot(source, cells).to(kernels)
    return torch.einsum("kt,ptc->kpc", kernels, chosen)


class Mixture(nn.Module):
    """The K finalizers (Gaussian width, centre bias weight) and their mean."""

    sigma: Tensor
    centre_weight: Tensor

    def __init__(self, finalizers: Sequence[Any]) -> None:
        super().__init__()
        sigma = torch.stack([item.gauss.sigma.detach() for item in finalizers])
        weight = torch.cat([item.center_bias_weight.detach() for item in finalizers])
        self.register_buffer("sigma", sigma, persistent=False)
        self.register_buffer("centre_weight", weight, persistent=False)
        self._blur = lru_cache(maxsize=SIZES_KEPT)(self._make_blur)

    def forward(self, readout: Tensor, half_bias: Tensor, counts: Tensor) -> Tensor:
        """Readouts [B, K, h, w] → density [B, n, m] of one full-resolution pixel at each place of the half grid.

        half_bias: [n, m], log density, nats. counts: [n, m], pixels that a place stands for; Σ counts · density = 1.
        """
        (n, m), (h, w) = half_bias.shape, readout.shape[2:]
        rows, cols = self._blur(n, h, readout.device), self._blur(m, w, readout.device)
        low, high = half_bias.aminmax()
        bias = half_bias - high
        # A field is at most its readout's maximum plus the bias' largest share: subtracting that keeps exp in range.
        top = readout.amax((2, 3)) + (self.centre_weight * (low - high)).clamp(min=0)
        readout = readout - top[:, :, None, None]
        density = readout.new_zeros(len(readout), n * m)
        step = max(1, ELEMENTS.get(readout.device.type, ELEMENTS["cpu"]) // (len(readout) * n * m))
        for k in (slice(start, start + step) for start in range(0, readout.shape[1], step)):
            fields = rows[k] @ (readout[:, k] @ cols[k].mT)
            fields = fields.addcmul_(self.centre_weight[k, None, None], bias).exp_().flatten(2)
            shares = 1 / (fields @ counts.flatten())
            density += (shares[:, None] @ fields)[:, 0]
        return density.view(-1, n, m) / readout.shape[1]

    def _make_blur(self, pixels: int, cells: int, device: torch.device) -> Tensor:
        matrices = blur_matrices(gaussian_kernels(self.sigma.cpu()), cells, pixels)
        return matrices.to(device, self.sigma.dtype)
