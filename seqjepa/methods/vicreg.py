"""VICReg: two views' embeddings agree, each dimension varies, no two vary together (arXiv 2105.04906; paper §A.3)."""

from __future__ import annotations

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import VicWeights, vicreg_loss
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.distributed import all_rows
from seqjepa.models.heads import build_expander, projection

PROJECTOR = (2048, 2048, 2048)
WEIGHTS: dict[Fidelity, VicWeights] = {"paper": VicWeights(10.0, 10.0, 1.0), "author": VicWeights(25.0, 25.0, 1.0)}


class VICReg(Method):
    """Encoder f and projector; actions are not looked at. ConfigError: see build_backbone and projection."""

    display_name = "VICReg"

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model, fidelity = config.model, config.fidelity
        self.weights = WEIGHTS[fidelity]
        self.encoder, features = build_backbone(model)
        self.projector, _ = projection(features, model, PROJECTOR, build_expander)

    def step(self, seq: ViewSequence) -> StepOutput:
        """VICReg's loss of B pairs, views float [B, 2, C, H, W]. features: "z" [B, 2, D], detached.

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:1325-1327).
        """
        z1, z2 = self.each(self.embed, *seq.views.unbind(1))
        y1, y2 = all_rows(*self.each(self.projector, z1, z2))
        return StepOutput(vicreg_loss(y1, y2, self.weights), features=by_view(z1, z2))
