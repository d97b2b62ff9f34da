"""SimCLR: two views of an object find each other among all others of the batch (arXiv 2002.05709; paper §A.3).

Shape letters of all two-view methods: B batch, D features, P width of an embedding, A action size.
"""

from __future__ import annotations

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.losses import nt_xent
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.distributed import all_rows
from seqjepa.models.heads import projection

PROJECTOR = (2048, 2048, 2048)
TEMPERATURE = 0.5


class SimCLR(Method):
    """Encoder f and projector; actions are not looked at. ConfigError: see build_backbone and projection."""

    display_name = "SimCLR"

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        self.encoder, features = build_backbone(config.model)
        self.projector, _ = projection(features, config.model, PROJECTOR)

    def step(self, seq: ViewSequence) -> StepOutput:
        """NT-Xent of B pairs, views float [B, 2, C, H, W]. features: "z" [B, 2, D], detached.

        Each view is a batch of its own to batch norm, as released (hafezgh/seq-jepa@73e0550 models.py:1135-1137).
        """
        z1, z2 = self.each(self.embed, *seq.views.unbind(1))
        y1, y2 = all_rows(*self.each(self.projector, z1, z2))
        return StepOutput(nt_xent(y1, y2, TEMPERATURE), features=by_view(z1, z2))
