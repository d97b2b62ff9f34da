"""DeepGaze IIE as a SaliencyModel: the user's package and files, checked, with the released or our equivalent forward.

Reference: Linardos, Kümmerer, Press, Bethge (2021), arXiv 2105.12441; how the paper used it: its §A.1 and §B.10.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.saliency.deepgaze_fast import FastDeepGaze, Precision, area_pool, author_pool
from pipelines.saliency.deepgaze_package import (
    CENTRE_BIAS,
    DEEPGAZE_WEIGHTS,
    import_package,
    load_model,
    locate,
    package_version,
)
from pipelines.saliency.device import Kept, to_device
from shards.errors import FailureError, FormatError, UsageError

CPU_BATCH, LARGEST_BATCH = 4, 128  # images of 512 × 512
BYTES_KEPT, BYTES_EACH = 3 << 30, 1 << 28
"""Of a GPU's memory for weights and mixtures, and for an image: upper estimates, from the largest layers' maps."""
SMALLEST_SIDE = 32  # pixels: one cell of the readout
TOLERANCE = 1e-4  # of logsumexp, nats


class DeepGazeIIE:
    """uint8 images → densities.

    out_size    side of the square maps; None: the images' own size
    input_size  the shorter side is first resized to this (bilinear, antialiased, rounded to 8 bits, as PIL does), the
                other one in proportion. For square images that is the authors' Resize + CenterCrop; of others nothing
                is cropped, for a map is of the whole image
    input_scale "255", which the network was trained on, or "author": 0..1, as the released scripts feed it
    pooling     "area": the mass in each cell; "author": bilinear on the log density (docs/saliency.md)
    weights, centre_bias   the released files, see deepgaze_package.locate; download: fetch them if they are nowhere
    forward     "fast" or "package": equal up to rounding
    precision   of the backbones of the fast forward; if not given "tf32" on CUDA, else "fp32"

    Raises UsageError if the package, a file or an option is not what it should be; FailureError if a download fails.
    """

    name = "deepgaze-iie"

    def __init__(
        self,
        *,
        device: torch.device | str = "cpu",
        out_size: int | None = None,
        input_size: int | None = None,
        input_scale: Literal["255", "author"] = "255",
        pooling: Literal["area", "author"] = "area",
        weights: Path | None = None,
        centre_bias: Path | None = None,
        download: bool = False,
        forward: Literal["fast", "package"] = "fast",
        batch_size: int | None = None,
        precision: Precision | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.out_size, self.input_size, self.pooling = out_size, input_size, pooling
        self.input_scale = input_scale
        self.batch_size = batch_size or fitting_batch(self.device)
        precision = _checked_precision(precision, self.device, forward)
        package = import_package()
        weights_path = locate(DEEPGAZE_WEIGHTS, weights, download=download)
        self.centre_bias = CentreBias(read_template(locate(CENTRE_BIAS, centre_bias, download=download)), self.device)
        model = load_model(package, weights_path)
        network = FastDeepGaze(model, precision) if forward == "fast" else PackageDeepGaze(model)
        self.network = network.to(self.device)
        self.provenance: dict[str, str | int | float] = {
            "model": self.name,
            **package_version(package),
            "weights_sha256": DEEPGAZE_WEIGHTS.sha256,
            "centre_bias_sha256": CENTRE_BIAS.sha256,
            "input_scale": input_scale,
            "input_size": input_size or "native",
            "out_size": out_size or "native",
            "pooling": pooling,
            "forward": forward,
            "precision": precision,
        }

    @torch.inference_mode()
    def density(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W], RGB → float32 [B, H', W'], each sums to 1; H', W' = H, W, or out_size squared.

        Raises UsageError for images that are not uint8 RGB of at least 32 × 32, FailureError if a result is no density.
        On a GPU, which is not waited for, all of such a map is NaN.
        """
        _check_images(images)
        size = (self.out_size, self.out_size) if self.out_size else (images.shape[2], images.shape[3])
        pixels = _resized(to_device(images, self.device), self.input_size)
        if self.input_scale == "author":
            pixels = pixels.float() / 255
        bias = self.centre_bias.at(*pixels.shape[2:])
        if size == tuple(bias.shape):
            density = self.network.density(pixels, bias)
        elif self.pooling == "area":
            density = self.network.pooled(pixels, bias, size)
        else:
            density = author_pool(self.network(pixels, bias), size)
        return _checked_density(density, (len(images), *size))


