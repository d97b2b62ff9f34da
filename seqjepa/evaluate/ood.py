"""Two studies by the probes of rotations: shown a set of rotations that training never saw, and the unpooled map.

OOD (paper §B.3, Table 9): nothing is fitted to the other set. These are the very heads that gave the ID numbers,
trained on the ID training split. Classes are matched by name.

UNPOOLED: an average over places hides how an object is turned. The map of a ResNet [C, h, w] is averaged to 2 × 2
places and flattened: 4 C numbers a view, four times the memory of z. Features are not standardised: the mean of the
four places is z where h and w are even, so their scale is z's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import PRESETS, ROTATION_COLUMNS, columns, is_augmentation
from seqjepa.data.one_pass import decoding_threads
from seqjepa.evaluate.encode import encode_stored_views, statistics
from seqjepa.evaluate.features import Features, encode_views
from seqjepa.evaluate.heads import StackedLinear, predict
from seqjepa.evaluate.inputs import label_of_prefixes
from seqjepa.evaluate.metrics import Resampling
from seqjepa.evaluate.probe_training import score_head, score_tasks, validation_pairs
from seqjepa.evaluate.probes import ProbeTask, Scores, nested
from seqjepa.evaluate.studies import AFTER_CONTEXT, IN_SEQUENCES, EvalContext, Study
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.methods.base import Aggregating, EncodesInContext, Method
from seqjepa.models.backbone import is_resnet
from shards.errors import ConfigError, few
from shards.reader import ShardSet, SplitIndex
from shards.schema import ActionSpec, ViewSpec, features_of

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

SPLIT = "ood"
BY_SIZE = "top1_agg"
MEASURED = ("top1_z", BY_SIZE, "r2_rel_rot", "r2_indiv_rot")


def _why_no_ood(ctx: EvalContext) -> str:
    if not set(ROTATION_COLUMNS) <= set(ctx.splits.train.param_names):
        return "the samples have no rotations"
    if isinstance(ctx.loaded.method, EncodesInContext):
        return AFTER_CONTEXT
    if ctx.splits.train.sequences is not None:
        return IN_SEQUENCES
    return "" if ctx.ood else "no OOD shards were named: --ood SHARDS"


def _ood_scores(ctx: EvalContext) -> dict[str, Any]:
    """Scores and intervals by the names of the ID numbers; `objects`: how many. ConfigError: see open_ood."""
    features = _encode_ood(ctx)
    scores = Scores()
    for task in _tasks_of_ood(ctx, features):
        scores = scores.joined(_score_ood(ctx, task, features))
    intervals = {"intervals": {"ood": nested(scores.intervals)}} if scores.intervals else {}
    return {"ood": {**nested(scores.last), "objects": len(features)}, **intervals}


def _encode_ood(ctx: EvalContext) -> Features:
    """Every view of the OOD split through the same frozen encoder, labels numbered as in the ID set."""
    assert ctx.ood is not None, "asked for in why_not"
    index = open_ood(ctx.stored, ctx.ood)
    stats = statistics(ctx.loaded, ctx.stored, ctx.splits.normalisation)
    features = encode_views(
        ctx.loaded.method, index, stats, ctx.bench.device, threads=decoding_threads(), progress=ctx.progress
    )
    labels = labels_by_name(np.asarray(index.labels, np.int64), ctx.ood, ctx.stored)
    return replace(features, labels=torch.from_numpy(labels).to(features.labels.device))


def _tasks_of_ood(ctx: EvalContext, features: Features) -> Iterator[ProbeTask]:
    """Those of the ID tasks that OOD samples have views and labels for.

    Top-1 on z_AGG for the sizes M that there are views for: 3DIEBench-OOD may have but two to four.
    """
    labelled, method = int(features.labels.min()) >= 0, ctx.loaded.method
    for task in tasks_for(ctx.can, ctx.config)[0]:
        if task.name not in MEASURED or (task.classes and not labelled):
            continue
        if task.name == BY_SIZE:
            assert isinstance(method, Aggregating), "or there would be no such task"
            if sizes := tuple(m for m in task.sizes if m <= features.most_views):
                shown = label_of_prefixes(method, ctx.can.action, sizes)
                yield replace(task, inputs=shown, views=max(sizes), sizes=sizes)
        elif task.views <= features.most_views:
            yield task


def _score_ood(ctx: EvalContext, task: ProbeTask, features: Features) -> Scores:
    bench = ctx.bench
    shown, wanted = validation_pairs(task, bench, features)
    if task.name in (skipped := task.missing(wanted, bench.train.labels)):
        return Scores(skipped=skipped)
    if (head := bench.heads.get(task.name)) is None:  # the reason stands where the number of validation would
        return Scores()
    predicted = _predict_sizes(head, shown)
    return score_head(task, predicted, wanted, Resampling.over(features.objects, bench.seed, bench.device))


def _predict_sizes(head: nn.Module, shown: Tensor) -> Tensor:
    """A stacked head has a layer for each size M of the ID numbers; OOD samples may be shown in fewer [n, K, W]."""
    if not isinstance(head, StackedLinear):
        return predict(head, shown)
    sizes = shown.shape[1]
    return predict(head, F.pad(shown, (0, 0, 0, len(head.weight) - sizes)))[:, :sizes]


def open_ood(stored: ShardSet, ood: ShardSet, action: ActionSpec = PRESETS["rotation"]) -> SplitIndex:
    """The OOD split of `ood`: "ood", or the only one there is.

    ConfigError: views of another size than those of `stored`, no rotations or nothing that an `action` of the run is
    made of, no such split. Cheap; ask before encoding.
    """
    here, there = _rendered(stored), _rendered(ood)
    if (there.height, there.width) != (here.height, here.width):
        raise ConfigError(
            f"{ood.place} holds views of {there.height}×{there.width}, {stored.place} of {here.height}×{here.width}; "
            "build both at the same size"
        )
    names = ood.splits
    if SPLIT not in names and len(names) != 1:
        raise ConfigError(f"{ood.place} has the splits {', '.join(names)}; an OOD set has one, or one named {SPLIT!r}")
    index = ood.split(SPLIT if SPLIT in names else next(iter(names)))
    if absent := [name for name in ROTATION_COLUMNS if name not in index.param_names]:
        raise ConfigError(f"{ood.place} has no {', '.join(absent)}; --ood is a set of views whose rotations are known")
    if not is_augmentation(action):
        columns(index.param_names, action.columns)
    labels_by_name(index.labels, ood, stored)
    return index


def _rendered(stored: ShardSet) -> ViewSpec:
    spec = stored.info.spec
    if not isinstance(spec, ViewSpec):
        raise ConfigError(f"{stored.place} holds {spec.kind} shards; --ood compares two sets of rendered views")
    return spec


def labels_by_name(labels: np.ndarray, ood: ShardSet, stored: ShardSet) -> np.ndarray:
    """Labels int64 [S] of `ood`, numbered as in `stored`: the class of the same name. −1 (none) stays.

    ConfigError: a class with samples in `ood` that `stored` does not name.
    """
    names, known = ood.info.classes, {name: number for number, name in enumerate(stored.info.classes)}
    used = [names[label] if label < len(names) else f"number {label}" for label in np.unique(labels[labels >= 0])]
    if unknown := [name for name in used if name not in known]:
        raise ConfigError(
            f"{ood.place} has classes that {stored.place} has not ({few(unknown)}); "
            "classes are matched by name: build both sets with the same names"
        )
    table = np.full(len(names) + 1, -1, np.int64)  # the last entry is where −1 points
    table[: len(names)] = [known.get(name, -1) for name in names]
    return table[labels]


OOD = Study("ood", _why_no_ood, _ood_scores)


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
    if not is_resnet(method.encoder):
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
    assert is_resnet(encoder), "there is a reason against others"
    assert isinstance(spec, ViewSpec), "there is a reason against others"
    maps = encode_stored_views(
        ctx.loaded, ctx.stored, spec, ctx.config, ctx.bench.device, ctx.progress, MapOfPlaces(encoder)
    )
    tasks = [task for task in tasks_for(ctx.can, ctx.config)[0] if task.name in READ]
    scores = score_tasks(tasks, replace(ctx.bench, train=maps.train, val=maps.val), "map: ", progress=ctx.progress)
    intervals = {"intervals": {"unpooled": nested(scores.intervals)}} if scores.intervals else {}
    return {"unpooled": nested(scores.last), **intervals}


UNPOOLED = Study("unpooled", _why_no_map, unpooled_scores)
