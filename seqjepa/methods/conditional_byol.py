"""Conditional BYOL: view 1 and the action predict view 2 (paper §3.1, §A.3).

seq-JEPA with two views and without an aggregator, and with BYOL's projector.
"""

from __future__ import annotations

from torch import Tensor

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.methods.byol import PREDICTOR_HIDDEN, PROJECTOR
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import MovingAverage
from seqjepa.models.heads import ActionEmbedding, ActionPredictor, build_predictor, projection


class ConditionalBYOL(MovingAverage, Method):
    """Online encoder f and projector p, moving averages f̄ and p̄, predictor with an action embedding.

    ConfigError: see build_backbone and projection.
    """

    display_name = "Conditional BYOL"
    uses_actions = True
    settings = ("model.action_dim", "model.predictor_hidden", "optim.ema_tau")

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model, fidelity = config.model, config.fidelity
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.start_averages(config.optim.ema_tau, "encoder", "projector")
        hidden = model.predictor_hidden or PREDICTOR_HIDDEN[fidelity]
        embedding = ActionEmbedding(action_size, model.action_dim)
        self.predictor = ActionPredictor(embedding, build_predictor(model.action_dim + width, hidden, width))

    def step(self, seq: ViewSequence) -> StepOutput:
        """2 − 2 cos(ŷ₂, ȳ₂), one direction: views float [B, 2, C, H, W], actions [B, 1, A]. features: "z" [B, 1, D]."""
        first, second = seq.views.unbind(1)
        z = self.embed(first)
        prediction = self.predict(self.project(z), seq.actions[:, 0])
        return StepOutput(2 * cosine_loss(prediction, self.embed_target(second)), features=by_view(z))

    def project(self, z: Tensor) -> Tensor:
        """Online embeddings: z [B, D] → y [B, P]."""
        return self.projector(z)

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [B, P] of the view that `action` [B, A] leads to, from y [B, P]."""
        return self.predictor(y, action)
