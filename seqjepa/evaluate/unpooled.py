"""Rotations read from the feature map before it is pooled: an average over places hides how an object is turned.

The map of a ResNet [C, h, w] is averaged to 2 × 2 places and flattened: 4 C numbers a view, four times the memory of z,
whatever the size of views. Heads, epochs, draws and targets are those of `r2_rel_rot` and `r2_indiv_rot`. Features are
not standardised: the mean of the four places is z where h and w are even, so their scale is z's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import ResNet

from seqjepa.evaluate.encode import encode_stored_views
from seqjepa.evaluate.learning import score_tasks
from seqjepa.evaluate.probes import nested
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.methods.base import EncodesInContext, Method
from shards.schema import ViewSpec, features_of

PLACES = 2
"""A side of the grid."""
DESCRIBED = f"feature map averaged to {PLACES} × {PLACES} places, flattened"
READ = ("r2_rel_rot", "r2_indiv_rot")


@dataclass(frozen=True)
class MapOfPlaces:
    """A ResNet without its pooling, in the place of the method that it is the encoder of."""

    encoder: ResNet

    def embed(self, views: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, 4 C], places row by row within each channel."""
        return F.adaptive_avg_pool2d(self.map_of(views), PLACES).flatten(1)

    def map_of(self, views: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, C, h, w], whose mean over places is z."""
        net = self.encoder
        seen = net.maxpool(net.relu(net.bn1(net.conv1(views))))
        return net.layer4(net.layer3(net.layer2(net.layer1(seen))))


def _why_no_map(ctx: EvalContext) -> str:
    method, spec = ctx.loaded.method, ctx.stored.info.spec
    if ctx.can.declared is not None or not {f"r2_{target.key}" for target in ctx.can.targets} & set(READ):
        return "reads the paper's rotations, which these data have not"
    if not isinstance(spec, ViewSpec) or features_of(spec):
        return "a set of features holds what was pooled"
    if isinstance(method, EncodesInContext) or type(method).embed is not Method.embed:
        return "the method's features are no pooled map"
    if type(method.encoder) is not ResNet:
        return "the encoder is no ResNet of torchvision"
    side = _sides(method.encoder, spec)
    return "" if min(side) >= PLACES else f"the map has {side[0]} × {side[1]} places before it is pooled"


@torch.no_grad()
def _sides(encoder: ResNet, spec: ViewSpec) -> tuple[int, int]:
    device = next(encoder.parameters()).device
    height, width = MapOfPlaces(encoder).map_of(torch.zeros(1, 3, spec.height, spec.width, device=device)).shape[2:]
    return height, width


def unpooled_scores(ctx: EvalContext) -> dict[str, Any]:
    """R² and angles under "unpooled", by the names that they have for z; intervals under "intervals"."""
    encoder, spec = ctx.loaded.method.encoder, ctx.stored.info.spec
    assert isinstance(encoder, ResNet), "there is a reason against others"
    assert isinstance(spec, ViewSpec), "there is a reason against others"
    maps = encode_stored_views(
        ctx.loaded, ctx.stored, spec, ctx.config, ctx.bench.device, ctx.progress, MapOfPlaces(encoder)
    )
    tasks = [task for task in tasks_for(ctx.can, ctx.config)[0] if task.name in READ]
    scores = score_tasks(tasks, replace(ctx.bench, train=maps.train, val=maps.val), "map: ", progress=ctx.progress)
    intervals = {"intervals": {"unpooled": nested(scores.intervals)}} if scores.intervals else {}
    return {"unpooled": nested(scores.last), **intervals}


UNPOOLED = Study("unpooled", _why_no_map, unpooled_scores)
