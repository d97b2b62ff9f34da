"""Small turns that methods make with their tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from seqjepa.models.precision import at_least_float32


def fold(views: Tensor) -> Tensor:
    """[B, M, C, H, W] → [B·M, C, H, W] with at most one copy, which keeps channels last where they were last."""
    if views.stride(2) == 1:
        return views.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)
    return views.flatten(0, 1)


def detached(features: Tensor) -> Tensor:
    """Features for StepOutput: without a graph, in float32 or wider."""
    return at_least_float32(features.detach())


def by_view(*z: Tensor) -> dict[str, Tensor]:
    """StepOutput's features of a method that encodes its views one by one: [B, D] each → {"z": [B, V, D]}, detached."""
    return {"z": detached(torch.stack(z, dim=1))}
