"""augment(): images and the parameters drawn for them → views, in batches, where the images are.

Crops are resized by a small matrix per sample and axis. The weights are those of torchvision's resized_crop with
BICUBIC and antialias=True (ATen's upsample_bicubic2d_aa, which follows PIL): Keys' cubic with a = −0.5, widened where
the crop is shrunk, cut off at the edges of the crop and normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from seqjepa.data.augment.colour import JITTER, Levels, gaussian_blur, grayscale, levels_of, solarise
from seqjepa.data.augment.parameters import AugmentParams
from seqjepa.data.augment.recipes import kernel_size
from seqjepa.devices import to_device
from seqjepa.models.precision import full_float32

# Values worked on at a time. On a CPU they have to stay in the cache, and in memory that malloc keeps: fresh pages cost
# more than all the arithmetic. A GPU wants few large kernels, and memory sets the limit.
_CHUNK = {"cpu": 3 * 2**18, "cuda": 3 * 2**26}


@torch.no_grad()
def augment(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """Views of each image: uint8 or float32 (0 … 1) [B, 3, H, W], params [B, T] → [B, T, 3, size, size], same dtype.

    The result is strided as [B, T, size, size, 3] (channels-last); images may have any strides.

    Order: crop and resize, flip, jitter (each view in its own order), grayscale, blur, solarise. Equal to torchvision's
    tensor operations on images of the same dtype (antialias=True): uint8 images are brought back to whole levels
    after each operation, by the same rounding; float images are clamped to 0 … 1 after the crop (torchvision keeps the
    bicubic's overshoot, and gives NaN where its hue meets it).
    """
    B, T = params.shape
    flat = params.flat()
    images = images.contiguous()
    views = images.new_empty(B * T, size, size, 3)
    sample = torch.arange(B * T, device=images.device) // T
    step = max(1, _CHUNK[images.device.type] // (3 * max(size * size, images[0, 0].numel())))
    with torch.autocast(images.device.type, enabled=False), full_float32():
        for start in range(0, B * T, step):
            part = slice(start, start + step)
            done = _augment_each(images.index_select(0, sample[part]), flat[part], size)
            views[part] = done.permute(0, 2, 3, 1).contiguous()  # in two steps: half the time on a CPU
    return views.view(B, T, size, size, 3).permute(0, 1, 4, 2, 3)


def _augment_each(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """One view of each image: [N, 3, H, W], params [N] → float32 [N, 3, size, size] in the levels of the images."""
    levels = levels_of(images.dtype)
    rows = _rows(params, images.device)
    values = _Values.of(params, images.device)
    x = crop_resize(images.to(torch.float32), values.crop, values.flip, size, levels)
    for k in range(4):
        for which, operation in enumerate(JITTER):
            _change(x, rows[k, which], lambda part, f, do=operation: do(part, f, levels), values.factors[:, which])
    _change(x, rows["grayscale"], lambda part, _: grayscale(part, levels), values.sigma)
    _change(x, rows["blur"], lambda part, sigma: gaussian_blur(part, sigma, kernel_size(size), levels), values.sigma)
    _change(x, rows["solarise"], lambda part, t: solarise(part, t * (levels.top / 255), levels), values.threshold)
    return x


def _change(x: Tensor, rows: Tensor, operation: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> None:
    """Replace some rows of x by operation(those rows, their values)."""
    if len(rows):
        x.index_copy_(0, rows, operation(x.index_select(0, rows), values.index_select(0, rows)))


@dataclass(frozen=True)
class _Values:
    """What operations need of each view, on the device: crop int64 [N, 4], flip int64 [N], the others float32."""

    crop: Tensor
    flip: Tensor
    factors: Tensor
    sigma: Tensor
    threshold: Tensor

    @classmethod
    def of(cls, params: AugmentParams, device: torch.device) -> _Values:
        """One transfer for all of them; pixels are exact in float32."""
        single = torch.stack([params.sigma, params.threshold, params.flip], dim=1)
        table = to_device(torch.cat([params.crop, single, params.factors], dim=1).to(torch.float32), device)
        return cls(table[:, :4].long(), table[:, 6].long(), table[:, 7:], table[:, 4], table[:, 5])


def _rows(params: AugmentParams, device: torch.device) -> dict[object, Tensor]:
    """Which views each operation is for, found on the host: no operation waits for the device to say how many."""
    masks: dict[object, Tensor] = {
        (k, which): params.jitter & (params.order[:, k] == which) for k in range(4) for which in range(4)
    }
    masks |= {"grayscale": params.grayscale, "blur": params.sigma > 0, "solarise": params.threshold < 256}
    found = [mask.nonzero()[:, 0] for mask in masks.values()]
    parts = to_device(torch.cat(found), device).split([len(rows) for rows in found])
    return dict(zip(masks, parts, strict=True))


_A = -0.5


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution kernel, zero from |x| = 2 on."""
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * _A - 4 * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def weights(length: int, size: int) -> Tensor:
    """float64 [size, length]: rows that resample `length` pixels to `size`; each sums to 1."""
    scale = length / size
    centres = scale * (torch.arange(size, dtype=torch.float64) + 0.5)
    pixels = torch.arange(length, dtype=torch.float64) + 0.5
    raw = cubic((pixels - centres[:, None]) / max(scale, 1.0))
    return raw / raw.sum(dim=1, keepdim=True)


@lru_cache(maxsize=8)
def _bank(extent: int, size: int, device: torch.device) -> Tensor:
    """Weights for every crop along an axis of `extent` pixels: float32 [2·extent, extent + 1, size, extent].

    [l − 1, extent − s] is for the `l` pixels from `s` on, [extent + l − 1, …] the same with the output reversed.
    Only [2·extent, size, 2·extent] is stored: moving along the second axis slides a window over rows with zeros on
    both sides.
    """
    rows = torch.zeros(2, extent, size, 2 * extent, dtype=torch.float64)
    for length in range(1, extent + 1):
        rows[0, length - 1, :, extent : extent + length] = weights(length, size)
    rows[1] = rows[0].flip(1)
    stored = rows.flatten(0, 1).to(device, torch.float32)
    return stored.as_strided((2 * extent, extent + 1, size, extent), (size * 2 * extent, 1, 2 * extent, 1))


def resampling_matrices(start: Tensor, length: Tensor, reverse: Tensor | None, extent: int, size: int) -> Tensor:
    """float32 [N, size, extent]: row n resamples pixels start … start + length (int64 [N]) of an axis to `size`.

    reverse: int64 [N] of 0 and 1, or None; 1 gives the output mirrored.
    """
    kind = length - 1 if reverse is None else length - 1 + extent * reverse
    return _bank(extent, size, start.device)[kind, extent - start]


def crop_resize(images: Tensor, crop: Tensor, flip: Tensor, size: int, levels: Levels) -> Tensor:
    """Random resized crop and flip: images float32 [N, 3, H, W], crop int64 [N, 4] (i, j, h, w), flip int64 [N] 0 or 1.

    Returns float32 [N, 3, size, size]. In whole levels it differs from torchvision's by rounding alone.
    """
    N, C, H, W = images.shape
    top, left, height, width = crop.unbind(1)
    across = resampling_matrices(left, width, flip, W, size)
    down = resampling_matrices(top, height, None, H, size)
    narrow = torch.bmm(images.view(N, C * H, W), across.transpose(1, 2)).view(N, C, H, size)
    return levels.nearest(torch.matmul(down[:, None], narrow))
