"""augment(): images and the parameters drawn for them → views, in batches, where the images are.

Every operation is done to the views that it is for, in hundreds of kernels. For full batches on a GPU, `fused_views`
does the same operations to every view: nothing there has a size that depends on what was drawn, so a compiler makes a
few kernels of all of it (benchmarks/compiled_launches.py counts them).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqjepa.compiling import CompiledForGpu
from seqjepa.data.augment.colour import JITTER, Levels, gaussian_blur, grayscale, levels_of, solarise
from seqjepa.data.augment.parameters import AugmentParams
from seqjepa.data.augment.recipes import kernel_size
from seqjepa.data.augment.resize import bank, crop_resize
from seqjepa.devices import to_device
from seqjepa.precision import full_float32

_compiled: list[CompiledForGpu] = []


def fused_views(images: Tensor, params: AugmentParams, size: int, most: int) -> Tensor | None:
    """N = B·T views, T of each of B images [B, 3, H, W], `most` at a time: [N, size, size, 3], in the images' dtype.

    None where they are to be made one operation after the other: smaller batches, and where there is no compiler.
    """
    if not _compiled:
        _compiled.append(CompiledForGpu(views_of, "augmentations"))
    device, N = images.device, len(params.flip)
    rows = -(-N // -(-N // most))  # pieces of one size, of which the last begins where it has to
    table = to_device(table_of(params), device)
    sample = torch.arange(N, device=device) // (N // len(images))
    banks = tuple(bank(extent, size, device) for extent in images.shape[2:])
    done: list[Tensor] = []
    with torch.autocast(device.type, enabled=False), full_float32():
        for start in range(0, N, rows):
            first = min(start, N - rows)
            part = slice(first, first + rows)
            views = _compiled[0](rows, images, sample[part], table[part], banks)
            if views is None:
                return None
            done.append(views[start - first :])
    return done[0] if len(done) == 1 else torch.cat(done)


def table_of(params: AugmentParams) -> Tensor:
    """All parameters of N views side by side, float32 [N, 17] on the host: pixels and levels are exact in it."""
    single = [params.flip, params.jitter, params.grayscale, params.sigma, params.threshold]
    columns = [params.crop, params.order, params.factors, torch.stack([x.to(torch.float32) for x in single], dim=1)]
    return torch.cat([x.to(torch.float32) for x in columns], dim=1)


def views_of(images: Tensor, sample: Tensor, table: Tensor, banks: tuple[Tensor, Tensor]) -> Tensor:
    """One view of image sample[n] as row n of the table says: [N, size, size, 3]. banks: of rows and of columns."""
    levels, size = levels_of(images.dtype), banks[0].shape[2]
    crop, order, factors = table[:, :4].long(), table[:, 4:8].long(), table[:, 8:12]
    flip, jitter, grey, sigma, threshold = table[:, 12:].unbind(1)
    x = crop_resize(images.index_select(0, sample).to(torch.float32), crop, flip.long(), levels, banks)
    for chosen in order.unbind(1):
        x = _jittered(x, jitter > 0, chosen, factors, levels)
    x = _where(grey > 0, grayscale(x.clone(), levels), x)
    blurred = gaussian_blur(x, torch.where(sigma > 0, sigma, 1.0), kernel_size(size), levels)
    x = solarise(_where(sigma > 0, blurred, x), threshold * (levels.top / 255), levels)
    return x.permute(0, 2, 3, 1).contiguous().to(images.dtype)


def _jittered(x: Tensor, jitter: Tensor, chosen: Tensor, factors: Tensor, levels: Levels) -> Tensor:
    """Each view by the one operation that is chosen for it, int64 [N], or left as it is."""
    done = x
    for which, operation in enumerate(JITTER):
        done = _where(jitter & (chosen == which), operation(x.clone(), factors[:, which], levels), done)
    return done


def _where(chosen: Tensor, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None, None], x, other)


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

    compile: on a GPU, a few kernels for full batches (fused_views); a level is off now and then, by rounding.
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
    levels, rows = levels_of(images.dtype), _rows(params, images.device)
    table = to_device(table_of(params), images.device)
    crop, factors, (flip, _, _, sigma, threshold) = table[:, :4].long(), table[:, 8:12], table[:, 12:].unbind(1)
    banks = bank(images.shape[2], size, images.device), bank(images.shape[3], size, images.device)
    x = crop_resize(images.to(torch.float32), crop, flip.long(), levels, banks)
    for k in range(4):
        for which, operation in enumerate(JITTER):
            _change(x, rows[k, which], lambda part, f, do=operation: do(part, f, levels), factors[:, which])
    _change(x, rows["grayscale"], lambda part, _: grayscale(part, levels), sigma)
    _change(x, rows["blur"], lambda part, sigma: gaussian_blur(part, sigma, kernel_size(size), levels), sigma)
    _change(x, rows["solarise"], lambda part, t: solarise(part, t * (levels.top / 255), levels), threshold)
    return x


def _change(x: Tensor, rows: Tensor, operation: Callable[[Tensor, Tensor], Tensor], values: Tensor) -> None:
    """Replace some rows of x by operation(those rows, their values)."""
    if len(rows):
        x.index_copy_(0, rows, operation(x.index_select(0, rows), values.index_select(0, rows)))


def _rows(params: AugmentParams, device: torch.device) -> dict[object, Tensor]:
    """Which views each operation is for, found on the host: no operation waits for the device to say how many."""
    masks: dict[object, Tensor] = {
        (k, which): params.jitter & (params.order[:, k] == which) for k in range(4) for which in range(4)
    }
    masks |= {"grayscale": params.grayscale, "blur": params.sigma > 0, "solarise": params.threshold < 256}
    found = [mask.nonzero()[:, 0] for mask in masks.values()]
    parts = to_device(torch.cat(found), device).split([len(rows) for rows in found])
    return dict(zip(masks, parts, strict=True))
