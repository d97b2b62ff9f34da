"""A method and an encoder: `seqjepa train --set method=barlow_twins --set model.backbone=patches`."""

import torch
from pydantic import Field
from torch import Tensor, nn

from seqjepa.config import ModelConfig, RunConfig, Section
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.base import Method, StepOutput, by_view
from seqjepa.models.backbone import build_backbone
from seqjepa.models.heads import projection


def barlow_loss(a: Tensor, b: Tensor, off_diagonal: float) -> Tensor:
    """Barlow Twins (arXiv 2103.03230, eq. 1) of two views' embeddings [N, d]: 1 on the diagonal, else 0."""
    a, b = ((y - y.mean(0)) / y.std(0, correction=0).clamp(min=1e-5) for y in (a.float(), b.float()))
    wrong = (a.T @ b / len(a) - torch.eye(a.shape[1], device=a.device)).square()
    return wrong.diagonal().sum() + off_diagonal * (wrong.sum() - wrong.diagonal().sum())


class BarlowOptions(Section):
    """`--set options.off_diagonal=0.01`, or a line below `[options]` in a recipe."""

    off_diagonal: float = Field(default=5e-3, gt=0, description="weight of the correlations that should vanish")


class BarlowTwins(Method):
    """Two views, no actions: what `views_needed` and `uses_actions` say where a method does not."""

    display_name = "Barlow Twins"
    Options = BarlowOptions
    options: BarlowOptions

    def __init__(self, config: RunConfig, action_size: int) -> None:
        super().__init__(config, action_size)
        self.encoder, features = build_backbone(config.model)
        self.projector, _ = projection(features, config.model, (1024, 1024, 1024))

    def step(self, seq: ViewSequence) -> StepOutput:
        """seq.views: normalised float [B, 2, 3, H, W]."""
        z1, z2 = map(self.embed, seq.views.unbind(1))
        loss = barlow_loss(self.projector(z1), self.projector(z2), self.options.off_diagonal)
        return StepOutput(loss, features=by_view(z1, z2))


def patches(config: ModelConfig) -> tuple[nn.Module, int]:
    """An encoder [B, 3, H, W] → [B, D] that sees patches of 8×8 pixels, and D."""
    width = round(64 * config.width)
    return nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()), width
