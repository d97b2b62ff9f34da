"""One batch over all ranks, with gradients: for batch norm, and for losses that compare every row with every other.

On any backend: torch's SyncBatchNorm refuses the CPU. On CUDA batch norm runs torch's own kernels, without a value that
the host would wait for: nn.SyncBatchNorm drops ranks without samples by a mask, whose length the host has to know, and
packs what it sends. Ours sends the tensors as they are, coalesced: NCCL makes one launch of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.precision import at_least_float32

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


def convert_sync_batch_norm(module: nn.Module) -> nn.Module:
    """`module` with every BatchNorm1d and BatchNorm2d normalising over the global batch in train mode.

    Parameters, buffers and state-dict names stay the same, so build the optimizer before or after. Without an
    initialised process group, or with one rank, the module comes back as it was. Call it on every rank.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return module
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return GlobalBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batch_norm(child))
    return module


class GlobalBatchNorm(nn.Module):
    """Takes over the parameters and buffers of a BatchNorm1d or BatchNorm2d; [N, C] or [N, C, H, W], N ≥ 1 per rank.

    Ranks may hold different numbers of samples: each counts by its size, as if all were one batch. One collective
    forward and one backward per layer. Under autocast, statistics and arithmetic are float32. On CUDA torch's kernels
    do it (NativeBatchNormFunction), and the host waits for nothing.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        self.momentum = norm.momentum
        self.weight = norm.weight
        self.bias = norm.bias
        for name, buffer in norm.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.training = norm.training
        self._counts: dict[tuple[torch.Size, torch.device], tuple[Tensor, Tensor]] = {}  # of the last shape of x
        for name in ("drop", "act"):  # what timm's BatchNormAct2d does after its norm
            if isinstance(after := getattr(norm, name, None), nn.Module):
                setattr(self, name, after)

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y = self._normalised(x)
        for after in self.children():
            y = after(y)
        return y

    def _normalised(self, x: Tensor) -> Tensor:
        if not self.training:
            return F.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        if self._takes_native_kernels(x):
            return self._by_native_kernels(x)
        y, mean, var, count = _GlobalBatchNormFunction.apply(x, self.weight, self.bias, self.eps)
        self._track(mean, var, count)
        return y

    def _by_native_kernels(self, x: Tensor) -> Tensor:
        self.num_batches_tracked += 1
        key = (x.shape, x.device)
        if key not in self._counts:
            self._counts = {key: counts_of(x, self.running_mean)}
        state = (self.running_mean, self.running_var, self.momentum, self.eps, self._counts[key])
        return NativeBatchNormFunction.apply(x, self.weight, self.bias, *state)  # type: ignore[return-value]

    def _takes_native_kernels(self, x: Tensor) -> bool:
        """A compiler has nothing to fuse in them, and they have no averages over all batches (momentum None)."""
        return x.is_cuda and self.momentum is not None and not torch.compiler.is_compiling()

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        """Running statistics as nn.BatchNorm keeps them: unbiased variance of the global batch."""
        self.num_batches_tracked += 1
        factor = 1.0 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += factor * (mean - self.running_mean)
        self.running_var += factor * (var * (count / (count - 1)) - self.running_var)


def with_batch_statistics(module: nn.Module) -> dict[str, int]:
    """Its parts (children, by name) that normalise by statistics of a batch as they stand, and how many layers do.

    A frozen part does not, nor do encoders with layer norms: there micro-batches (optim.accumulate) are exact.
    """
    kinds = (nn.modules.batchnorm._BatchNorm, GlobalBatchNorm)
    counts = {
        name: sum(isinstance(layer, kinds) and layer.training for layer in part.modules())
        for name, part in module.named_children()
    }
    return {name: count for name, count in counts.items() if count}


def global_moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C], biased variance [C] and count [1] of x [N, C, ...] over all ranks; no graph.

    Each rank sends its own mean and variance, so nothing cancels (Chan et al. 1979).
    """
    local_var, local_mean = torch.var_mean(x, dim=_all_but_channels(x), correction=0)
    row = torch.cat((local_mean, local_var, x.new_full((1,), x.numel() // x.shape[1])))
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    means, variances, counts = torch.stack(rows).split([x.shape[1], x.shape[1], 1], dim=1)
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
    return mean, var, count


class _GlobalBatchNormFunction(torch.autograd.Function):
    """(x − mean) / √(var + eps) · weight + bias with global mean and var. Keeps only x and a few [C] vectors.

    The gradients of weight and bias are this rank's share, which DistributedDataParallel then averages.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = at_least_float32(x)
        mean, var, count = global_moments(wide)
        inverse = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, var, count)
        y = (wide - _by_channel(mean, x)) * _by_channel(inverse, x)
        if weight is not None and bias is not None:
            y = torch.addcmul(_by_channel(bias, x), y, _by_channel(weight, x))
        return y.to(x.dtype), mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        grad = at_least_float32(grads[0])
        unit = (at_least_float32(x) - _by_channel(mean, x)) * _by_channel(inverse, x)
        axes = _all_but_channels(x)
        sums = torch.stack((grad.sum(axes), (grad * unit).sum(axes)))
        grad_bias, grad_weight = sums.clone() if weight is not None else (None, None)
        dist.all_reduce(sums)
        shift, slope = (_by_channel(total, x) for total in sums / count)
        scale = inverse if weight is None else inverse * weight
        grad_x = (grad - shift - unit * slope) * _by_channel(scale, x)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C] shaped to broadcast over x [N, C, ...]."""
    return values.view(1, -1, *[1] * (x.ndim - 2))


def all_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Each tensor [N, d] of R ranks → [R·N, d] in rank order, so that rows of different tensors stay partners.

    All of one shape, the same on every rank, and every rank has to take part: one message forward, one backward.
    Gradients come back summed over the ranks. Where each rank computes the loss of the whole batch, their average over
    ranks (DistributedDataParallel) is the gradient that one process would find. Alone, the tensors themselves.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return tensors
    return _AllRowsFunction.apply(torch.stack(tensors, dim=1)).unbind(1)  # type: ignore[union-attr]


def of_rank_zero(x: Tensor) -> Tensor:
    """Rank 0's x, of one shape on all ranks, without a graph; sent from device to device. Alone, x itself."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
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
