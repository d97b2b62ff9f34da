"""What torch's CUDA kernels for synchronised batch norm compute, written out and registered for the CPU.

ATen/native/cuda/Normalization.cuh is where they are. Types and shapes are checked as there: float counts forward,
int32 counts backward.
"""

from __future__ import annotations

import torch
from torch import Tensor


def register() -> torch.library.Library:
    """torch.batch_norm_stats … work on the CPU as long as the result lives."""
    library = torch.library.Library("aten", "IMPL")
    for kernel in (
        batch_norm_stats,
        batch_norm_gather_stats_with_counts,
        batch_norm_backward_reduce,
        batch_norm_backward_elemt,
    ):
        library.impl(kernel.__name__, kernel, "CPU")
    library.impl("batch_norm_elemt.out", batch_norm_elemt_out, "CPU")
    return library


def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    var, mean = torch.var_mean(_wide(x), dim=_axes(x), correction=0)
    return mean, (var + eps).rsqrt()


def batch_norm_gather_stats_with_counts(
    x: Tensor,
    means: Tensor,
    inverses: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
    counts: Tensor,
) -> tuple[Tensor, Tensor]:
    assert counts.dtype == running_mean.dtype
    assert counts.shape == means.shape[:1]
    total, share = counts.sum(), counts[:, None]
    mean = (means * share).sum(0) / total
    squares = ((inverses**-2 - eps + (means - mean) ** 2) * share).sum(0)
    running_mean.copy_((1 - momentum) * running_mean + momentum * mean)
    running_var.copy_((1 - momentum) * running_var + momentum * squares / (total - 1))
    return mean, (squares / total + eps).rsqrt()


def batch_norm_elemt_out(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse: Tensor, eps: float, *, out: Tensor
) -> Tensor:
    assert _laid_out_alike(out, x)
    y = (_wide(x) - _by_channel(mean, x)) * _by_channel(inverse, x)
    if weight is not None and bias is not None:
        y = y * _by_channel(weight, x) + _by_channel(bias, x)
    return out.copy_(y)


def batch_norm_backward_reduce(
    grad: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, weight: Tensor | None, to_x: bool, to_w: bool, to_b: bool
) -> tuple[Tensor, ...]:
    assert _laid_out_alike(grad, x)
    wide = _wide(grad)
    total, moment = wide.sum(_axes(x)), (wide * (_wide(x) - _by_channel(mean, x))).sum(_axes(x))
    nothing = grad.new_empty(0)
    return (
        total if to_x else nothing,
        moment if to_x else nothing,
        moment * inverse if to_w else nothing,
        total.clone() if to_b else nothing,
    )


def batch_norm_backward_elemt(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    inverse: Tensor,
    weight: Tensor | None,
    total: Tensor,
    moment: Tensor,
    counts: Tensor,
) -> Tensor:
    assert counts.dtype == torch.int32
    n = counts.sum()
    slope = _by_channel(moment / n * inverse**2, x)
    scale = _by_channel(inverse if weight is None else inverse * weight, x)
    out = (_wide(grad) - _by_channel(total / n, x) - (_wide(x) - _by_channel(mean, x)) * slope) * scale
    return out.to(x.dtype)


def _axes(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))


def _laid_out_alike(a: Tensor, b: Tensor) -> bool:
    """Strides of axes with one value say nothing."""
    layouts = (torch.contiguous_format, *([torch.channels_last] if a.ndim == 4 else []))
    return any(a.is_contiguous(memory_format=layout) and b.is_contiguous(memory_format=layout) for layout in layouts)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x
