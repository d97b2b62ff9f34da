"""Colour operations and blur on float32 pixels [N, 3, H, W] in 0 … levels.top, a factor for each sample.

Formulas and rounding are those of torchvision's tensor operations (transforms.functional.adjust_*, gaussian_blur), so
that in whole levels the result is, but for a rare rounding, what these give one uint8 image at a time. Colour
operations work in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """Pixels from 0 to `top`. whole: every operation ends in whole grey levels, as it does on uint8 tensors.

    Both methods work in place on float32 and return what they were given.
    """

    top: float
    whole: bool

    def truncate(self, x: Tensor) -> Tensor:
        """Clamp; whole levels by dropping the fraction, as a cast to uint8 does (blends, grayscale)."""
        x.clamp_(0.0, self.top)
        return x.floor_() if self.whole else x

    def nearest(self, x: Tensor) -> Tensor:
        """Clamp; whole levels by rounding half to even (resampling, blur)."""
        if self.whole:
            x.round_()
        return x.clamp_(0.0, self.top)


BYTES = Levels(top=255.0, whole=True)
UNIT = Levels(top=1.0, whole=False)


def levels_of(dtype: torch.dtype) -> Levels:
    return BYTES if dtype == torch.uint8 else UNIT


def grey(x: Tensor, levels: Levels) -> Tensor:
    """Luma [N, H, W]: 0.2989 R + 0.587 G + 0.114 B."""
    r, g, b = x.unbind(1)
    return levels.truncate((r * 0.2989).add_(g, alpha=0.587).add_(b, alpha=0.114))


def brightness(x: Tensor, factor: Tensor, levels: Levels) -> Tensor:
    """factor · x; factor float32 [N], as in all of these."""
    return levels.truncate(x.mul_(factor.view(-1, 1, 1, 1)))


def contrast(x: Tensor, factor: Tensor, levels: Levels) -> Tensor:
    """factor · x + (1 − factor) · mean luma of the sample."""
    mean = grey(x, levels).mean((1, 2)).mul_(1 - factor)
    return levels.truncate(torch.addcmul(mean.view(-1, 1, 1, 1), x, factor.view(-1, 1, 1, 1), out=x))


def saturation(x: Tensor, factor: Tensor, levels: Levels) -> Tensor:
    """factor · x + (1 − factor) · luma of the pixel."""
    luma = grey(x, levels).mul_((1 - factor).view(-1, 1, 1))
    return levels.truncate(torch.addcmul(luma[:, None], x, factor.view(-1, 1, 1, 1), out=x))


def hue(x: Tensor, shift: Tensor, levels: Levels) -> Tensor:
    """Rotate the hue of HSV by `shift` turns, float32 [N] in −0.5 … 0.5.

    With v the largest and m the smallest channel, each channel is m + (v − m) · ramp(hue), where ramp rises and falls
    once a turn; so saturation is never computed.
    """
    r, g, b = x.unbind(1)
    smallest = torch.minimum(torch.minimum(r, g), b)
    largest = torch.maximum(torch.maximum(r, g), b)
    sextant = _sextant(r, g, b, largest, smallest).add_(6 * shift.view(-1, 1, 1))
    span = largest.sub_(smallest)
    if levels.whole:  # torchvision goes through [0, 1] and back by ×255.999 with the fraction dropped
        scale = (levels.top + 1 - 1e-3) / levels.top
        span.mul_(scale)
        smallest.mul_(scale)
    for channel, phase in zip((r, g, b), (0.0, 4.0, 2.0), strict=True):
        _put(channel, smallest, span, _ramp(sextant, phase))
    return levels.truncate(x)


def _put(channel: Tensor, a: Tensor, b: Tensor, c: Tensor) -> None:
    """channel ← a + b · c. Compilers take no `out` with gaps, and need none."""
    if torch.compiler.is_compiling():
        channel.copy_(torch.addcmul(a, b, c))
    else:
        torch.addcmul(a, b, c, out=channel)


def _sextant(r: Tensor, g: Tensor, b: Tensor, largest: Tensor, smallest: Tensor) -> Tensor:
    """Hue in sixths of a turn, −1 … 5; 0 … 4 (any) for grey. Masks are floats: `where` is many times slower on CPUs."""
    per_span = (largest - smallest).clamp_(min=1e-12).reciprocal_()
    result = (r - g).mul_(per_span).add_(4)
    result.lerp_((b - r).mul_(per_span).add_(2), torch.eq(g, largest, out=torch.empty_like(g)))
    return result.lerp_((g - b).mul_(per_span), torch.eq(r, largest, out=torch.empty_like(r)))


def _ramp(sextant: Tensor, phase: float) -> Tensor:
    """clamp(|(sextant + phase + 6) mod 6 − 3| − 1, 0, 1): 1 within one sixth of the channel's own hue, 0 beyond two."""
    turns = torch.add(sextant, phase + 6).mul_(1 / 6).frac_()
    return turns.mul_(6).sub_(3).abs_().sub_(1).clamp_(0, 1)


def grayscale(x: Tensor, levels: Levels) -> Tensor:
    """Luma in all three channels."""
    return x.copy_(grey(x, levels)[:, None].expand_as(x))


def solarise(x: Tensor, threshold: Tensor, levels: Levels) -> Tensor:
    """Invert pixels at and above `threshold`, float32 [N] in 0 … top."""
    return torch.where(x < threshold.view(-1, 1, 1, 1), x, levels.top - x)


JITTER = (brightness, contrast, saturation, hue)
"""In the order of AugmentParams.factors and of torchvision's ColorJitter."""


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
