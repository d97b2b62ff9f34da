"""SIE: half of the features is invariant, the other half moves by a linear map that the action chooses (paper §A.3)."""

from __future__ import annotations

from torch import Tensor

from seqjepa.config import Fidelity, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import VicWeights, sie_loss
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.distributed import all_rows
from seqjepa.models.heads import Hypernetwork, build_expander, projection
from shards.errors import ConfigError

PROJECTOR = (1024, 1024, 1024)
# The released script multiplies its factor for equivariance, 1, by the weight of invariance (docs/fidelity.md #51).
WEIGHTS: dict[Fidelity, VicWeights] = {
    "paper": VicWeights(10.0, 10.0, 1.0, equivariance=4.5),
    "author": VicWeights(25.0, 25.0, 1.0, equivariance=25.0),
}


class SIE(Method):
    """Encoder f, a projector for either half of its features, and the hypernetwork that predicts.

    The action goes in as it is, neither embedded nor normalised. halves: columns of z, "invariant" and "equivariant".

    ConfigError: an odd number of features; see also build_backbone and projection.
    """

    display_name = "SIE"
    uses_actions = True

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        model = config.model
        self.weights = WEIGHTS[config.fidelity]
        self.encoder, features = build_backbone(model)
        if features % 2:
            raise ConfigError(f"sie splits features in halves, and model.width {model.width} gives {features} of them")
        half = features // 2
        self.halves = {"invariant": slice(0, half), "equivariant": slice(half, features)}
        self.invariant_projector, _ = projection(half, model, PROJECTOR, build_expander)
        self.equivariant_projector, width = projection(half, model, PROJECTOR, build_expander)
        self.hypernetwork = Hypernetwork(action_size, width)

    def step(self, seq: ViewSequence) -> StepOutput:
        """SIE's loss of B pairs: views float [B, 2, C, H, W], actions [B, 1, A]. features: "z" [B, 2, D], detached.

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:985-987).
        """
        z1, z2 = self.each(self.embed, *seq.views.unbind(1))
        invariant = self.each(self.invariant_projector, *(z[:, self.halves["invariant"]] for z in (z1, z2)))
        y1, y2 = self.each(self.project, z1, z2)
        predicted = self.predict(y1, seq.actions[:, 0])
        shared1, shared2, y1, y2, predicted = all_rows(*invariant, y1, y2, predicted)
        loss = sie_loss((shared1, shared2), (y1, y2), predicted, self.weights)
        return StepOutput(loss, features=by_view(z1, z2))

    def project(self, z: Tensor) -> Tensor:
        """Equivariant embeddings: z [B, D] → y [B, P], from the equivariant half."""
        return self.equivariant_projector(z[:, self.halves["equivariant"]])

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """ŷ [B, P] of the view that `action` [B, A] leads to, from the equivariant y [B, P]."""
        return self.hypernetwork(y, action)
