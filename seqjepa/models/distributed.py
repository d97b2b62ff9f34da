"""Rows of all ranks as one batch, with gradients, for losses that compare every row with every other."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def several_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor [N, d] of R ranks → [R·N, d] in rank order, so that rows of different tensors stay partners.

    All of one shape, the same on every rank, and every rank has to take part: one message forward, one backward.
    Gradients come back summed over the ranks. Where each rank computes the loss of the whole batch, their average over
    ranks (DistributedDataParallel) is the gradient that one process would find. Alone, the tensors themselves.
    """
    if not several_ranks():
        return tensors
    return _AllRowsFunction.apply(torch.stack(tensors, dim=1)).unbind(1)  # type: ignore[union-attr]


def of_rank_zero(x: Tensor) -> Tensor:
    """Rank 0's x, of one shape on all ranks, without a graph; sent from device to device. Alone, x itself."""
    if not several_ranks():
        return x
    group = dist.group.WORLD
    assert group is not None
    return torch.ops._c10d_functional.wait_tensor(torch.ops._c10d_functional.broadcast(x, 0, group.group_name))


class _AllRowsFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]
