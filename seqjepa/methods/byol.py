"""BYOL: each view predicts the other's embedding by a moving average of the network (arXiv 2006.07733; paper §A.3)."""

from __future__ import annotations

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import cosine_loss
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.ema import MovingAverage
from seqjepa.models.heads import build_predictor, projection

PROJECTOR: dict[Fidelity, tuple[int, ...]] = {"paper": (2048, 2048, 2048), "author": (2048, 128)}
PREDICTOR_HIDDEN: dict[Fidelity, int] = {"paper": 512, "author": 2048}


class BYOL(MovingAverage, Method):
    """Online encoder f, projector p and predictor q; moving averages f̄ and p̄. Actions are not looked at.

    ConfigError: see build_backbone and projection.
    """

    display_name = "BYOL"
    settings = ("model.predictor_hidden", "optim.ema_tau")

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model, fidelity = config.model, config.fidelity
        self.encoder, features = build_backbone(model)
        self.projector, width = projection(features, model, PROJECTOR[fidelity])
        self.start_averages(config.optim.ema_tau, "encoder", "projector")
        self.predictor = build_predictor(width, model.predictor_hidden or PREDICTOR_HIDDEN[fidelity], width)

    def step(self, seq: ViewSequence) -> StepOutput:
        """Sum of 2 − 2 cos(q(y), ȳ') over the two directions, views float [B, 2, C, H, W]. features: "z" [B, 2, D].

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:1234-1236).
        """
        first, second = seq.views.unbind(1)
        z1, z2 = self.each(self.embed, first, second)
        predictions = self.each(lambda z: self.predictor(self.projector(z)), z1, z2)
        targets = self.each(self.embed_target, second, first)
        forward, backward = map(cosine_loss, predictions, targets)
        return StepOutput(2 * (forward + backward), features=by_view(z1, z2))
