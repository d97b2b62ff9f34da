"""SEN: view 1 and the action find view 2 among all embeddings of the batch (paper §A.3)."""

from __future__ import annotations

from torch import Tensor

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import nt_xent
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.methods.simclr import PROJECTOR, TEMPERATURE
from seqjepa.models.backbone import build_backbone
from seqjepa.models.distributed import all_rows
from seqjepa.models.heads import ActionEmbedding, ActionPredictor, build_linear_predictor, projection


class SEN(Method):
    """Encoder f, projector and a linear predictor with an action embedding; no invariance term.

    ConfigError: see build_backbone and projection.
    """

    display_name = "SEN"
    uses_actions = True
    settings = ("model.action_dim",)

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model = config.model
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR)
        embedding = ActionEmbedding(action_size, model.action_dim)
        self.predictor = ActionPredictor(embedding, build_linear_predictor(model.action_dim + width, width))

    def step(self, seq: ViewSequence) -> StepOutput:
        """NT-Xent(ŷ₂, y₂): views float [B, 2, C, H, W], actions [B, 1, A]. features: "z" [B, 2, D], detached.

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:811-813).
        """
        z1, z2 = self.each(self.embed, *seq.views.unbind(1))
        y1, y2 = self.each(self.project, z1, z2)
        predicted, y2 = all_rows(self.predict(y1, seq.actions[:, 0]), y2)
        return StepOutput(nt_xent(predicted, y2, TEMPERATURE), features=by_view(z1, z2))

    def project(self, z: Tensor) -> Tensor:
        """z [B, D] → y [B, P]."""
        return self.projector(z)

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [B, P] of the view that `action` [B, A] leads to, from y [B, P]."""
        return self.predictor(y, action)
