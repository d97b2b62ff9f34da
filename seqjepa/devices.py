"""Which device to use, refused in one line where it is not there; and how values get there without the host waiting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from shards.engines.ray_engine import CLUSTER
from shards.errors import UsageError


def stage_device(name: str) -> torch.device:
    """Where the tensors of a stage live: on the nodes of the Ray cluster that does it, else here. Raises UsageError."""
    cluster = CLUSTER.get()
    return torch.device(cluster.device(name)) if cluster else take_device(name)


def pick_device(name: str | torch.device = "auto", local_rank: int | None = None) -> torch.device:
    """The device for "auto", "cpu", "cuda" or "cuda:N", if it exists.

    local_rank: among the processes of this machine, the GPU that "auto" and "cuda" stand for. Where a launcher shows
    each process one GPU only (Slurm's --gpus-per-task=1), that is its own, whatever its rank. Raises UsageError.
    """
    name = str(name)
    try:
        device = torch.device("cuda" if name == "auto" and torch.cuda.is_available() else name.replace("auto", "cpu"))
    except RuntimeError:
        raise UsageError(f"there is no device {name!r}; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise UsageError(f"device {name!r} is not supported; use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(f"device {name!r}: this torch sees no CUDA GPU; use --device cpu, or see `seqjepa doctor`")
    count = torch.cuda.device_count()
    number = device.index if device.index is not None else (local_rank or 0)
    # Processes of one torchrun see the same GPUs, so that one GPU is not each one's own there.
    if device.index is None and count == 1 and not dist.is_torchelastic_launched():
        number = 0
    if number >= count:
        raise UsageError(f"device cuda:{number} is not there; this machine has {count} GPU(s)")
    return torch.device("cuda", number)


def take_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """pick_device, and make a GPU the current one: seeds, streams and events mean the current device."""
    device = pick_device(name, local_rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """`values` on `device`. On a GPU through page-locked memory, which torch keeps for later calls: from other memory,
    the host would wait for what the current stream has queued. For small tables: what is large is copied twice."""
    if torch.device(device).type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    try:
        locked = values.pin_memory()
    except RuntimeError:  # some machines allow none
        locked = values
    return locked.to(device, non_blocking=True)


def constant(values: Sequence[float], device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """The same tensor at every call, not to be written to: making one on a GPU is a copy that the host waits for."""
    return _constant(tuple(values), device, dtype)


@lru_cache(maxsize=256)
def _constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # whoever asks first; backward passes may read it
        return torch.tensor(values, dtype=dtype, device=device)


def available_memory() -> int:
    """Bytes of main memory that can be had without swapping, as Linux estimates it."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_name(device: torch.device) -> str:
    """ "cpu", or what the GPU calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def computing_on(device: torch.device, ranks: int) -> str:
    """What sums are rounded by, beside the kernels: "1 × cpu (AVX2, 2 threads)", "4 × NVIDIA H100"."""
    kind = f" ({torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads)"
    return f"{ranks} × {device_name(device)}{kind if device.type == 'cpu' else ''}"
