"""The oracle: recorded parameters applied to one image at a time by torchvision, and pictures to try them on."""

from __future__ import annotations

import torch
import torchvision.transforms.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode

from seqjepa.data.augment.parameters import AugmentParams

OPERATIONS = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def pictures(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    """uint8 [n, 3, H, W] with smooth areas, edges, noise, black, white and grey: what photographs have."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, max(2, height // 6), max(2, width // 6), generator=generator) * 400 - 70
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    blocks = torch.nn.functional.interpolate(coarse, (height, width), mode="nearest")
    image = torch.where(torch.rand(n, 1, 1, 1, generator=generator) < 0.5, smooth, blocks)
    image[n // 2 :] += 8 * torch.randn(n - n // 2, 3, height, width, generator=generator)
    image[0] = image[0, :1]
    return image.clamp(0, 255).round().to(torch.uint8)


def augment_one(image: Tensor, params: AugmentParams, size: int, kernel: int) -> Tensor:
    """One view of one image [3, H, W] (uint8, or float in 0 … 1) from parameters without leading axes."""
    top, left, height, width = params.crop.tolist()
    x = F.resized_crop(image, top, left, height, width, [size, size], InterpolationMode.BICUBIC, antialias=True)
    x = x.clamp(0, 1) if x.is_floating_point() else x  # else adjust_hue gives NaN at values below 0
    x = F.hflip(x) if params.flip else x
    for which in params.order.tolist() if params.jitter else []:
        x = OPERATIONS[which](x, params.factors[which].item())
    x = F.rgb_to_grayscale(x, 3) if params.grayscale else x
    if params.sigma > 0:
        x = F.gaussian_blur(x, [kernel, kernel], [params.sigma.item()] * 2)
    if params.threshold < 256:
        x = F.solarize(x, params.threshold.item() / (1 if x.dtype == torch.uint8 else 255))
    return x


def augment_each(images: Tensor, params: AugmentParams, size: int, kernel: int) -> Tensor:
    """[B, 3, H, W] and parameters [B, T] → [B, T, 3, size, size]."""
    B, T = params.shape
    rows = [augment_one(images[b], params[b][t], size, kernel) for b in range(B) for t in range(T)]
    return torch.stack(rows).view(B, T, 3, size, size)


def grey_levels_off(ours: Tensor, theirs: Tensor) -> Tensor:
    """Absolute difference in grey levels, float32, of two images of the same dtype."""
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    return (ours.float() - theirs.float()).abs() * (1 if ours.dtype == torch.uint8 else 255)
