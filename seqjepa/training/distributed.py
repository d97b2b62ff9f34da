"""Several processes as one trainer: plain `torchrun`, NCCL between GPUs, gloo on the CPU. With one, all is a no-op."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from shards.errors import FailureError, SeqJepaError, UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among `size`. Rank 0 is the main one: it alone writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """What torchrun (or Slurm with the same variables) says; alone where it says nothing."""
        try:
            rank, size, local = (int(os.environ.get(n, d)) for n, d in _VARIABLES)
        except ValueError:
            raise UsageError("RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers; torchrun sets them") from None
        if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise UsageError(f"WORLD_SIZE is {size} but MASTER_ADDR or MASTER_PORT is not set; start with torchrun")
        return cls(rank, size, local)

    @property
    def main(self) -> bool:
        return self.rank == 0


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def process_group(world: World, device: torch.device) -> Iterator[None]:
    """The group all functions here talk through. CPU tensors go over gloo even where GPU tensors go over NCCL."""
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def on_main(world: World, work: Callable[[], object]) -> None:
    """Run `work` on rank 0 while the others wait; if it raises, all ranks raise."""
    on_all(world, work if world.main else lambda: None)


def on_all(world: World, work: Callable[[], T]) -> T:
    """`work` on every rank; if it raises on one, all raise, so that none waits for it in the next exchange."""
    done: list[T] = []
    failure: SeqJepaError | None = None
    try:
        done.append(work())
    except SeqJepaError as error:
        failure = error
    failed = highest(world, [failure is not None])[0]
    if failure is not None:
        raise failure
    if failed:
        raise FailureError("another rank could not go on; its own message says why")
    return done[0]


def highest(world: World, values: Iterable[int]) -> list[int]:
    """Elementwise maximum over ranks of small whole numbers, on the CPU: no GPU has to wait for it."""
    tensor = torch.tensor([int(v) for v in values])
    if world.size > 1:
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor.tolist()


def sum_over_ranks(world: World, tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over ranks, in place."""
    for tensor in tensors if world.size > 1 else ():
        dist.all_reduce(tensor)


def gather(world: World, tensor: Tensor) -> list[Tensor]:
    """The tensor of every rank, in rank order; shapes must agree."""
    if world.size == 1:
        return [tensor]
    rows = [torch.empty_like(tensor) for _ in range(world.size)]
    dist.all_gather(rows, tensor.contiguous())
    return rows


def average_gradients(world: World, module: nn.Module) -> None:
    """Mean of the gradients over ranks, in one message. For modules too small to be worth DDP."""
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    if world.size == 1 or not grads:
        return
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= world.size
    for grad, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(part.view_as(grad))
