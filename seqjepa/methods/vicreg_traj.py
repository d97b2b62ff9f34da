"""VICRegTraj: VICReg on two of three views, whose embeddings should follow a straight line (paper §A.3)."""

from __future__ import annotations

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import trajectory_loss, vicreg_loss
from seqjepa.methods.base import StepOutput, detached, fold
from seqjepa.methods.vicreg import VICReg
from seqjepa.models.distributed import all_rows

TRAJECTORY: dict[Fidelity, float] = {"paper": 0.01, "author": 1.0}


class VICRegTraj(VICReg):
    """VICReg's encoder and projector; actions are not looked at.

    fidelity  "paper" measures the straightness of embeddings of length 1, "author" of embeddings as they are
    """

    display_name = "VICRegTraj"
    views_needed = 3

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        self.trajectory = TRAJECTORY[config.fidelity]
        self.normalised = config.fidelity == "paper"

    def step(self, seq: ViewSequence) -> StepOutput:
        """VICReg(l, c) + α · trajectory(l, c, r), views l, c, r float [B, 3, C, H, W]. features: "z" [B, 3, D].

        The three views are one batch to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:1437-1440).
        """
        z = self.embed(fold(seq.views))
        left, centre, right = all_rows(*self.projector(z).unflatten(0, (-1, 3)).unbind(1))
        bend = trajectory_loss(left, centre, right, self.normalised)
        loss = vicreg_loss(left, centre, self.weights) + self.trajectory * bend
        return StepOutput(loss, features={"z": detached(z).unflatten(0, (-1, 3))})
