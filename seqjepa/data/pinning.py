"""Page-locking of the ring, so that copies to a CUDA device run asynchronously."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy as np
import torch

from shards.errors import ConfigError, FailureError


def require_cuda() -> None:
    """Raises ConfigError without a CUDA device."""
    if not torch.cuda.is_available():
        raise ConfigError("pinned memory needs a CUDA device and there is none; use pin=False")


def pin(memory: np.ndarray) -> weakref.finalize:
    """Page-lock existing memory. Calling the result undoes it; so does the end of `memory`."""
    cudart: Any = torch.cuda.cudart()
    address = memory.ctypes.data
    status = cudart.cudaHostRegister(address, memory.nbytes, 0)
    if status != cudart.cudaError.success:
        raise FailureError(
            f"cannot page-lock {memory.nbytes / 2**20:.0f} MiB for the loader ({status}); "
            "use fewer workers, a smaller batch or pin=False"
        )
    return weakref.finalize(memory, cudart.cudaHostUnregister, address)


class Retirement:
    """Slots whose batch is no longer needed by Python but may still be read by a copy to the device.

    A copy with non_blocking=True returns before it is done. So a slot is given back to the workers only when the work
    that was queued on the current stream at that time has finished; at most one slot waits.
    """

    def __init__(self, asynchronous: bool) -> None:
        self._asynchronous = asynchronous
        self._waiting: deque[tuple[int, torch.cuda.Event]] = deque()

    def retire(self, slot: int) -> list[int]:
        """Hand in a slot; returns the slots that are free now."""
        if not self._asynchronous:
            return [slot]
        return self._retire_after_copies(slot)

    def _retire_after_copies(self, slot: int) -> list[int]:
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((slot, event))
        done = []
        while self._waiting and (len(self._waiting) > 1 or self._waiting[0][1].query()):
            slot, event = self._waiting.popleft()
            event.synchronize()
            done.append(slot)
        return done
