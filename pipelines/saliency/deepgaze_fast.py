"""DeepGaze IIE's forward pass, rebuilt from the package's weights: equal up to rounding, several times faster.

    images → backbones, stopped at their last tapped layer, on the readout's grid → 120 readouts as five batched layers
           → mixture of 120 densities on the grid of half the resolution → log density, density or pooled density

Readouts: LayerNorm over (C, H, W), 1×1 convolution, softplus, again and again. The first LayerNorm has the same
statistics for all 30 readouts of a backbone, and the affine after any LayerNorm is linear, so it goes into the
convolution that follows: W·(γx + β) + b = (W·diag γ)·x + (W·β + b).

Mixture: per component k the package enlarges the readout r to half resolution, smooths it with a Gaussian of its own
width (edges replicated), adds a multiple of the centre bias, doubles the resolution and normalises. Enlarging, padding
and smoothing are linear and separable, so they are A_k · r · B_kᵀ with small matrices. Doubling repeats values: each
one of the half grid counts as often as it is repeated (1 to 4 times; sides may be odd). The mixture is the mean of the
normalised densities, which is what log-mean-exp of their logarithms is.

Nothing waits for the device. Parity: tests/pipelines/test_deepgaze_parity.py; figures: docs/saliency.md. Densities are
pooled by area (mass is kept) or as the released scripts do it; pixels are unit squares and both grids cover the image.

Shape letters: H × W pixels, n × m half resolution, h × w readout cells, K components, P = h·w positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipelines.saliency.device import Kept, to_device


class FastDeepGaze(nn.Module):
    """Built from the package's model, whose backbones it takes over (weights shared, stored channels-last).

    images: [B, 3, H, W], any dtype, values 0..255. centre_bias: [H, W], log density of the same size, nats.
    precision: of the backbones; readouts and mixture are always in the weights' own precision.
    """

    def __init__(self, model: Any, precision: Precision = "fp32") -> None:
        super().__init__()
        parts = list(model.models)
        saliency = [net for part in parts for net in part.saliency_networks]
        selection = [net for part in parts for net in part.fixation_selection_networks]
        self.backbones = nn.ModuleList(TappedBackbone(part.features) for part in parts)
        self.stems = nn.ModuleList(Stem(list(part.saliency_networks)) for part in parts)
        self.tail = Tail(saliency, selection)
        self.mixture = Mixture([finalizer for part in parts for finalizer in part.finalizers])
        self.precision: Precision = precision
        self._grid = Kept(self._make_grid)
        self._pooling = Kept(self._make_pooling)

    def forward(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """Log density [B, H, W], nats; logsumexp 0."""
        return self.density(images, centre_bias).log()

    def density(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        """[B, H, W], sums to 1."""
        grid = self._grid(*images.shape[2:], images.device)
        return self._half_density(images, centre_bias, grid)[:, grid.rows[:, None], grid.cols]

    def pooled(self, images: Tensor, centre_bias: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, *size]: `area_pool` of density(), without making the full resolution."""
        grid = self._grid(*images.shape[2:], images.device)
        rows, cols = self._pooling(*images.shape[2:], *size, images.device)
        return rows @ self._half_density(images, centre_bias, grid) @ cols.mT

    def _half_density(self, images: Tensor, centre_bias: Tensor, grid: HalfGrid) -> Tensor:
        x = grid.half(images).to(self._dtype, memory_format=torch.channels_last)
        return self.mixture(self._readouts(x, grid.cells), grid.half(centre_bias).to(self._dtype), grid.counts)

    def _readouts(self, images: Tensor, cells: tuple[int, int]) -> Tensor:
        first = []
        for backbone, stem in zip(self.backbones, self.stems, strict=True):
            with backbone_precision(self.precision, images.device):
                features = backbone(images, cells)
            first.append(stem(features))
        return self.tail(torch.cat(first, dim=1)).unflatten(2, cells)

    @property
    def _dtype(self) -> torch.dtype:
        return self.mixture.sigma.dtype

    def _make_grid(self, height: int, width: int, device: torch.device) -> HalfGrid:
        return HalfGrid.of(height, width).to(device, self._dtype)

    def _make_pooling(self, height: int, width: int, tall: int, wide: int, device: torch.device) -> list[Tensor]:
        matrices = half_area_matrix(height, tall), half_area_matrix(width, wide)
        return [to_device(matrix.to(self._dtype), device) for matrix in matrices]