def fitting_batch(device: torch.device) -> int:
    """Images of 512 × 512 at a time: on a GPU a power of two that fits the memory that is free now, 128 at most.

    Of 32, by an estimate, the kernels of half precision end before they are launched.
    """
    if device.type != "cuda":
        return CPU_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    fitting = max(1, (free - BYTES_KEPT) // BYTES_EACH)
    return min(LARGEST_BATCH, 1 << (fitting.bit_length() - 1))


def _checked_precision(precision: Precision | None, device: torch.device, forward: str) -> Precision:
    """`device` and `forward` may not have it: UsageError."""
    tensor_floats = device.type == "cuda" and forward == "fast"
    chosen = precision or ("tf32" if tensor_floats else "fp32")
    if chosen == "tf32" and not tensor_floats:
        raise UsageError("--precision tf32 needs CUDA and the fast forward; leave it out, or take fp32")
    if chosen != "fp32" and forward != "fast":
        raise UsageError(f"--precision {chosen} needs the fast forward; leave --forward out, or take fp32")
    return chosen


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
        found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise UsageError(f"images are {found}; DeepGaze takes uint8 [B, 3, H, W], 0 to 255 (it divides by 255 itself)")
    if min(images.shape[2:]) < SMALLEST_SIDE:
        height, width = images.shape[2:]
        raise UsageError(f"an image of {height}×{width}; DeepGaze needs sides of {SMALLEST_SIDE} pixels or more")


def _resized(images: Tensor, shorter: int | None) -> Tensor:
    """uint8 [B, 3, H, W] with the shorter side at `shorter`, the longer one in proportion, rounded down."""
    sides = images.shape[2:]
    if shorter is None or min(sides) == shorter:
        return images
    size = [shorter * side // min(sides) for side in sides]
    smooth = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return smooth.round_().clamp_(0, 255).to(torch.uint8)


def _checked_density(density: Tensor, shape: tuple[int, ...]) -> Tensor:
    """float32, each map divided by its sum, which differs from 1 by rounding alone; on a GPU NaN where it does not."""
    if tuple(density.shape) != shape:
        raise FailureError(f"DeepGaze gave maps of {list(density.shape)} instead of {list(shape)}: another model?")
    mass = density.sum((1, 2), dtype=torch.float64)
    if density.is_cuda:
        mass = torch.where(mass.log().abs() < TOLERANCE, mass, torch.nan)
        return (density / mass[:, None, None]).float()
    worst = float(mass.log().abs().max())  # NaN and infinity carry over
    if not worst < TOLERANCE:
        raise FailureError(f"DeepGaze gave a map with |logsumexp| = {worst:.3g}, a density has 0: damaged weights?")
    return (density / mass[:, None, None]).float()


class PackageDeepGaze(nn.Module):
    """model: deepgaze_pytorch's DeepGazeIIE. Shapes and units as FastDeepGaze's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._dtype = next(model.parameters()).dtype  # backbones take no other; a centre bias may be finer

    def forward(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """Log density [B, H, W], nats. FailureError if the package gives another shape than [B, 1, H, W]."""
        log = self.model(images.to(self._dtype), centre_bias[None])
        if tuple(log.shape) != (len(images), 1, *centre_bias.shape):
            wanted = [len(images), 1, *centre_bias.shape]
            raise FailureError(f"deepgaze_pytorch gave {list(log.shape)} instead of {wanted}: another version?")
        return log[:, 0]

    def density(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """[B, H, W], sums to 1."""
        return self(images, centre_bias).exp()

    def pooled(self, images: Tensor, centre_bias: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, *size], sums to 1."""
        return area_pool(self.density(images, centre_bias), size)


def zoom_index(source: int, target: int) -> np.ndarray:
    """int64 [target]: which of `source` samples each target pixel takes; first and last samples meet the edges.

    What scipy.ndimage.zoom(order=0) does: round(i·(source − 1)/(target − 1)), halves rounded up.
    """
    step = (source - 1) / (target - 1) if target > 1 else 1.0
    return np.minimum(np.floor(np.arange(target) * step + 0.5).astype(np.int64), source - 1)


def zoom_log_density(template: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 [height, width]: corner-aligned nearest neighbour of a log density, normalised so that logsumexp is 0."""
    rows, cols = zoom_index(template.shape[0], height), zoom_index(template.shape[1], width)
    log = template[rows[:, None], cols[None, :]].astype(np.float64)
    top = log.max()
    return log - (top + np.log(np.exp(log - top).sum()))


class CentreBias:
    """The template float [h, w] (log density, nats) at any size, float32 on `device`."""

    def __init__(self, template: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.template, self.device = template, torch.device(device)
        self.at = Kept(self._zoomed)

    def _zoomed(self, height: int, width: int) -> Tensor:
        """float32 [height, width], logsumexp 0. Shared between calls: not to be written to."""
        log = zoom_log_density(self.template, height, width)
        return to_device(torch.from_numpy(log).float(), self.device)


def read_template(path: Path) -> np.ndarray:
    """float64 [h, w] from a .npy file. FormatError if it is not a finite 2-d array of floats."""
    try:
        template = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path} is not a .npy array: {error}") from error
    if template.ndim != 2 or template.dtype.kind != "f" or not np.isfinite(template).all():
        found = f"{template.dtype} {list(template.shape)}"
        raise FormatError(f"{path} holds {found}; a centre bias is a finite 2-d array of floats, a log density")
    return template.astype(np.float64)
