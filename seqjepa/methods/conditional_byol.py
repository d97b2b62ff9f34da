"""Conditional BYOL: view 1 and the action predict view 2 (paper §3.1, §A.3).

seq-JEPA with two views and without an aggregator, and with BYOL's projector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqjepa.config import Fidelity, ModelConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import StepOutput, by_view
from seqjepa.methods.byol import PREDICTOR_HIDDEN, PROJECTOR
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import cosine_tau, frozen_copy, update_average
from seqjepa.models.heads import ActionEmbedding, ActionPredictor, build_predictor, projection


class ConditionalBYOL(nn.Module):
    """Online encoder f and projector p, moving averages f̄ and p̄, predictor with an action embedding.

    action_size  A. ema_tau  τ at the start of training. ConfigError: see build_backbone and projection.
    """

    views_needed: int | None = 2

    def __init__(
        self, model: ModelConfig, action_size: int, fidelity: Fidelity = "paper", ema_tau: float = 0.996
    ) -> None:
        super().__init__()
        self.ema_tau = ema_tau
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.target_encoder, self.target_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        hidden = model.predictor_hidden or PREDICTOR_HIDDEN[fidelity]
        embedding = ActionEmbedding(action_size, model.action_dim)
        self.predictor = ActionPredictor(embedding, build_predictor(model.action_dim + width, hidden, width))

    def step(self, seq: ViewSequence) -> StepOutput:
        """2 − 2 cos(ŷ₂, ȳ₂), one direction: views float [B, 2, C, H, W], actions [B, 1, A]. features: "z" [B, 1, D]."""
        first, second = seq.views.unbind(1)
        z = self.embed(first)
        prediction = self.predict(self.project(z), seq.actions[:, 0])
        return StepOutput(2 * cosine_loss(prediction, self.embed_target(second)), features=by_view(z))

    def embed(self, views: Tensor) -> Tensor:
        """Features z of the online encoder, before the projector: [B, C, H, W] → [B, D]."""
        return self.encoder(views)

    def project(self, z: Tensor) -> Tensor:
        """Online embeddings: z [B, D] → y [B, P]."""
        return self.projector(z)

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [B, P] of the view that `action` [B, A] leads to, from y [B, P]."""
        return self.predictor(y, action)

    @torch.no_grad()
    def embed_target(self, views: Tensor) -> Tensor:
        """Embeddings ȳ of the target branch, without a graph: [B, C, H, W] → [B, P]."""
        return self.target_projector(self.target_encoder(views))

    def after_step(self, progress: float) -> None:
        """Move both averages with τ(progress), over parameters only."""
        tau = cosine_tau(self.ema_tau, progress)
        update_average(self.target_encoder, self.encoder, tau)
        update_average(self.target_projector, self.projector, tau)
