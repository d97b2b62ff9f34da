"""DeepGaze IIE with seeded random weights whose maps are not flat: for parity and timing without the released file.

Untrained networks in eval mode either explode or say the same of every image, so they are calibrated:
 * residual branches are damped to 0.3, as training leaves them: at full strength, rounding grows from layer to layer,
 * every batch norm of the backbones takes its running statistics from seeded pictures (1/f noise),
 * affines, biases, Gaussian widths (8·e^N(0, 0.3)) and centre bias weights (N(1, 0.2)) of the readouts are drawn,
 * the last layer of each readout is scaled so that its map has a standard deviation of 1 to 2 nats on these pictures.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PICTURES = 4


def noise_pictures(count: int, height: int, width: int, seed: int) -> Tensor:
    """uint8 [count, 3, height, width]: coloured noise with the 1/f spectrum of photographs."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, height, width, generator=generator)
    noise[:, 1:] = 0.7 * noise[:, :1] + 0.7 * noise[:, 1:]  # colours go together
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    falloff = 1 / torch.sqrt(fy**2 + fx**2).clamp(min=1 / max(height, width))
    smooth = torch.fft.irfft2(torch.fft.rfft2(noise) * falloff, s=(height, width))
    scale = smooth.std((2, 3), keepdim=True)
    return (127 + 60 * (smooth - smooth.mean((2, 3), keepdim=True)) / scale).clamp(0, 255).to(torch.uint8)


@torch.inference_mode()
def calibrate(model: Any, seed: int = 0) -> Any:
    """Sets all weights of the package's untrained model (in place) as described above; returns it in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    pictures = noise_pictures(PICTURES, 256, 256, seed).float()
    for part in model.models:
        damp_residual_branches(part.features)
        measure_batch_norms(part.features, pictures)
        taps = [F.interpolate(tap, (16, 16)) for tap in part.features(pictures)]
        draw_readouts(part, torch.cat(taps, 1), generator)
    return model.eval()


def damp_residual_branches(extractor: nn.Module) -> None:
    for name, parameter in extractor.named_parameters():
        if re.search(r"layer\d\.\d\.bn3\.weight|_blocks\.\d+\._bn2\.weight", name):
            parameter.fill_(0.3)


def measure_batch_norms(extractor: nn.Module, pictures: Tensor) -> None:
    norms = [module for module in extractor.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
        norm.train()
    extractor(pictures)
    extractor.eval()


def draw_readouts(part: Any, features: Tensor, generator: torch.Generator) -> None:
    def normal(like: Tensor, mean: float, std: float) -> Tensor:
        return mean + std * torch.randn(like.shape, generator=generator)

    for name, parameter in part.named_parameters():
        if name.startswith("features"):
            continue
        if "layernorm" in name:
            parameter.copy_(normal(parameter, float(name.endswith("weight")), 0.1))
        elif "conv" in name:
            parameter.copy_(normal(parameter, 0, parameter[0].numel() ** -0.5))
        elif name.endswith("gauss.sigma"):
            parameter.copy_(8 * normal(parameter, 0, 0.3).exp())
        elif name.endswith("center_bias_weight"):
            parameter.copy_(normal(parameter, 1, 0.2))
        else:
            parameter.copy_(normal(parameter, 0, 0.1))
    for saliency, selection in zip(part.saliency_networks, part.fixation_selection_networks, strict=True):
        spread = selection((saliency(features), None)).std((2, 3)).mean()
        selection.conv2.weight.mul_((1 + torch.rand((), generator=generator)) / spread)


def corner_dark_bias(height: int, width: int) -> Tensor:
    """float64 [height, width]: a log density that falls by 6 nats from the centre to the corners, logsumexp 0."""
    y, x = torch.linspace(-1, 1, height).double(), torch.linspace(-1, 1, width).double()
    log = -3 * (y[:, None] ** 2 + x**2)
    return log - log.logsumexp((0, 1))
