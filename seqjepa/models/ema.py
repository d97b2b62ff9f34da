"""Target networks that are moving averages of the networks being trained (paper §2.2, §A.3)."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from torch import Tensor, nn

from seqjepa.config import Fidelity
from seqjepa.data.sequence import VECTORS


class MovingAverage(nn.Module):
    """Mixin for methods: the module keeps moving averages of some of its own parts and encodes targets with them.

    The average of the part `encoder` is the submodule `target_encoder`. Its parameters take no gradient; it follows
    train() and eval() like any other module. An encoder that is frozen (model.freeze) is its own target: no copy.
    """

    freezes_encoder: bool = False

    def start_averages(self, tau: float, *parts: str) -> None:
        """Copy each part as it is now. tau: τ at progress 0. `embed_target` applies the parts in this order."""
        self.ema_tau, self.averaged_parts = tau, parts
        for part in self.moving_parts:
            setattr(self, f"target_{part}", copy.deepcopy(getattr(self, part)).requires_grad_(False))

    @property
    def moving_parts(self) -> tuple[str, ...]:
        """The parts that have an average of their own."""
        return tuple(part for part in self.averaged_parts if part != "encoder" or not self.freezes_encoder)

    @torch.no_grad()
    def restart_averages(self) -> None:
        """Every average as its part is now, buffers too."""
        for part in self.moving_parts:
            getattr(self, f"target_{part}").load_state_dict(getattr(self, part).state_dict())

    @torch.no_grad()
    def embed_target(self, views: Tensor) -> Tensor:
        """What the averages make of views, without a graph: [B, C, H, W] → [B, P], P the width of the last part.

        In train mode they normalise with this batch's statistics and move their own running ones (docs/fidelity.md #7).
        """
        for part in self.averaged_parts:
            if part == "encoder" and views.ndim == VECTORS:
                continue  # of a set of features: what the encoder, its own target, made of them
            views = getattr(self, f"target_{part}" if part in self.moving_parts else part)(views)
        return views

    def after_step(self, progress: float) -> None:
        """Move every average with τ(progress); see update_average."""
        self.move_averages(self.share_at(progress))

    def share_at(self, progress: float) -> float:
        """1 − τ"""
        return 1.0 - cosine_tau(self.ema_tau, progress)

    def move_averages(self, share: float | Tensor) -> None:
        """See update_average."""
        for part in self.moving_parts:
            update_average(getattr(self, f"target_{part}"), getattr(self, part), share)


@torch.no_grad()
def update_average(target: nn.Module, online: nn.Module, share: float | Tensor) -> None:
    """θ̄ ← θ̄ + share (θ − θ̄), share = 1 − τ, for every parameter; running statistics stay the target's own
    (docs/fidelity.md #7).

    share: a number, or float32 [] on the parameters' device, which a CUDA graph reads anew each time.
    """
    averages, weights = list(target.parameters()), list(online.parameters())
    # A kernel each, of which torch has no public names.
    if isinstance(share, Tensor):
        # Only optimizers read such a number in their kernel. SGD: θ̄ ← θ̄ − share g, with g = −θ (maximize) + θ̄ (decay).
        # By its whole name: torch would first try to make a float of it, which reads the value and ends a capture.
        decays = {"weight_decay": 1.0, "momentum": 0.0, "dampening": 0.0}
        flags = {"nesterov": False, "maximize": True, "is_first_step": False}
        torch.ops.aten._fused_sgd_.tensor_lr(averages, weights, [], lr=share, **decays, **flags)
    else:
        torch.ops.aten._foreach_lerp_(averages, weights, share)


def cosine_tau(base: float, progress: float) -> float:
    """τ rising from `base` at progress 0 to 1 at progress 1 along half a cosine (BYOL's schedule)."""
    return 1.0 - (1.0 - base) * (math.cos(math.pi * progress) + 1.0) / 2.0


def schedule_progress(
    step: int, steps_per_epoch: int, epochs: int, fidelity: Fidelity, update: Literal["auto", "step", "epoch"] = "auto"
) -> float:
    """What `Method.after_step` is given after optimizer step `step` (counted from 1): progress in [0, 1].

    epochs: of the schedule. update: as of one fidelity, whichever the run's is ("auto": by it).
    paper, step    every step: step / all steps
    author, epoch  once an epoch and one step late, because the released loop assigns τ after the update: the first step
                   of an epoch still has the value of the epoch before (docs/fidelity.md #6)
    """
    if update == "step" or (update == "auto" and fidelity == "paper"):
        return min(step / (steps_per_epoch * epochs), 1.0)
    return min(max(step - 2, 0) // steps_per_epoch / epochs, 1.0)
