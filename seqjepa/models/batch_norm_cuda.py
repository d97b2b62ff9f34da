"""Batch norm over the global batch by torch's own CUDA kernels, without a value that the host would wait for.

nn.SyncBatchNorm has the same kernels, but drops ranks without samples by a mask, whose length the host has to know, and
packs what it sends. Ours sends the tensors as they are, coalesced: NCCL makes one launch of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_COLLECTIVES = torch.ops._c10d_functional


class NativeBatchNormFunction(torch.autograd.Function):
    """x [N, C] or [N, C, H, W] of any float type, N ≥ 1 per rank → the same, normalised; moves the running statistics.

    counts: see counts_of. Gradients of weight and bias are this rank's share, which DistributedDataParallel averages.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        counts: tuple[Tensor, Tensor],
    ) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        mean, inverse = torch.batch_norm_stats(x, eps)
        means, inverses, single, whole = _of_all_ranks(mean, inverse, *counts)
        mean, inverse = torch.batch_norm_gather_stats_with_counts(
            x, means, inverses, running_mean, running_var, momentum, eps, single[:, 0]
        )
        ctx.save_for_backward(x, weight, mean, inverse, whole[:, 0])
        return torch.batch_norm_elemt(x, weight, bias, mean, inverse, eps)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse, whole = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=_layout(x))
        wanted = ctx.needs_input_grad[:3]
        *sums, grad_weight, grad_bias = torch.batch_norm_backward_reduce(grad, x, mean, inverse, weight, *wanted)
        grad_x = None
        if wanted[0]:  # on one rank as on all
            total, moment = _waited(_COLLECTIVES.all_reduce_coalesced_(sums, "sum", _group_name()))
            grad_x = torch.batch_norm_backward_elemt(grad, x, mean, inverse, weight, total, moment, whole)
        return grad_x, grad_weight if wanted[1] else None, grad_bias if wanted[2] else None, *[None] * 5


def counts_of(x: Tensor, running_mean: Tensor) -> tuple[Tensor, Tensor]:
    """How many values a channel of x has, twice: [1] in the running statistics' type and int32 [1], as torch's kernel
    forward and the one backward take it."""
    values = x.numel() // x.shape[1]
    return running_mean.new_full((1,), values), running_mean.new_full((1,), values, dtype=torch.int32)


def _of_all_ranks(*tensors: Tensor) -> list[Tensor]:
    """Each tensor [n] of R ranks → [R, n], in one message."""
    ranks = dist.get_world_size()
    gathered = _COLLECTIVES.all_gather_into_tensor_coalesced(list(tensors), ranks, _group_name())
    return [rows.view(ranks, -1) for rows in _waited(gathered)]


def _waited(tensors: list[Tensor]) -> list[Tensor]:
    """The current stream waits, the host does not."""
    return [_COLLECTIVES.wait_tensor(tensor) for tensor in tensors]


def _group_name() -> str:
    group = dist.group.WORLD
    assert group is not None  # a world of one keeps torch's batch norm
    return group.group_name


def _layout(x: Tensor) -> torch.memory_format:
    last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
