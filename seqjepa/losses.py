"""Losses as pure functions of tensors. B batch, D feature width."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 − cos(prediction, target) over the batch: float32 scalar in [0, 2] (paper eq. 5, SPEC A.6).

    prediction, target: [B, D], any float type; computed in at least float32. The caller stops the target's gradient.
    """
    if prediction.dtype != target.dtype or prediction.dtype.itemsize < 4:
        prediction, target = prediction.float(), target.float()
    return (1.0 - F.cosine_similarity(prediction, target, dim=1, eps=1e-8)).mean()
