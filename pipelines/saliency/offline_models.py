"""Two saliency models that need no download. Neither is DeepGaze.

Spectral residual (Hou and Zhang, CVPR 2007): an image's log amplitude spectrum, less its local average, keeps what is
unusual; back in the image, its energy is the map. Defaults are the published working scale (64 pixels a side) and a
smoothing of 3 of these pixels; with them, maps of 100 OSIE photographs score AUC 0.760 and shuffled AUC 0.725 on the
last eight people (scoring.py).

Centre prior: where people look whatever the image is. With the MIT1003 template it is DeepGaze's own prior. Without,
a Gaussian over the image, whose standard deviation is a fifth of its height and 0.22 of its width: that of the
fixations in OSIE (0.204 and 0.217), and close to MIT1003's.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.saliency.deepgaze import CentreBias, read_template
from pipelines.saliency.deepgaze_fast import area_matrix, area_pool
from pipelines.saliency.deepgaze_package import CENTRE_BIAS, locate
from pipelines.saliency.device import Kept, to_device

WORKING_SIZE = 64
SMOOTHING = 3.0  # standard deviation in pixels of the working size
LUMA = (0.299, 0.587, 0.114)
FLOOR = 1e-8  # of an amplitude, before the logarithm


class SpectralResidual:
    """Maps of [B, H, W], or of out_size squared; all of an image counts, squashed to the working size."""

    name = "spectral-residual"

    def __init__(
        self, *, device: torch.device | str = "cpu", out_size: int | None = None, batch_size: int = 64
    ) -> None:
        self.device, self.out_size, self.batch_size = torch.device(device), out_size, batch_size
        self.provenance: dict[str, str | int | float] = {
            "model": self.name,
            "what": "spectral residual (Hou and Zhang 2007), not DeepGaze",
            "working_size": WORKING_SIZE,
            "smoothing": SMOOTHING,
        }
        self._luma = torch.tensor(LUMA, device=self.device)
        self._shrink = Kept(self._make_shrink)
        self._enlarge = Kept(self._make_enlarge)

    @torch.inference_mode()
    def density(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] → float32 [B, H', W'], each sums to 1. An image without contrast gives a flat map."""
        height, width = images.shape[2:]
        grey = torch.einsum("bchw,c->bhw", to_device(images, self.device).float(), self._luma)
        small = self._shrink(height) @ grey @ self._shrink(width).mT
        energy = residual_energy(small)
        rows, cols = (self._enlarge(self.out_size or side) for side in (height, width))
        energy = rows @ energy @ cols.mT
        mass = energy.sum((1, 2), keepdim=True)
        return torch.where(mass > 0, energy, 1.0) / torch.where(mass > 0, mass, energy[0].numel())

    def _make_shrink(self, side: int) -> Tensor:
        """[WORKING_SIZE, side]: the mean over the area of each working pixel."""
        matrix = area_matrix(side, WORKING_SIZE)
        return to_device((matrix / matrix.sum(1, keepdim=True)).float(), self.device)

    def _make_enlarge(self, side: int) -> Tensor:
        """[side, WORKING_SIZE]: Gaussian smoothing, then bilinear interpolation."""
        matrix = bilinear_matrix(WORKING_SIZE, side) @ smoothing_matrix(WORKING_SIZE, SMOOTHING)
        return to_device(matrix.float(), self.device)


def residual_energy(grey: Tensor) -> Tensor:
    """float [B, h, w] → the same: |F⁻¹(exp(log|F| − average of log|F| over 3 × 3 + i·phase))|².

    With the phase taken from F itself this is F·exp(−average), which needs no angles and is 0 where F is.
    """
    spectrum = torch.fft.fft2(grey)
    log_amplitude = torch.log(spectrum.abs() + FLOOR)
    average = F.avg_pool2d(F.pad(log_amplitude[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    return torch.fft.ifft2(spectrum * torch.exp(-average)).abs().square()


def smoothing_matrix(size: int, sigma: float) -> Tensor:
    """float64 [size, size]: Gaussian smoothing along an axis, mirrored about its end pixels. Rows sum to 1."""
    reach = min(size - 1, int(4 * sigma + 0.5))
    offset = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offset.double() / sigma) ** 2)
    place = torch.arange(size)[:, None] + offset
    place = place.abs()
    place = torch.where(place >= size, 2 * size - 2 - place, place)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, place, (kernel / kernel.sum()).expand(size, -1))


def bilinear_matrix(source: int, target: int) -> Tensor:
    """float64 [target, source]: bilinear interpolation along an axis, pixel centres at half-integers."""
    identity = torch.eye(source, dtype=torch.float64)[:, None]
    return F.interpolate(identity, target, mode="linear", align_corners=False)[:, 0].T


SIGMA = (0.20, 0.22)  # of height and width


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
        path = locate(CENTRE_BIAS, template, download=download) if template or download else None
        what = f"centre bias alone ({'MIT1003 template' if path else 'Gaussian'}), not DeepGaze"
        self._bias = CentreBias(read_template(path)) if path else None
        self.provenance: dict[str, str | int | float] = {"model": self.name, "what": what}
        if path:
            self.provenance["template_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            self.provenance |= {"sigma_rows": SIGMA[0], "sigma_cols": SIGMA[1]}
        self.at = Kept(self._at)

    def density(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] → float32 [B, H', W'], each sums to 1. Pixels do not matter."""
        return self.at(*images.shape[2:]).expand(len(images), -1, -1)

    def _at(self, height: int, width: int) -> Tensor:
        """float32 [H', W'] for an image of H × W."""
        size = (self.out_size or height, self.out_size or width)
        if self._bias is None:
            return to_device(gaussian_density(*size).float(), self.device)
        density = self._bias.at(height, width).double().exp()
        return to_device(area_pool(density[None], size)[0].float(), self.device)


def gaussian_density(height: int, width: int) -> Tensor:
    """float64 [H, W] that sums to 1: a Gaussian about the middle, SIGMA of the sides wide, at pixel centres."""
    rows, cols = (
        torch.exp(-0.5 * (((torch.arange(side).double() + 0.5) / side - 0.5) / sigma) ** 2)
        for side, sigma in zip((height, width), SIGMA, strict=True)
    )
    return torch.outer(rows / rows.sum(), cols / cols.sum())
