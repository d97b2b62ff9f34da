"""The centre bias as a model: where people look whatever the image is. An honest offline model, not DeepGaze.

With the MIT1003 template it is DeepGaze's own prior. Without, a Gaussian over the image, whose standard deviation is a
fifth of its height and 0.22 of its width: that of the fixations in OSIE (0.204 and 0.217), and close to MIT1003's.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from pipelines.saliency.centre_bias import CentreBias, read_template
from pipelines.saliency.pooling import area_pool

SIGMA = (0.20, 0.22)  # of height and width
SIZES_KEPT = 64


class CentrePrior:
    """The same map for every image of a size.

    template: .npy with a log density (MIT1003's, or another); None: the Gaussian. download: fetch MIT1003's if it is
    not there. Raises UsageError or FormatError for a template that is missing or is none.
    """

    name = "centre-bias"

    def __init__(
        self,
        *,
        device: torch.device | str = "cpu",
        out_size: int | None = None,
        template: Path | None = None,
        download: bool = False,
        batch_size: int = 64,
    ) -> None:
        self.device, self.out_size, self.batch_size = torch.device(device), out_size, batch_size
        path = _template_path(template, download)
        self._bias = CentreBias(read_template(path)) if path else None
        self.provenance: dict[str, str | int | float] = {"model": self.name, "what": _what(path)}
        if path:
            self.provenance["template_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            self.provenance |= {"sigma_rows": SIGMA[0], "sigma_cols": SIGMA[1]}
        self.at = lru_cache(maxsize=SIZES_KEPT)(self._at)

    def density(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] → float32 [B, H', W'], each sums to 1. Pixels do not matter."""
        return self.at(*images.shape[2:]).expand(len(images), -1, -1)

    def _at(self, height: int, width: int) -> Tensor:
        """float32 [H', W'] for an image of H × W."""
        size = (self.out_size or height, self.out_size or width)
        if self._bias is None:
            return gaussian_density(*size).to(self.device, torch.float32)
        return area_pool(self._bias.at(height, width).double().exp()[None], size)[0].to(self.device, torch.float32)


def gaussian_density(height: int, width: int) -> Tensor:
    """float64 [H, W] that sums to 1: a Gaussian about the middle, SIGMA of the sides wide, at pixel centres."""
    rows, cols = (
        torch.exp(-0.5 * (((torch.arange(side).double() + 0.5) / side - 0.5) / sigma) ** 2)
        for side, sigma in zip((height, width), SIGMA, strict=True)
    )
    return torch.outer(rows / rows.sum(), cols / cols.sum())


def _template_path(template: Path | None, download: bool) -> Path | None:
    from pipelines.saliency.weights import CENTRE_BIAS, locate

    if template is None and not download:
        return None
    return locate(CENTRE_BIAS, template, download=download)


def _what(path: Path | None) -> str:
    return (
        "centre bias alone (MIT1003 template), not DeepGaze" if path else "centre bias alone (Gaussian), not DeepGaze"
    )
