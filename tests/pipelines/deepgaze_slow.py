"""A small network of DeepGaze IIE's kind (2 backbones × 3 readouts) and its forward pass, step by step as defined.

Nothing here is folded, batched or skipped: the oracle for pipelines/saliency/deepgaze_fast*.py.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def drawn(generator: torch.Generator, *shape: int, mean: float = 0.0, std: float = 1.0) -> nn.Parameter:
    return nn.Parameter(mean + std * torch.randn(*shape, generator=generator, dtype=torch.float64), requires_grad=False)


class Affine(nn.Module):
    """A LayerNorm's parameters."""

    def __init__(self, generator: torch.Generator, channels: int) -> None:
        super().__init__()
        self.weight = drawn(generator, channels, mean=1, std=0.3)
        self.bias = drawn(generator, channels, std=0.3)


class Matrix(nn.Module):
    """A 1×1 convolution's weight, or a bias (`Bias`)."""

    def __init__(self, generator: torch.Generator, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = drawn(generator, outputs, inputs, 1, 1, std=inputs**-0.5)


class Bias(nn.Module):
    def __init__(self, generator: torch.Generator, channels: int) -> None:
        super().__init__()
        self.bias = drawn(generator, channels, std=0.3)


def saliency_network(generator: torch.Generator, channels: int) -> SimpleNamespace:
    layers = {}
    for i, (inputs, outputs) in enumerate([(channels, 8), (8, 16), (16, 1)]):
        layers[f"layernorm{i}"] = Affine(generator, inputs)
        layers[f"conv{i}"] = Matrix(generator, outputs, inputs)
        layers[f"bias{i}"] = Bias(generator, outputs)
    return SimpleNamespace(**layers)


def selection_network(generator: torch.Generator) -> SimpleNamespace:
    return SimpleNamespace(
        layernorm0=SimpleNamespace(layernorm_part0=Affine(generator, 1)),
        conv0=SimpleNamespace(conv_part0=Matrix(generator, 128, 1)),
        bias0=Bias(generator, 128),
        layernorm1=Affine(generator, 128),
        conv1=Matrix(generator, 16, 128),
        bias1=Bias(generator, 16),
        conv2=Matrix(generator, 1, 16),
    )


class Extractor(nn.Module):
    """Three tapped layers at two strides; the second is changed in place by what follows; the end must not be run."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        convs = [nn.Conv2d(a, b, 3, 2, 1) for a, b in [(3, 4), (4, 6), (6, 8), (8, 5)]]
        layers = [*convs[:2], nn.Tanh(), nn.ReLU(inplace=True), *convs[2:], nn.Conv2d(99, 1, 1)]
        self.features = nn.Sequential(*layers).double().requires_grad_(False)
        for conv in convs:
            conv.weight.copy_(0.5 * torch.randn(conv.weight.shape, generator=generator))
        self.targets = ["5", "1", "2"]  # not in the order in which they run

    def taps(self, images: Tensor) -> list[Tensor]:
        seen, x = {}, images / 255
        for i in range(6):
            x = self.features[i](x.clone())
            seen[str(i)] = x
        return [seen[target] for target in self.targets]


def small_model(seed: int = 0, components: int = 3) -> SimpleNamespace:
    generator = torch.Generator().manual_seed(seed)

    def part() -> SimpleNamespace:
        return SimpleNamespace(
            features=Extractor(generator),
            saliency_networks=[saliency_network(generator, 5 + 6 + 6) for _ in range(components)],
            fixation_selection_networks=[selection_network(generator) for _ in range(components)],
            finalizers=[finalizer(generator) for _ in range(components)],
        )

    return SimpleNamespace(models=[part(), part()])


def finalizer(generator: torch.Generator) -> SimpleNamespace:
    sigma = drawn(generator, 1, mean=6, std=2).abs()[0] + 0.5
    return SimpleNamespace(gauss=SimpleNamespace(sigma=sigma), center_bias_weight=drawn(generator, 1, mean=0.5, std=1))


def layer(x: Tensor, conv: Any, norm: Any = None, bias: Any = None) -> Tensor:
    """LayerNorm over (C, H, W), 1×1 convolution, bias."""
    if norm is not None:
        shape = x.shape[1:]
        weight, offset = (p[:, None, None].expand(shape) for p in (norm.weight, norm.bias))
        x = F.layer_norm(x, shape, weight, offset, 1e-12)
    x = F.conv2d(x, conv.weight)
    return x if bias is None else x + bias.bias[:, None, None]


def readout(x: Tensor, a: Any, b: Any) -> Tensor:
    """[B, C, h, w] → [B, 1, h, w]"""
    for i in range(3):
        x = F.softplus(layer(x, getattr(a, f"conv{i}"), getattr(a, f"layernorm{i}"), getattr(a, f"bias{i}")))
    x = F.softplus(layer(x, b.conv0.conv_part0, b.layernorm0.layernorm_part0, b.bias0))
    x = F.softplus(layer(x, b.conv1, b.layernorm1, b.bias1))
    return layer(x, b.conv2)


def gaussian_filter(x: Tensor, sigma: float) -> Tensor:
    """[B, 1, n, m]: separable, three standard deviations to either side, edges replicated."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=x.dtype) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), "replicate"), kernel.view(1, 1, -1, 1))
    return F.conv2d(F.pad(x, (radius, radius, 0, 0), "replicate"), kernel.view(1, 1, 1, -1))


def finalise(r: Tensor, centre_bias: Tensor, item: Any) -> Tensor:
    """Readout [B, 1, h, w] → log density [B, H, W]."""
    half = F.interpolate(centre_bias[None, None], scale_factor=0.5, recompute_scale_factor=False)
    x = gaussian_filter(F.interpolate(r, half.shape[2:]), float(item.gauss.sigma))
    x = F.interpolate(x + item.center_bias_weight * half, centre_bias.shape)[:, 0]
    return x - x.logsumexp((1, 2), keepdim=True)


def slow_log_density(model: Any, images: Tensor, centre_bias: Tensor) -> Tensor:
    """[B, 3, H, W], [H, W] → [B, H, W], everything in float64: log of the mean of the components' densities."""
    logs = []
    cells = [math.ceil(side / 32) for side in images.shape[2:]]
    half = F.interpolate(images.double(), scale_factor=0.5, recompute_scale_factor=False)
    for part in model.models:
        features = torch.cat([F.interpolate(tap, cells) for tap in part.features.taps(half)], dim=1)
        for networks in zip(part.saliency_networks, part.fixation_selection_networks, part.finalizers, strict=True):
            logs.append(finalise(readout(features, *networks[:2]), centre_bias, networks[2]))
    return torch.stack(logs).logsumexp(0) - math.log(len(logs))