Precision = Literal["fp32", "tf32", "fp16", "bf16"]
HALVES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class TappedBackbone(nn.Module):
    """Shares the modules of the package's feature extractor, and stores their weights channels-last."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.features: nn.Module = extractor.features.to(memory_format=torch.channels_last)
        self.targets: tuple[str, ...] = tuple(extractor.targets)

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Float [B, 3, h, w], 0..255 → [B, C, *grid]: all tapped layers, nearest neighbour, in their order."""
        taps: dict[str, Tensor] = {}
        with ExitStack() as hooks, suppress(_AllTapped):
            for target in self.targets:
                tap = _tap(taps, target, grid, len(self.targets))
                hooks.enter_context(self.features.get_submodule(target).register_forward_hook(tap))
            self.features(images)
        return torch.cat([taps[target] for target in self.targets], dim=1)


class _AllTapped(Exception):  # noqa: N818  a way out, not an error
    pass


def _tap(taps: dict[str, Tensor], target: str, grid: tuple[int, int], wanted: int) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taps[target] = F.interpolate(output, grid)  # a copy too: a ReLU in place may follow
        if len(taps) == wanted:
            raise _AllTapped

    return hook


@contextmanager
def backbone_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """While open, convolutions in that precision; TF32 is CUDA's alone, where fp32 is full float32."""
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, HALVES.get(precision), enabled=precision in HALVES))
        if device.type == "cuda":
            convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  set up on import
            stack.enter_context(float32_precision(convolutions, precision))
        yield


@contextmanager
def float32_precision(kernels: Any, precision: str) -> Iterator[None]:
    """While open, float32 products of these kernels, a part of torch.backends: as TF32, or in full float32."""
    before = kernels.fp32_precision
    kernels.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        yield
    finally:
        kernels.fp32_precision = before


CELL = 32  # pixels of the image to one cell of the readout grid


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
        rows, cols, counts = (to_device(x, device) for x in (self.rows, self.cols, self.counts.to(dtype)))
        return HalfGrid(rows, cols, counts, self.cells)

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
        self._blur = Kept(self._make_blur)

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
        return to_device(blur_matrices(self._kernels, cells, pixels).to(self.sigma.dtype), device)

    @cached_property
    def _kernels(self) -> Tensor:
        """On the host, which waits for them once, not at every new size."""
        return gaussian_kernels(self.sigma.cpu())


EPS = 1e-12  # of every LayerNorm of the readouts


class BatchedLayer(nn.Module):
    """LayerNorm without affine, K matrices, softplus: [B, K, in, P] → [B, K, out, P], P positions of the grid."""

    weight: Tensor
    bias: Tensor

    def __init__(self, folded: Iterable[tuple[Tensor, Tensor]], *, normalise: bool = True, activate: bool = True):
        super().__init__()
        weights, biases = zip(*folded, strict=True)
        self.register_buffer("weight", torch.stack(weights), persistent=False)  # [K, out, in]
        self.register_buffer("bias", torch.stack(biases)[..., None], persistent=False)  # [K, out, 1]
        self.normalise, self.activate = normalise, activate

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = F.layer_norm(x, x.shape[2:], eps=EPS)
        x = torch.matmul(self.weight, x).add_(self.bias)
        return softplus(x) if self.activate else x


