"""Actions of augmented views, from their parameters in the order in which they are recorded."""

from __future__ import annotations

import torch
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_COLUMNS, actions_between
from seqjepa.data.augment.parameters import Scaling, scaled


def augmentation_actions(params: Tensor, kind: str, scaling: Scaling | None) -> Tensor:
    """params float32 [B, T, 9] → [B, T-1, A]."""
    return torch.from_numpy(actions_between(params.numpy(), AUGMENTATION_COLUMNS, scaled(kind, scaling)))
