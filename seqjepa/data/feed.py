"""From a loader's batches to normalised views on the device, one batch ahead of the model where that is a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from seqjepa.data.sequence import ViewSequence, normalise


def feed(
    batches: Iterable[ViewSequence],
    device: torch.device,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    channels_last: bool = True,
) -> Iterator[ViewSequence]:
    """Batches with values in 0..255, on the host or on `device` already → float32 batches on `device`.

    mean, std: per channel, for pixels in [0, 1]. A loader may reuse a batch's memory as soon as the next one is asked
    for; what is yielded here does not alias it in its views, and on a GPU in nothing that came from the host.
    """
    moved = _made_ahead(batches, device) if device.type == "cuda" else batches
    mean_t, std_t = (torch.tensor(v, dtype=torch.float32, device=device) for v in (tuple(mean), tuple(std)))
    for seq in moved:
        views = normalise(seq.views, mean_t, std_t)
        yield replace(seq, views=views if channels_last else views.contiguous())


def _made_ahead(batches: Iterable[ViewSequence], device: torch.device) -> Iterator[ViewSequence]:
    """Makes the next batch on a stream of its own while the model works on this one: copies it, or lets the loader make
    it there if that works on the device itself."""
    stream, iterator = torch.cuda.Stream(device), iter(batches)
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
        # It was made while `ahead` was being queued; the loader may have its slot back only when that has ended.
        made.synchronize()
        ahead = moved
