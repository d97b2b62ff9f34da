"""The target encoder as a moving average of the online one (paper §2.2, §A.3)."""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
from torch import nn

from seqjepa.config import Fidelity

Module = TypeVar("Module", bound=nn.Module)


def frozen_copy(module: Module) -> Module:
    """A deep copy whose parameters take no gradient. It follows train() and eval() like any other module."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_average(target: nn.Module, online: nn.Module, tau: float) -> None:
    """θ̄ ← τ θ̄ + (1 − τ) θ for every parameter; running statistics stay the target's own (docs/fidelity.md #7)."""
    lerp = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]  one fused kernel; no public name
    lerp(list(target.parameters()), list(online.parameters()), 1.0 - tau)


def cosine_tau(base: float, progress: float) -> float:
    """τ rising from `base` at progress 0 to 1 at progress 1 along half a cosine (BYOL's schedule)."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


def schedule_progress(step: int, steps_per_epoch: int, epochs: int, fidelity: Fidelity) -> float:
    """What `Method.after_step` is given after optimizer step `step` (counted from 1): progress in [0, 1].

    paper   every step: step / all steps
    author  once an epoch and one step late, because the released loop assigns τ after the update: the first step of
            an epoch still has the value of the epoch before (docs/fidelity.md #6)
    """
    if fidelity == "paper":
        return step / (steps_per_epoch * epochs)
    return max(step - 2, 0) // steps_per_epoch / epochs
