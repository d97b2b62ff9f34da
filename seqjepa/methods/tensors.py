"""Two small turns that every method makes with its tensors."""

from __future__ import annotations

from torch import Tensor


def fold(views: Tensor) -> Tensor:
    """[B, M, C, H, W] → [B·M, C, H, W] with at most one copy, which keeps channels last where they were last."""
    if views.stride(2) == 1:
        return views.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)
    return views.flatten(0, 1)


def detached(features: Tensor) -> Tensor:
    """Features for StepOutput: without a graph, in float32 or wider."""
    features = features.detach()
    return features.float() if features.dtype.itemsize < 4 else features
