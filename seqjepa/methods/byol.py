"""BYOL: each view predicts the other's embedding by a moving average of the network (arXiv 2006.07733; paper §A.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqjepa.config import Fidelity, ModelConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import cosine_tau, frozen_copy, update_average
from seqjepa.models.heads import build_predictor, projection

PROJECTOR: dict[Fidelity, tuple[int, ...]] = {"paper": (2048, 2048, 2048), "author": (2048, 128)}
PREDICTOR_HIDDEN: dict[Fidelity, int] = {"paper": 512, "author": 2048}


class BYOL(nn.Module):
    """Online encoder f, projector p and predictor q; moving averages f̄ and p̄. Actions are not looked at.

    ema_tau  τ at the start of training; see `after_step`. ConfigError: see build_backbone and projection.
    """

    views_needed: int | None = 2

    def __init__(self, model: ModelConfig, fidelity: Fidelity = "paper", ema_tau: float = 0.996) -> None:
        super().__init__()
        self.ema_tau = ema_tau
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.target_encoder, self.target_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        self.predictor = build_predictor(width, model.predictor_hidden or PREDICTOR_HIDDEN[fidelity], width)

    def step(self, seq: ViewSequence) -> StepOutput:
        """Sum of 2 − 2 cos(q(y), ȳ') over the two directions, views float [B, 2, C, H, W]. features: "z" [B, 2, D].

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:1234-1236).
        """
        first, second = seq.views.unbind(1)
        z1, z2 = self.embed(first), self.embed(second)
        forward = cosine_loss(self.predictor(self.projector(z1)), self.embed_target(second))
        backward = cosine_loss(self.predictor(self.projector(z2)), self.embed_target(first))
        return StepOutput(2 * (forward + backward), features=by_view(z1, z2))

    def embed(self, views: Tensor) -> Tensor:
        """Features z of the online encoder, before the projector: [B, C, H, W] → [B, D]."""
        return self.encoder(views)

    @torch.no_grad()
    def embed_target(self, views: Tensor) -> Tensor:
        """Embeddings ȳ of the target branch, without a graph: [B, C, H, W] → [B, P]."""
        return self.target_projector(self.target_encoder(views))

    def after_step(self, progress: float) -> None:
        """Move both averages with τ(progress), over parameters only."""
        tau = cosine_tau(self.ema_tau, progress)
        update_average(self.target_encoder, self.encoder, tau)
        update_average(self.target_projector, self.projector, tau)
