"""What a device asks of the host: its name, memory to copy from, a stream for each way, a bound on what stays there."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shards.errors import UsageError

CPU = torch.device("cpu")


def chosen_devices(device: str, processes: int | None = None) -> list[str]:
    """One name for each process: "cuda:0,cuda:1" → two; "auto" is the first GPU, else the CPU.

    processes: how many share the CPU (None: one). Raises UsageError for a device that is not there or given twice.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    names = [_known(name.strip()) for name in device.split(",")]
    if len(set(names)) < len(names):
        raise UsageError(f"--device {device}: name each device once")
    if processes is None:
        return names
    if names != ["cpu"] or processes < 1:
        raise UsageError(f"--processes {processes} is for --device cpu, and at least 1; on GPUs there is one for each")
    return names * processes


def _known(name: str) -> str:
    """ "cuda" → "cuda:0"."""
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    count = torch.cuda.device_count()
    if kind != "cuda" or not (number or "0").isdecimal() or int(number or 0) >= count:
        there = ", ".join(["cpu", *(f"cuda:{index}" for index in range(count))])
        raise UsageError(f"--device {name!r} is not on this machine; allowed are auto, {there}")
    return f"cuda:{int(number or 0)}"


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """On a GPU by a copy that the host does not wait for, on the current stream."""
    if device.type == "cuda" and values.device.type == "cpu":
        return _locked(values).to(device, non_blocking=True)
    return values.to(device)


def _locked(values: Tensor) -> Tensor:
    """In page-locked memory, where the machine allows any: from other memory the host waits for what is queued."""
    with contextlib.suppress(RuntimeError):
        return values.pin_memory()
    return values


MOST_BYTES = 1 << 28


class Kept:
    """What make(*key) gives, again and again: the values used last, as long as they have no more than MOST_BYTES."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make, self._bytes = make, 0
        self._values: OrderedDict[tuple, Any] = OrderedDict()

    def __call__(self, *key: Any) -> Any:
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = made = self._make(*key)
            self._bytes += _bytes(made)
            while self._bytes > MOST_BYTES and len(self._values) > 1:
                self._bytes -= _bytes(self._values.popitem(last=False)[1])
        return self._values[key]


def _bytes(value: Any) -> int:
    """Of a tensor, of several, or of those that an object has."""
    if isinstance(value, Tensor):
        return value.nbytes
    parts = value if isinstance(value, (list, tuple)) else vars(value).values() if hasattr(value, "__dict__") else ()
    return sum(_bytes(part) for part in parts)


class Copies:
    """Batches to a GPU and maps back, each way on a stream of its own beside the model's. On the CPU nothing moves."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            self._there, self._back = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def batch(self, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 [H, W, 3] each → [B, 3, H, W] on the device. What the model queues from now on waits for the copy."""
        stacked = torch.from_numpy(np.stack(images))
        if self.device.type == "cuda":
            with torch.cuda.stream(self._there):
                stacked = to_device(stacked, self.device)
            model = torch.cuda.current_stream(self.device)
            model.wait_stream(self._there)
            stacked.record_stream(model)
        return stacked.permute(0, 3, 1, 2)

    def fetch(self, maps: Tensor) -> Callable[[], np.ndarray]:
        """Begins to copy `maps` to the host; calling the result, from any thread, waits until they are there."""
        if not maps.is_cuda:
            return maps.numpy
        arriving = _locked(torch.empty(maps.shape, dtype=maps.dtype))
        copied = torch.cuda.Event(blocking=True)  # who waits leaves the core to others
        self._back.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._back):
            arriving.copy_(maps, non_blocking=True)
            maps.record_stream(self._back)
            copied.record(self._back)

        def arrived() -> np.ndarray:
            copied.synchronize()
            return arriving.numpy()

        return arrived
