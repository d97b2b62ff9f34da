"""Conv-JEPA: each earlier view predicts the last one, given the action between the two (paper §3.1).

What seq-JEPA is without its aggregator: M separate predictions instead of one. Shape letters: B batch, M context views,
A action size, D features, P projections, E action embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqjepa.config import Fidelity, ModelConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import StepOutput, detached, fold
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import cosine_tau, frozen_copy, update_average
from seqjepa.models.heads import ActionEmbedding, build_predictor, projection

# Layer widths of the projector. The paper gives none for Conv-JEPA: "paper" takes those that it gives for BYOL, its
# other method with a moving average and a projector. "author" is as released.
PROJECTOR: dict[Fidelity, tuple[int, ...]] = {"paper": (2048, 2048, 2048), "author": (2048, 128)}
PREDICTOR_HIDDEN = 1024


class ConvJEPA(nn.Module):
    """Online encoder f and projector p, their moving averages f̄ and p̄, action embedding and predictor.

    action_size  A
    rotations    whether the first four values are relative quaternions, which multiply (`to_last`); all others add up
    fidelity     the projector's widths where `model.projector` is empty
    ema_tau      τ at the start of training; see `after_step`

    `model.condition` "both" and "predictor" show the predictor the action, "aggregator" and "none" do not; what is set
    for the aggregator has no effect. ConfigError: see build_backbone.
    """

    views_needed: int | None = None

    def __init__(
        self,
        model: ModelConfig,
        action_size: int,
        fidelity: Fidelity = "paper",
        ema_tau: float = 0.996,
        rotations: bool = False,
    ) -> None:
        super().__init__()
        self.ema_tau = ema_tau
        self.rotations = rotations
        self.conditioned = model.condition in ("both", "predictor")
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.target_encoder, self.target_projector = frozen_copy(self.encoder), frozen_copy(self.projector)
        if self.conditioned:
            self.action_embedding = ActionEmbedding(action_size, model.action_dim)
        inputs = width + (model.action_dim if self.conditioned else 0)
        self.predictor = build_predictor(inputs, model.predictor_hidden or PREDICTOR_HIDDEN, width)

    def step(self, seq: ViewSequence) -> StepOutput:
        """Loss of B sequences, views float [B, M + 1, C, H, W], actions [B, M, A], M ≥ 1: mean over the B·M pairs.

        The paper sums over a sequence's pairs, the released code takes the mean (docs/fidelity.md #54); the gradients
        differ by the factor M, which Adam takes out again. features: "z" [B, M, D], detached.
        """
        z = self.embed(fold(seq.views[:, :-1]))
        prediction = self.predict(self.project(z), to_last(seq.actions, self.rotations).flatten(0, 1))
        target = self.embed_target(seq.views[:, -1])
        M = seq.actions.shape[1]
        loss = cosine_loss(prediction, target.repeat_interleave(M, dim=0))
        return StepOutput(loss, features={"z": detached(z).unflatten(0, (-1, M))})

    def embed(self, views: Tensor) -> Tensor:
        """Features z of the online encoder, before the projector: [B, C, H, W] → [B, D]."""
        return self.encoder(views)

    def project(self, z: Tensor) -> Tensor:
        """Projections y of the online branch: z [B, D] → [B, P]."""
        return self.projector(z)

    @torch.no_grad()
    def embed_target(self, views: Tensor) -> Tensor:
        """Projections ȳ of the target branch, without a graph: [B, C, H, W] → [B, P].

        In train mode it normalises with this batch's statistics and moves its own running ones (docs/fidelity.md #7).
        """
        return self.target_projector(self.target_encoder(views))

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [K, P] of the views that actions [K, A] lead to, from projections y [K, P]: predictor([e ; y])."""
        if not self.conditioned:
            return self.predictor(y)
        return self.predictor(torch.cat((self.action_embedding(action).to(y.dtype), y), dim=-1))

    def after_step(self, progress: float) -> None:
        """Move both averages with τ(progress), over parameters only."""
        tau = cosine_tau(self.ema_tau, progress)
        update_average(self.target_encoder, self.encoder, tau)
        update_average(self.target_projector, self.projector, tau)


def to_last(actions: Tensor, rotations: bool = False) -> Tensor:
    """Actions [B, M, A] between neighbours → actions [B, M, A] from each view to the last.

    Differences add up to Σ_{j ≥ i} a_j. Relative quaternions, the first four values where there are rotations, multiply
    to a_i ⊗ … ⊗ a_M = conj(q_i) ⊗ q_{M+1}, sign included.
    """
    sums = actions.flip(1).cumsum(1).flip(1)
    if not rotations:
        return sums
    products = [actions[:, -1, :4]]
    for step in actions[:, :-1, :4].flip(1).unbind(1):
        products.append(hamilton(step, products[-1]))
    return torch.cat((torch.stack(products[::-1], dim=1), sums[..., 4:]), dim=-1)


def hamilton(a: Tensor, b: Tensor) -> Tensor:
    """Product a ⊗ b of quaternions [..., 4] (x, y, z, w)."""
    (av, aw), (bv, bw) = (q.split((3, 1), dim=-1) for q in (a, b))
    vector = aw * bv + bw * av + torch.linalg.cross(av, bv)
    return torch.cat((vector, aw * bw - (av * bv).sum(-1, keepdim=True)), dim=-1)