class Stem(nn.Module):
    """The first layer of one backbone's K readouts: one LayerNorm, one C → 8·K product, softplus."""

    weight: Tensor
    bias: Tensor

    def __init__(self, saliency_networks: Sequence[Any]) -> None:
        super().__init__()
        folded = [fold_layer(net.conv0, net.layernorm0, net.bias0) for net in saliency_networks]
        self.components = len(folded)
        self.register_buffer("weight", torch.cat([weight for weight, _ in folded]), persistent=False)  # [8K, C]
        self.register_buffer("bias", torch.cat([bias for _, bias in folded])[:, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] → [B, K, 8, h·w]"""
        x = features.flatten(2).to(self.weight.dtype)
        x = F.layer_norm(x, x.shape[1:], eps=EPS)
        x = softplus(torch.matmul(self.weight, x).add_(self.bias))
        return x.unflatten(1, (self.components, -1))


class Tail(nn.Module):
    """All later layers of all K readouts: [B, K, 8, P] → [B, K, P]."""

    def __init__(self, saliency_networks: Sequence[Any], selection_networks: Sequence[Any]) -> None:
        super().__init__()
        a, b = saliency_networks, selection_networks
        self.layers = nn.Sequential(
            BatchedLayer(fold_layer(net.conv1, net.layernorm1, net.bias1) for net in a),
            BatchedLayer(fold_layer(net.conv2, net.layernorm2, net.bias2) for net in a),
            BatchedLayer(fold_layer(net.conv0.conv_part0, net.layernorm0.layernorm_part0, net.bias0) for net in b),
            BatchedLayer(fold_layer(net.conv1, net.layernorm1, net.bias1) for net in b),
            BatchedLayer((fold_layer(net.conv2) for net in b), normalise=False, activate=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, :, 0]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full relative precision: F.softplus, at a quarter of its time on a CPU.

    log1p has no vectorised kernel there, log has. With u = exp(−|x|) and v = 1 + u as rounded, log(1 + u) is
    log(v) + (u − (v − 1)) / v: the second term is what rounding lost.
    """
    if x.device.type != "cpu":
        return F.softplus(x)
    u = x.abs().neg_().exp_()
    v = u + 1
    return x.clamp(min=0).addcdiv_(u.sub_(v - 1), v).add_(v.log_())


def fold_layer(conv: Any, norm: Any = None, bias: Any = None) -> tuple[Tensor, Tensor]:
    """(weight [out, in], bias [out]) of norm's affine, 1×1 convolution and bias in one; folded in float64."""
    weight = conv.weight.detach().double().flatten(1)
    offset = weight.new_zeros(len(weight))
    if norm is not None:
        offset = offset + weight @ norm.bias.detach().double()
        weight = weight * norm.weight.detach().double()
    if bias is not None:
        offset = offset + bias.bias.detach().double()
    return weight.to(conv.weight.dtype), offset.to(conv.weight.dtype)


def area_matrix(pixels: int, cells: int) -> Tensor:
    """float64 [cells, pixels]: the share of each pixel's length that lies in each cell. Every column sums to 1.

    Exact for any two sizes, integer ratio or not, coarser or finer: edges are compared in units of 1 / (pixels·cells).
    """
    pixel = torch.arange(pixels)[None, :] * cells
    cell = torch.arange(cells)[:, None] * pixels
    overlap = torch.minimum(pixel + cells, cell + pixels) - torch.maximum(pixel, cell)
    return overlap.clamp(min=0).double() / cells


def area_pool(density: Tensor, size: tuple[int, int]) -> Tensor:
    """The mass of [B, H, W] in each cell of a grid of `size`: [B, *size], same sum: A·P·Aᵀ."""
    rows, cols = (area_matrix(n, m).to(density) for n, m in zip(density.shape[1:], size, strict=True))
    return rows @ density @ cols.mT


def author_pool(log_density: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation of the **log** density [B, H, W], then exp, then renormalised, as released."""
    log = F.interpolate(log_density[:, None], size, mode="bilinear", align_corners=False)[:, 0]
    return log.flatten(1).softmax(1).view_as(log)
