"""Batch norm over all ranks, with gradients, and over each of several batches that share a call (`of_each`).

On any backend: torch's SyncBatchNorm refuses the CPU. On CUDA torch's own kernels run, without a value that the host
would wait for: nn.SyncBatchNorm drops ranks without samples by a mask, whose length the host has to know, and packs
what it sends. Ours sends the tensors as they are, coalesced: NCCL makes one launch of it.

G: how many batches share a call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.models.distributed import several_ranks
from seqjepa.precision import at_least_float32

_COLLECTIVES = torch.ops._c10d_functional
_groups = 1


def of_each(network: Callable[[Tensor], Tensor], *batches: Tensor) -> tuple[Tensor, ...]:
    """network(batch) of each batch [N, …] → [N, d], in one call: GlobalBatchNorm takes the statistics of each batch
    alone, and moves its running ones batch after batch. What a network draws, as dropout does, is drawn otherwise.
    """
    with _by_group(len(batches)):
        return network(torch.cat(batches)).chunk(len(batches))


@contextmanager
def _by_group(count: int) -> Iterator[None]:
    global _groups
    _groups = count
    try:
        yield
    finally:
        _groups = 1


def takes_groups(module: nn.Module) -> bool:
    """Whether `of_each` of its parts is what calls one by one are: no other layer looks at a batch as a whole."""
    layers = [layer for part in module.children() for layer in part.modules()]
    own = [isinstance(layer, GlobalBatchNorm) or not hasattr(layer, "running_var") for layer in layers]
    return all(own) and all(map(_known, layers))


def _known(layer: nn.Module) -> bool:
    """Of layers that other packages made nobody knows how they look at a batch."""
    return type(layer).__module__.partition(".")[0] in ("torch", "torchvision", "timm", "seqjepa")


class NativeBatchNormFunction(torch.autograd.Function):
    """x [G·N, C] or [G·N, C, H, W] of any float type, N ≥ 1 per rank → the same, each group of N rows normalised by its
    own statistics; moves the running ones, group after group.

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
        groups: int,
    ) -> Tensor:
        x = x.contiguous(memory_format=_layout(x))
        parts, y = x.chunk(groups), torch.empty_like(x)
        own = [values for part in parts for values in torch.batch_norm_stats(part, eps)]
        *all_ranks, single, whole = _of_all_ranks(*own, *counts)
        moments: list[Tensor] = []
        for part, out, means, inverses in zip(parts, y.chunk(groups), *_pairs(all_ranks), strict=True):
            mean, inverse = torch.batch_norm_gather_stats_with_counts(
                part, means, inverses, running_mean, running_var, momentum, eps, single[:, 0]
            )
            torch.batch_norm_elemt(part, weight, bias, mean, inverse, eps, out=out)
            moments += [mean, inverse]
        ctx.save_for_backward(x, weight, whole[:, 0], *moments)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, whole, *moments = ctx.saved_tensors
        groups, wanted = len(moments) // 2, ctx.needs_input_grad[:3]
        grad = grads[0].contiguous(memory_format=_layout(x))
        parts = list(zip(grad.chunk(groups), x.chunk(groups), *_pairs(moments), [weight] * groups, strict=True))
        reduced = list(zip(*(torch.batch_norm_backward_reduce(*part, *wanted) for part in parts), strict=True))
        grad_x = None
        if wanted[0]:  # on one rank as on all
            sums = _waited(_COLLECTIVES.all_reduce_coalesced_([*reduced[0], *reduced[1]], "sum", _group_name()))
            totals = zip(parts, sums[:groups], sums[groups:], strict=True)
            moved = [torch.batch_norm_backward_elemt(*part, total, moment, whole) for part, total, moment in totals]
            grad_x = moved[0] if groups == 1 else torch.cat(moved)
        grad_weight, grad_bias = (reduce(torch.add, reduced[i + 1]) if wanted[i] else None for i in (1, 2))
        return grad_x, grad_weight, grad_bias, *[None] * 6


