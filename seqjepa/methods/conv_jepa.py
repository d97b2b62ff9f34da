"""Conv-JEPA: each earlier view predicts the last one, given the action between the two (paper §3.1).

What seq-JEPA is without its aggregator: M separate predictions instead of one. Shape letters: B batch, M context views,
A action size, D features, P projections, E action embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import Method, StepOutput, begins_with_quaternion, detached, fold
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import MovingAverage
from seqjepa.models.heads import ActionEmbedding, build_predictor, projection
from shards.errors import ConfigError

# Layer widths of the projector. The paper gives none for Conv-JEPA: "paper" takes those that it gives for BYOL, its
# other method with a moving average and a projector. "author" is as released.
PROJECTOR: dict[Fidelity, tuple[int, ...]] = {"paper": (2048, 2048, 2048), "author": (2048, 128)}
PREDICTOR_HIDDEN = 1024
NOT_ADDED_UP = ("relative_rotation", "relative_pose", "categorical")


class ConvJEPA(MovingAverage, Method):
    """Online encoder f and projector p, their moving averages f̄ and p̄, action embedding and predictor.

    rotations  whether an action's first four values are a relative quaternion, which multiply (`to_last`); all others
               add up

    `model.condition` "both" and "predictor" show the predictor the action, "aggregator" and "none" do not; what is set
    for the aggregator has no effect. ConfigError: actions that do not add up; see build_backbone.
    """

    display_name = "Conv-JEPA"
    views_needed = None
    uses_actions = True
    settings = ("model.action_dim", "model.condition", "model.predictor_hidden", "optim.ema_tau")

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        self.rotations = begins_with_quaternion(config)
        if odd := [term.op for term in as_spec(config.data.action).terms[self.rotations :] if term.op in NOT_ADDED_UP]:
            raise ConfigError(
                f"conv_jepa adds actions up along the views, which {', '.join(odd)} is not made for; leave these terms "
                "out of data.action, or take a relative_rotation with result quaternion as the first"
            )
        self.conditioned = config.model.condition in ("both", "predictor")
        model, fidelity = config.model, config.fidelity
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.start_averages(config.optim.ema_tau, "encoder", "projector")
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

    def project(self, z: Tensor) -> Tensor:
        """Projections y of the online branch: z [B, D] → [B, P]."""
        return self.projector(z)

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [K, P] of the views that actions [K, A] lead to, from projections y [K, P]: predictor([e ; y])."""
        if not self.conditioned:
            return self.predictor(y)
        return self.predictor(torch.cat((self.action_embedding(action).to(y.dtype), y), dim=-1))

    @property
    def predictor_sees_actions(self) -> bool:
        return self.conditioned


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
