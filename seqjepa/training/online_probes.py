"""Two small probes that learn beside the method and never touch it: inputs detached, an optimizer of their own.

They show how a run is going. The numbers that count come from `seqjepa evaluate` (frozen features, held-out objects).
Shape letters: B batch, V views that went through the online encoder, D and W widths of z and z_AGG, A action size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.data.sequence import ViewSequence
from seqjepa.training.distributed import World, average_gradients

HIDDEN = 1024
LEARNING_RATE = 1e-3  # Adam's default (docs/fidelity.md #33)


class OnlineProbes:
    """Class from z_AGG (linear) and action from the first two views' z (one hidden layer).

    widths: shapes of the method's features. Without classes there is no classifier, with a single view no regressor;
    without z_AGG the classifier sees z of the first view. `enabled=False` leaves out both.
    """

    def __init__(
        self,
        widths: dict[str, torch.Size],
        classes: int,
        action_size: int,
        device: torch.device | str = "cpu",
        enabled: bool = True,
    ):
        self.pooled = "z_agg" if "z_agg" in widths else "z"
        self.heads = nn.ModuleDict()
        _, V, D = widths["z"]
        if enabled and classes:
            self.heads["class"] = nn.Linear(widths[self.pooled][-1], classes)
        if enabled and V >= 2:
            layers = (nn.Linear(2 * D, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, action_size))
            self.heads["action"] = nn.Sequential(*layers)
        self.heads.to(device)
        self.optimizer = torch.optim.Adam(self.heads.parameters(), lr=LEARNING_RATE) if self.heads else None

    def learn(self, features: dict[str, Tensor], seq: ViewSequence, world: World) -> dict[str, Tensor]:
        """One step. Returns sums over the batch from before it: "labelled", "correct" [], "sq_err", "y", "y_sq" [A].

        A batch is scored before the probes learn from it, so the scores are not those of a fit to itself.
        """
        if self.optimizer is None:
            return {}
        losses, sums = [], {}
        if "class" in self.heads:
            losses.append(self._classify(features[self.pooled], seq.labels, sums))
        if "action" in self.heads:
            losses.append(self._regress(features["z"], seq.actions[:, 0], sums))
        torch.stack(losses).sum().backward()
        average_gradients(world, self.heads)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return sums

    def _classify(self, pooled: Tensor, labels: Tensor, sums: dict[str, Tensor]) -> Tensor:
        pooled = pooled.detach().float()
        logits = self.heads["class"](pooled if pooled.ndim == 2 else pooled[:, 0])
        labelled = (labels >= 0).sum()
        sums |= {"labelled": labelled, "correct": (logits.argmax(1) == labels).sum()}
        return F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / labelled.clamp(min=1)

    def _regress(self, z: Tensor, actions: Tensor, sums: dict[str, Tensor]) -> Tensor:
        error = (self.heads["action"](z[:, :2].detach().float().flatten(1)) - actions).square()
        sums |= {"sq_err": error.detach().sum(0), "y": actions.sum(0), "y_sq": actions.square().sum(0)}
        return error.mean()

    def state_dict(self) -> dict[str, Any]:
        return {"heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict() if self.optimizer else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.heads.load_state_dict(state["heads"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


def scores(sums: dict[str, Tensor], rows: float) -> dict[str, float]:
    """Summed scores of `rows` sequences → {"probe_top1" in 0..1, "probe_r2": mean over A of 1 − error / variance}."""
    found = {}
    if sums["labelled"] > 0:
        found["probe_top1"] = float(sums["correct"] / sums["labelled"])
    spread = sums["y_sq"] - sums["y"].square() / max(rows, 1)
    varies = spread > 1e-12 * rows
    if varies.any():
        found["probe_r2"] = float((1 - sums["sq_err"][varies] / spread[varies]).mean())
    return found
