"""Several processes as one trainer: plain `torchrun`, NCCL between GPUs, gloo on the CPU. With one, all is a no-op."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from shards.errors import FailureError, SeqJepaError, UsageError, reason_of

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among `size`. Rank 0 is the main one: it alone writes."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls) -> World:
        """What torchrun says, or who else sets its variables; alone where nothing does."""
        try:
            rank, size, local = (int(os.environ.get(n, d)) for n, d in _VARIABLES)
        except ValueError:
            raise UsageError("RANK, WORLD_SIZE and LOCAL_RANK must be whole numbers; torchrun sets them") from None
        if size > 1 and not {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
            raise UsageError(f"WORLD_SIZE is {size} but MASTER_ADDR or MASTER_PORT is not set; start with torchrun")
        if not (0 <= rank < size and local >= 0):
            raise UsageError(
                f"RANK is {rank}, WORLD_SIZE {size}, LOCAL_RANK {local}; ranks are 0 to WORLD_SIZE - 1, as torchrun "
                "sets them"
            )
        port = os.environ.get("MASTER_PORT", "0")
        if size > 1 and not (port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UsageError(f"MASTER_PORT is {port!r:.40}, not 1 to 65535; `torchrun --standalone` finds a free port")
        return cls(rank, size, local)

    @property
    def main(self) -> bool:
        return self.rank == 0


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


def doubt_of_slurm() -> str:
    """Why this process may not be meant to train alone; "" if nothing says so."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks == "1" or "RANK" in os.environ:
        return ""
    return f"srun started {tasks} tasks, and this one trains alone; several train one run by `srun torchrun …`"


@contextmanager
def process_group(world: World, device: torch.device, timeout_minutes: float = 30.0) -> Iterator[None]:
    """The group all functions here talk through. CPU tensors go over gloo even where GPU tensors go over NCCL.

    FailureError, on every rank that is left: a rank did not start, has ended, or said nothing for `timeout_minutes`.
    """
    if world.size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend, timeout = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timedelta(minutes=timeout_minutes)
    try:
        store = _store_of_this_start(world, timeout)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, timeout=timeout)
    except dist.DistError as error:
        raise FailureError(
            f"rank {world.rank}: not all {world.size} ranks came together in {timeout_minutes:g} minutes "
            f"({_in_short(error)}); see what the others say, or raise train.timeout_minutes"
        ) from error
    try:
        yield
    except BaseException as error:
        _abort_messages(device)
        of_gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)  # they name its source file
        if not isinstance(error, dist.DistError) and not of_gloo:
            raise
        raise FailureError(
            f"rank {world.rank} of {world.size}: another rank ended or cannot be reached ({_in_short(error)}); "
            "the same command goes on from the last checkpoint"
        ) from error
    finally:
        dist.destroy_process_group()


def _abort_messages(device: torch.device) -> None:
    """NCCL's kernels wait for ranks that are lost, and destroy_process_group would wait for the kernels."""
    if device.type == "cuda" and (group := dist.group.WORLD) is not None:
        with suppress(RuntimeError):
            group._get_backend(device).abort()


def _store_of_this_start(world: World, timeout: timedelta) -> Store:
    """A part of torchrun's store in which nothing of an earlier start is found.

    After an elastic restart that store still holds the addresses of ranks that are dead, and the number of restarts
    that torchrun tells is not the same on all nodes. So rank 0 draws a name; a rank that has found it says who it is
    and takes the name only when rank 0 has answered that very process.
    """
    store, _, _ = next(iter(rendezvous("env://", world.rank, world.size, timeout=timeout)))
    store.set_timeout(timeout)
    me = secrets.token_hex(8)
    if world.main:
        store.set(_NAME, me)
        others = [store.get(f"{me}/{rank}").decode() for rank in range(1, world.size)]
        for other in others:
            store.set(f"{me}/{other}", "")
        return PrefixStore(me, store)
    said, end = "", time.monotonic() + timeout.total_seconds()
    while True:
        name = store.get(_NAME).decode()
        if name != said:
            store.set(f"{name}/{world.rank}", me)
            said = name
        if store.check([f"{name}/{me}"]):
            return PrefixStore(name, store)
        if time.monotonic() > end:
            raise dist.DistStoreError("rank 0 did not answer")
        time.sleep(_POLL)


_NAME = "seqjepa"
_POLL = 0.1  # seconds


def _in_short(error: BaseException) -> str:
    """gloo's or NCCL's reason, without source file and advice."""
    return re.sub(r"^\[\S+:\d+\] ", "", reason_of(error)).split(". ")[0][:200]


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


PIECE = 1 << 28
"""Bytes that rank 0 hands out at a time."""


def from_main(world: World, data: bytes | None) -> bytes | None:
    """What rank 0 has, on every rank; the others' `data` counts for nothing."""
    if world.size == 1:
        return data
    size = highest(world, [len(data) if world.main and data is not None else -1])[0]
    if size < 0:
        return None
    held = torch.frombuffer(bytearray(data or b""), dtype=torch.uint8) if world.main and size else None
    tensor = torch.empty(size, dtype=torch.uint8) if held is None else held
    for start in range(0, size, PIECE):
        dist.broadcast(tensor[start : start + PIECE], 0)
    return tensor.numpy().tobytes()


def sum_over_ranks(world: World, tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over ranks, in place and in one message. All of one dtype."""
    if world.size == 1 or not tensors:
        return
    flat = packed(tensors)
    dist.all_reduce(flat)
    for tensor, part in zip(tensors, unpacked(flat, tensors), strict=True):
        tensor.copy_(part)


def packed(tensors: Sequence[Tensor]) -> Tensor:
    """Their values, one after the other: [n]."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def unpacked(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of flat [n] in the shapes of the tensors that were packed."""
    parts = flat.split([tensor.numel() for tensor in like])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like, strict=True)]


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
    sum_over_ranks(world, grads)
    for grad in grads if world.size > 1 else ():
        grad /= world.size
