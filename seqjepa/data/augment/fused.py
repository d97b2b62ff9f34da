"""Augmented views of full batches on a GPU: the same operations on every view, of which each takes its own.

apply.py has every operation done to the views that it is for, in hundreds of kernels. Here nothing has a size that
depends on what was drawn, so a compiler makes a few kernels of all of it (benchmarks/compiled_launches.py counts them).
"""

from __future__ import annotations

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

    None where they are to be made by apply.py: of smaller batches, and where there is no compiler.
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
    """All parameters of N views side by side, float32 [N, 18] on the host: pixels and levels are exact in it."""
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
