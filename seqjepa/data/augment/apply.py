"""augment(): images and the parameters drawn for them → views, in batches, where the images are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from seqjepa.data.augment.colour import JITTER, gaussian_blur, grayscale, levels_of, solarise
from seqjepa.data.augment.fused import fused_views
from seqjepa.data.augment.parameters import AugmentParams
from seqjepa.data.augment.recipes import kernel_size
from seqjepa.data.augment.resize import bank, crop_resize
from seqjepa.devices import to_device
from seqjepa.precision import full_float32

# Values worked on at a time. On a CPU they have to stay in the cache, and in memory that malloc keeps: fresh pages cost
# more than all the arithmetic. A GPU wants few large kernels, and memory sets the limit.
_CHUNK = {"cpu": 3 * 2**18, "cuda": 3 * 2**26}


@torch.no_grad()
def augment(images: Tensor, params: AugmentParams, size: int, compile: bool = False) -> Tensor:
    """Views of each image: uint8 or float32 (0 … 1) [B, 3, H, W], params [B, T] → [B, T, 3, size, size], same dtype.

    The result is strided as [B, T, size, size, 3] (channels-last); images may have any strides.

    Order: crop and resize, flip, jitter (each view in its own order), grayscale, blur, solarise. Equal to torchvision's
    tensor operations on images of the same dtype (antialias=True): uint8 images are brought back to whole levels
    after each operation, by the same rounding; float images are clamped to 0 … 1 after the crop (torchvision keeps the
    bicubic's overshoot, and gives NaN where its hue meets it).

    compile: on a GPU, a few kernels for full batches (fused.py); a level is off now and then, by rounding.
    """
    B, T = params.shape
    flat = params.flat()
    images = images.contiguous()
    step = max(1, _CHUNK[images.device.type] // (3 * max(size * size, images[0, 0].numel())))
    views = fused_views(images, flat, size, step) if compile and images.is_cuda else None
    if views is None:
        views = _views(images, flat, size, step)
    return views.view(B, T, size, size, 3).permute(0, 1, 4, 2, 3)


def _views(images: Tensor, flat: AugmentParams, size: int, step: int) -> Tensor:
    """N = B·T views of B images, `step` at a time: [N, size, size, 3]. Each operation on the views that it is for."""
    N = len(flat.flip)
    views = images.new_empty(N, size, size, 3)
    sample = torch.arange(N, device=images.device) // (N // len(images))
    with torch.autocast(images.device.type, enabled=False), full_float32():
        for start in range(0, N, step):
            part = slice(start, start + step)
            done = _augment_each(images.index_select(0, sample[part]), flat[part], size)
            views[part] = done.permute(0, 2, 3, 1).contiguous()  # in two steps: half the time on a CPU
    return views


def _augment_each(images: Tensor, params: AugmentParams, size: int) -> Tensor:
    """One view of each image: [N, 3, H, W], params [N] → float32 [N, 3, size, size] in the levels of the images."""
    levels = levels_of(images.dtype)
    rows = _rows(params, images.device)
    values = _Values.of(params, images.device)
    banks = bank(images.shape[2], size, images.device), bank(images.shape[3], size, images.device)
    x = crop_resize(images.to(torch.float32), values.crop, values.flip, levels, banks)
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
