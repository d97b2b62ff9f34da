"""embed(): views → frozen features, in passes of a bounded size; and eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from seqjepa.data.sequence import VECTORS, normalise

PixelStats = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, for pixels in [0, 1]."""

GPU_PIXELS_PER_PASS = 2**23  # 8,192 patches of 32×32: activations of a ResNet-18's first layer take 2 GB
CPU_PIXELS_PER_PASS = 2**16  # 64 patches, for each thread: twice as fast as 512, whose activations leave the cache


class Embedding(Protocol):
    """What turns normalised pixels into features: a method, or one branch of it."""

    def embed(self, views: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D]."""
        ...


@torch.inference_mode()
def embed(method: Embedding, views: Tensor, pixel_stats: PixelStats, fewest: int = 1) -> Tensor:
    """Views, uint8 or float in 0…255 [n, C, H, W], on the model's device → z float32 [n, D]. Features [n, D] are z.

    fewest: views that a pass has for each thread at least, however large they are.
    """
    if views.ndim == VECTORS:
        return method.embed(views).float()
    per_pass = max(views_per_pass(views.device, *views.shape[-2:]), fewest * torch.get_num_threads())
    passes = views.split(per_pass)
    return torch.cat([method.embed(normalise(part, *pixel_stats)).float() for part in passes])


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode, and afterwards each part as it was: some may be in eval mode for good."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def views_per_pass(device: torch.device, height: int, width: int) -> int:
    """How many views go through the encoder at once."""
    pixels = GPU_PIXELS_PER_PASS if device.type == "cuda" else CPU_PIXELS_PER_PASS * torch.get_num_threads()
    return max(1, pixels // (height * width))
