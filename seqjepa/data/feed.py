"""From a loader's bytes to normalised views on the device, one batch ahead of the model where that is a GPU."""

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
    """uint8 batches on the host → float32 batches on `device`.

    mean, std: per channel, for pixels in [0, 1]. A loader may reuse a batch's memory as soon as the next one is asked
    for; what is yielded here does not alias it in its views, and on a GPU in nothing.
    """
    moved = _copied_ahead(batches, device) if device.type == "cuda" else batches
    mean_t, std_t = (torch.tensor(v, dtype=torch.float32, device=device) for v in (tuple(mean), tuple(std)))
    for seq in moved:
        views = normalise(seq.views, mean_t, std_t)
        yield replace(seq, views=views if channels_last else views.contiguous())


def _copied_ahead(batches: Iterable[ViewSequence], device: torch.device) -> Iterator[ViewSequence]:
    """Copies the next batch on a stream of its own while the model works on this one."""
    stream = torch.cuda.Stream(device)
    current = torch.cuda.current_stream(device)
    ahead: ViewSequence | None = None
    for seq in batches:
        with torch.cuda.stream(stream):
            moved = seq.to(device, non_blocking=True)
            copied = stream.record_event()
        if ahead is not None:
            yield ahead
        current.wait_event(copied)
        for tensor in (moved.views, moved.actions, moved.params, moved.labels):
            tensor.record_stream(current)
        # The copy ran while `ahead` was being queued; the loader may have its slot back only when it has ended.
        copied.synchronize()
        ahead = moved
    if ahead is not None:
        yield ahead
