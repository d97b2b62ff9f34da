"""Where autocast must not round: sums over many rows, and numbers whose digits are data."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast on `device`. The meta device, on which flops.py counts, has none to begin with."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """`x` itself where it is float32 or float64, else in float32."""
    return x.float() if x.dtype.itemsize < 4 else x
