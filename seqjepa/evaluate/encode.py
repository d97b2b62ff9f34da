"""Pixels through the frozen encoder, in passes of a bounded size, and the room that their features are kept in."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.sequence import normalise

PixelStats = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, for pixels in [0, 1]."""

FULL_PRECISION_BYTES = 2 * 2**30
GPU_PIXELS_PER_PASS = 2**23  # 8,192 patches of 32×32: activations of a ResNet-18's first layer take 2 GB
CPU_PIXELS_PER_PASS = 2**16  # 64 patches, for each thread: twice as fast as 512, whose activations leave the cache


class Embedding(Protocol):
    """What turns normalised pixels into features: a method, or one branch of it."""

    def embed(self, views: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D]."""
        ...


@torch.inference_mode()
def embed(method: Embedding, views: Tensor, pixel_stats: PixelStats) -> Tensor:
    """Views, uint8 or float in 0…255 [n, C, H, W], on the model's device → z float32 [n, D]."""
    passes = views.split(views_per_pass(views.device, *views.shape[-2:]))
    return torch.cat([method.embed(normalise(part, *pixel_stats)).float() for part in passes])


def views_per_pass(device: torch.device, height: int, width: int) -> int:
    """How many views go through the encoder at once."""
    pixels = GPU_PIXELS_PER_PASS if device.type == "cuda" else CPU_PIXELS_PER_PASS * torch.get_num_threads()
    return max(1, pixels // (height * width))


def room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Zeros for features, float32, or float16 beyond 2 GiB; on a GPU as long as they leave half of what is free.

    Made outside inference mode, so that a probe's backward pass may read what is put there.
    """
    dtype = torch.float32 if 4 * np.prod(shape, dtype=np.int64) <= FULL_PRECISION_BYTES else torch.float16
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fits = device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] // 2
    return torch.zeros(shape, dtype=dtype, device=device if fits else "cpu")