def _pairs(values: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Of each group two, one group after the other → the first ones, the second ones."""
    return values[::2], values[1::2]


def counts_of(x: Tensor, running_mean: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """How many values a channel of a group of x has, twice: [1] in the running statistics' type and int32 [1], as
    torch's kernel forward and the one backward take it."""
    values = x.numel() // x.shape[1] // groups
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

    Parameters, buffers and state-dict names stay the same, so build the optimizer before or after. Call it on every
    rank; with one rank values are those of torch's layers, to the bit.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        takes = module.track_running_stats and (several_ranks() or _known(module))
        return GlobalBatchNorm(module) if takes else module
    for name, child in module.named_children():
        setattr(module, name, convert_sync_batch_norm(child))
    return module


class GlobalBatchNorm(nn.Module):
    """Takes over the parameters and buffers of a BatchNorm1d or BatchNorm2d; [N, C] or [N, C, H, W], N ≥ 1 per rank.

    Ranks may hold different numbers of samples: each counts by its size, as if all were one batch. One collective
    forward and one backward per layer, whatever the number of groups. Under autocast, statistics and arithmetic are
    float32. On CUDA torch's kernels do it (NativeBatchNormFunction), and the host waits for nothing. A single rank runs
    torch's batch norm, a group at a time; compiled our arithmetic, of which all groups are one kernel.
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
        self._counts: dict[tuple[torch.Size, torch.device, int], tuple[Tensor, Tensor]] = {}  # of the last shape of x
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
            return self._by_torch(x)
        if not (several_ranks() or self.momentum is None or (_groups > 1 and torch.compiler.is_compiling())):
            self.num_batches_tracked += _groups
            return self._by_torch(x) if _groups == 1 else torch.cat([self._by_torch(part) for part in x.chunk(_groups)])
        if self._takes_native_kernels(x):
            return self._by_native_kernels(x, _groups)
        y, means, variances, count = _GlobalBatchNormFunction.apply(x, self.weight, self.bias, self.eps, _groups)
        for mean, var in zip(means, variances, strict=True):
            self._track(mean, var, count)
        return y

    def _by_torch(self, x: Tensor) -> Tensor:
        state = (self.running_mean, self.running_var, self.weight, self.bias)
        return F.batch_norm(x, *state, self.training, self.momentum or 0.0, self.eps)

    def _by_native_kernels(self, x: Tensor, groups: int) -> Tensor:
        self.num_batches_tracked += groups
        key = (x.shape, x.device, groups)
        if key not in self._counts:
            self._counts = {key: counts_of(x, self.running_mean, groups)}
        state = (self.running_mean, self.running_var, self.momentum, self.eps, self._counts[key])
        return NativeBatchNormFunction.apply(x, self.weight, self.bias, *state, groups)  # type: ignore[return-value]

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
    """Mean [G, C], biased variance [G, C] and count [1] of x [G, N, C, ...] over all ranks; no graph.

    Each rank sends its own mean and variance, so nothing cancels (Chan et al. 1979).
    """
    var, mean = torch.var_mean(x, dim=_all_but_channels(x), correction=0)
    count = x.new_full((1,), x.numel() // mean.numel())
    if not several_ranks():
        return mean, var, count
    row = torch.cat((mean.flatten(), var.flatten(), count))
    rows = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, row)
    *moments, counts = torch.stack(rows).split([mean.numel(), var.numel(), 1], dim=1)
    means, variances = (values.unflatten(1, mean.shape) for values in moments)
    counts, count = counts.unsqueeze(1), counts.sum(0)
    mean = (counts * means).sum(0) / count
    var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
    return mean, var, count


class _GlobalBatchNormFunction(torch.autograd.Function):
    """(x − mean) / √(var + eps) · weight + bias with global mean and var [G, C]. Keeps only x and a few [G, C] vectors.

    The gradients of weight and bias are this rank's share, which DistributedDataParallel then averages.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, groups: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = at_least_float32(x)
        mean, var, count = global_moments(wide.unflatten(0, (groups, -1)))
        inverse = torch.rsqrt(var + eps)
        ctx.save_for_backward(x, weight, mean, inverse, count)
        ctx.mark_non_differentiable(mean, var, count)
        y = (wide - _by_channel(mean, x)) * _by_channel(inverse, x)
        if weight is not None and bias is not None:
            y = torch.addcmul(_by_channel(bias, x), y, _by_channel(weight, x))
        return _cast(y, x), mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, inverse, count = ctx.saved_tensors
        grad = at_least_float32(grads[0])
        unit = (at_least_float32(x) - _by_channel(mean, x)) * _by_channel(inverse, x)
        parts = [values.unflatten(0, (len(mean), -1)) for values in (grad, grad * unit)]
        sums = torch.stack([part.sum(_all_but_channels(part)) for part in parts])
        grad_bias, grad_weight = sums.sum(1) if weight is not None else (None, None)
        if several_ranks():
            dist.all_reduce(sums)
        shift, slope = (_by_channel(total, x) for total in sums / count)
        scale = inverse if weight is None else inverse * weight
        grad_x = (grad - shift - unit * slope) * _by_channel(scale, x)
        return _cast(grad_x, x), grad_weight, grad_bias, None, None


def _cast(values: Tensor, x: Tensor) -> Tensor:
    """In x's dtype. torch 2.11 compiles a function whose last step is a `to` that does nothing without its gradient."""
    return values if values.dtype == x.dtype else values.to(x.dtype)


def _all_but_channels(x: Tensor) -> list[int]:
    """Of [G, N, C, ...]."""
    return [axis for axis in range(1, x.ndim) if axis != 2]


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """[C], or [G, C] for x's groups, shaped to broadcast over x [G·N, C, ...]."""
    if values.ndim == 2 and len(values) > 1:
        values = values.unsqueeze(1).expand(-1, len(x) // len(values), -1)
    return values.reshape(-1, x.shape[1], *[1] * (x.ndim - 2))
