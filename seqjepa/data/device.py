"""What a CUDA device asks of the data path: page-locked memory, asynchronous copies, one batch ahead of the model."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from seqjepa.data.sequence import VECTORS, ViewSequence, normalise
from shards.errors import ConfigError, FailureError


def feed(
    batches: Iterable[ViewSequence],
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    channels_last: bool = True,
    raw: bool = False,
) -> Iterator[ViewSequence]:
    """Batches with values in 0..255, or features, on the host or on `device` already → float32 batches on `device`.

    raw: pixels stay as they are, on a GPU.

    mean, std: per channel, for pixels in [0, 1]. A loader may reuse a batch's memory as soon as the next one is asked
    for; what is yielded here does not alias it in its views, and on a GPU in nothing that came from the host.
    """
    moved = _made_ahead(batches, device) if device.type == "cuda" else batches
    mean_t, std_t = (torch.tensor(v, dtype=torch.float32, device=device) for v in (tuple(mean), tuple(std)))
    for seq in moved:
        if seq.views.ndim == VECTORS + 1:  # features are as they are
            yield replace(seq, views=seq.views.float())
            continue
        views = seq.views if raw and device.type == "cuda" else normalise(seq.views, mean_t, std_t)
        yield replace(seq, views=views if channels_last else views.contiguous())


def _made_ahead(batches: Iterable[ViewSequence], device: torch.device) -> Iterator[ViewSequence]:
    """Makes the next batch on a stream of its own while the model works on this one: copies it, or lets the loader make
    it there if that works on the device itself."""
    # What is made ahead goes first: kernels of the model's would keep it waiting until the model waits for it.
    stream, iterator = torch.cuda.Stream(device, priority=-1), iter(batches)
    current = torch.cuda.current_stream(device)
    ahead: ViewSequence | None = None
    while True:
        with torch.cuda.stream(stream):
            seq = next(iterator, None)
            moved = None if seq is None else seq.to(device, non_blocking=True)
            made = stream.record_event()
        if ahead is not None:
            yield ahead
        if moved is None:
            return
        current.wait_event(made)
        for tensor in (moved.views, moved.actions, moved.params, moved.labels):
            tensor.record_stream(current)
        # It was copied while `ahead` was being queued; the loader may have its slot back only when that has ended.
        if seq is not None and seq.views.device.type == "cpu":
            made.synchronize()
        ahead = moved


def require_cuda() -> None:
    """Raises ConfigError without a CUDA device."""
    if not torch.cuda.is_available():
        raise ConfigError("pinned memory needs a CUDA device and there is none; use the device cpu")


def pin(memory: np.ndarray) -> weakref.finalize:
    """Page-lock existing memory. Calling the result undoes it; so does the end of `memory`."""
    cudart: Any = torch.cuda.cudart()
    address = memory.ctypes.data
    status = cudart.cudaHostRegister(address, memory.nbytes, 0)
    if status != cudart.cudaError.success:
        raise FailureError(
            f"cannot page-lock {memory.nbytes / 2**20:.0f} MiB for the loader ({status}); "
            "use fewer workers, a smaller batch, or set train.pin_memory=false"
        )
    return weakref.finalize(memory, cudart.cudaHostUnregister, address)


class Retirement:
    """Slots whose batch is no longer needed by Python but may still be read by a copy to the device.

    A copy with non_blocking=True returns before it is done. So a slot is given back to the workers only when the work
    that was queued on the device's current stream at that time has finished; at most one slot waits.

    device: to which slots are copied so, which need not be the current one; None: to none.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device
        self._waiting: deque[tuple[int, torch.cuda.Event]] = deque()

    def retire(self, slot: int) -> list[int]:
        """Hand in a slot; returns the slots that are free now."""
        if self._device is None:
            return [slot]
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        self._waiting.append((slot, event))
        done = []
        while self._waiting and (len(self._waiting) > 1 or self._waiting[0][1].query()):
            slot, event = self._waiting.popleft()
            event.synchronize()
            done.append(slot)
        return done
