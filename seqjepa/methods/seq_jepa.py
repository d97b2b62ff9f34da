"""seq-JEPA: predict the next view's features from views and the actions between them (paper §2.2).

Shape letters: B batch, M context views, T = M + 1, A action size, D features, E action embedding, W token width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import Method, StepOutput, begins_with_rotation, detached, fold
from seqjepa.models.aggregator import Aggregator, token_width
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import MovingAverage
from seqjepa.models.heads import ActionEmbedding, build_predictor
from shards.errors import ConfigError

PREDICTOR_HIDDEN = 1024
ACTION_CALLS: dict[Fidelity, int] = {"paper": 1, "author": 2}


class SeqJEPA(MovingAverage, Method):
    """Online encoder f, target encoder f̄, action embedding, aggregator and predictor.

    two_calls    how actions are embedded in training (docs/fidelity.md #24): in one call, the paper's; in two, the
                 author's, each with its own batch statistics. In eval mode the two are the same function of the same
                 weights. By model.action_calls, or else by fidelity
    blank_last   of two calls that for the tokens sees a row of zeros instead of a_M, as the released code does for
                 positions and augmentations, not for rotations
    ConfigError: a projector was set; see build_backbone and token_width.
    """

    display_name = "seq-JEPA"
    views_needed = None
    uses_actions = True
    settings = (
        "model.action_dim",
        "model.action_calls",
        "model.condition",
        "model.predictor_hidden",
        "model.layers",
        "model.heads",
        "model.ff_mult",
        "model.dropout",
        "optim.ema_tau",
    )

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        if config.model.projector or config.model.projector_kind != "mlp":
            raise ConfigError("seq_jepa has no projector: leave model.projector and model.projector_kind out")
        model = config.model
        self.two_calls = (model.action_calls or ACTION_CALLS[config.fidelity]) == 2
        self.blank_last = not begins_with_rotation(config)
        self.condition_tokens = model.condition in ("both", "aggregator")
        self.condition_predictor = model.condition in ("both", "predictor")
        self.encoder, features = build_backbone(model)
        self.start_averages(config.optim.ema_tau, "encoder")
        width = token_width(features, model)
        self.aggregator = Aggregator(width, model)
        if model.condition != "none":
            self.action_embedding = ActionEmbedding(action_size, model.action_dim)
        inputs = width + (model.action_dim if self.condition_predictor else 0)
        self.predictor = build_predictor(inputs, model.predictor_hidden or PREDICTOR_HIDDEN, features)

    def step(self, seq: ViewSequence) -> StepOutput:
        """Loss of B sequences: views float [B, T, C, H, W], actions [B, M, A]; T ≥ 2.

        features: "z" [B, M, D] of the context views, "z_agg" [B, W]; detached, float32 or wider.
        """
        z = self.embed(fold(seq.views[:, :-1])).unflatten(0, (len(seq), -1))
        token_actions, last_action = self._embed_actions(seq.actions)
        z_agg = self.aggregator(self._tokens(z, token_actions))
        prediction = self.predictor(_join(z_agg, last_action))
        loss = cosine_loss(prediction, self.embed_target(seq.views[:, -1]))
        return StepOutput(loss, features={"z": detached(z), "z_agg": detached(z_agg)})

    def aggregate(self, z: Tensor, actions: Tensor) -> Tensor:
        """z [B, M, D] and the actions between those views, a_1 … a_{M-1} [B, M-1, A], to z_AGG [B, W].

        Meant for eval mode. M is free, whatever the training used; with M = 1 there are no actions (zero rows).
        """
        known = self.action_embedding(actions) if self.condition_tokens and actions.shape[1] else None
        return self.aggregator(self._tokens(z, known))

    def path_features(self, z: Tensor, actions: Tensor, *, vision: bool = True, action: bool = True) -> Tensor:
        """z [B, M, D], actions a_1 … a_M [B, M, A] → [z_AGG ; e_M] [B, W + E]; without an action embedding z_AGG alone.

        vision=False puts zeros for every z, action=False zeros for every action embedding, e_M too (paper §B.9).
        """
        z = z if vision else torch.zeros_like(z)
        if not hasattr(self, "action_embedding"):
            return self.aggregate(z, actions[:, :-1])
        last = self.action_embedding(actions[:, -1])
        if action:
            return _join(self.aggregate(z, actions[:, :-1]), last)
        return _join(self.aggregator(self._tokens(z, None)), torch.zeros_like(last))

    def predict(self, z_agg: Tensor, action: Tensor) -> Tensor:
        """ẑ [B, D] of the view that `action` [B, A] leads to, from z_AGG [B, W]. Meant for eval mode."""
        return self.predictor(_join(z_agg, self.action_embedding(action) if self.condition_predictor else None))

    @property
    def predictor_sees_actions(self) -> bool:
        return self.condition_predictor

    def _embed_actions(self, actions: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Embeddings [B, M-1, E] for the tokens and [B, E] for the predictor; None where it is not conditioned.

        The author's order of calls matters: both move the same running statistics.
        """
        if self.two_calls:
            last = self.action_embedding(actions[:, -1]) if self.condition_predictor else None
            rows = F.pad(actions[:, :-1], (0, 0, 0, 1)) if self.blank_last else actions
            tokens = self.action_embedding(rows)[:, :-1] if self.condition_tokens else None
            return tokens, last
        if not (self.condition_tokens or self.condition_predictor):
            return None, None
        embedded = self.action_embedding(actions)
        tokens = embedded[:, :-1] if self.condition_tokens else None
        return tokens, embedded[:, -1] if self.condition_predictor else None

    def _tokens(self, z: Tensor, embedded: Tensor | None) -> Tensor:
        """[z_i ; e_i] for i < M and [z_M ; 0]: [B, M, W]. The zero is put in after embedding, as released."""
        if not self.condition_tokens:
            return z
        if embedded is None:
            return F.pad(z, (0, self.aggregator.token.shape[-1] - z.shape[-1]))
        return torch.cat((z, F.pad(embedded, (0, 0, 0, 1)).to(z.dtype)), dim=-1)


def _join(z_agg: Tensor, embedded: Tensor | None) -> Tensor:
    return z_agg if embedded is None else torch.cat((z_agg, embedded.to(z_agg.dtype)), dim=-1)
