"""EquiMod on SimCLR: one head for what two views share, one for how the action moves them apart (paper §A.3)."""

from __future__ import annotations

from torch import Tensor

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import nt_xent
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.distributed import all_rows
from seqjepa.models.heads import ActionEmbedding, ActionPredictor, build_linear_predictor, projection

PROJECTOR = (1024, 1024, 128)
TEMPERATURE: dict[Fidelity, float] = {"paper": 0.1, "author": 0.5}


class EquiMod(Method):
    """Encoder f, an invariant and an equivariant projector, a linear predictor with an action embedding.

    fidelity: the temperature of both terms. ConfigError: see build_backbone and projection.
    """

    display_name = "EquiMod"
    uses_actions = True
    settings = ("model.action_dim",)

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model = config.model
        self.temperature = TEMPERATURE[config.fidelity]
        self.encoder, features = build_backbone(model)
        self.invariant_projector, _ = projection(features, model, PROJECTOR)
        self.equivariant_projector, width = projection(features, model, PROJECTOR)
        embedding = ActionEmbedding(action_size, model.action_dim)
        self.predictor = ActionPredictor(embedding, build_linear_predictor(model.action_dim + width, width))

    def step(self, seq: ViewSequence) -> StepOutput:
        """NT-Xent of the invariant embeddings plus NT-Xent(ŷ₂, y₂) of the equivariant ones, equal weights.

        views float [B, 2, C, H, W], actions [B, 1, A]. features: "z" [B, 2, D], detached. Each view is a batch of its
        own to batch norm, as in SimCLR.
        """
        z1, z2 = self.each(self.embed, *seq.views.unbind(1))
        invariant, (y1, y2) = (self.each(project, z1, z2) for project in (self.invariant_projector, self.project))
        shared1, shared2, predicted, y2 = all_rows(*invariant, self.predict(y1, seq.actions[:, 0]), y2)
        loss = nt_xent(shared1, shared2, self.temperature) + nt_xent(predicted, y2, self.temperature)
        return StepOutput(loss, features=by_view(z1, z2))

    def project(self, z: Tensor) -> Tensor:
        """Equivariant embeddings: z [B, D] → y [B, P]."""
        return self.equivariant_projector(z)

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [B, P] of the view that `action` [B, A] leads to, from the equivariant y [B, P]."""
        return self.predictor(y, action)
