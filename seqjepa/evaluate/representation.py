"""Features judged without training anything: the study that k-NN accuracy, RankMe and LiDAR are of.

Letters: n samples, q views of each, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import averaged_mean
from seqjepa.evaluate.probe_training import gather_all, validation_pairs
from seqjepa.evaluate.probes import nested
from seqjepa.evaluate.studies import AFTER_CONTEXT, EvalContext, Study
from seqjepa.evaluate.tasks import tasks_for
from seqjepa.feature_metrics import knn_classes, lidar, rankme
from seqjepa.methods.base import EncodesInContext

RANKED_ROWS = 25_600
"""Rows that RankMe is of, as published (Garrido et al. 2023, arXiv:2210.02885)."""
LIDAR_SAMPLES, LIDAR_VIEWS = 1000, 50
"""Samples and views of each that LiDAR is of, at most, as published (Thilak et al. 2024, arXiv:2312.04000)."""


def _representation(ctx: EvalContext) -> dict[str, Any]:
    """{"knn_z": …, "knn_agg": {M: …}, "rankme": …, "lidar": …} and intervals of k-NN accuracies.

    k-NN is shown what the linear classifiers are: of the training split one draw, of the validation split all. RankMe
    and LiDAR are of training views.
    """
    scores, intervals = _knn_accuracies(ctx)
    train = ctx.splits.train
    z = _spread(train, RANKED_ROWS, 1)[:, 0]
    if not bool(z.isfinite().all()):  # of a run that diverged: no rank
        return {"representation": scores}
    scores["rankme"] = rankme(z)
    if (views := _views_of_each(train)) is not None:
        scores["lidar"] = lidar(views)
    found: dict[str, Any] = {"representation": scores}
    return {**found, "intervals": {"representation": intervals}} if intervals else found


def _knn_accuracies(ctx: EvalContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Accuracies and their intervals by the names of the linear classifiers' with "knn" for "top1"; sizes nested."""
    scores: dict[str, Any] = {}
    intervals: dict[str, Any] = {}
    bench = ctx.bench
    for task in (task for task in tasks_for(ctx.can, ctx.config)[0] if task.classes and task.labels):
        drawn = bench.train.draw(bench.seed, 0, Purpose.PROBE, task.views)
        known, labels = gather_all(task.inputs(bench.train, drawn), len(bench.train), bench.device)
        asked, right = validation_pairs(task, bench, bench.val)
        if task.name in task.missing(right, labels):  # as of the classifiers, whose reason stands there
            continue
        name = task.name.replace("top1", "knn")
        for k, size in enumerate(task.sizes or ("",)):
            of_size = (known[:, k], asked[:, k]) if task.sizes else (known, asked)
            hits = knn_classes(of_size[0], labels, of_size[1]) == right
            key = f"{name}.{size}".rstrip(".")
            scores[key] = hits.double().mean().item()
            intervals[key] = bench.resampling.interval(averaged_mean(hits))
    return nested(scores), nested(intervals)


def _spread(features: Features, samples: int, views: int) -> Tensor:
    """The first `views` views of up to `samples` samples, evenly spread over the split: float32 [n, views, D]."""
    rows = torch.linspace(0, len(features) - 1, min(samples, len(features))).round().long().unique()
    return features.z[rows.to(features.z.device), :views].float()


def _views_of_each(features: Features) -> Tensor | None:
    """For LiDAR, float32 [n, q, D], n, q ≥ 2; of sequences q evenly spread views each. None: there are fewer."""
    if features.sequences is None:
        if len(features) < 2 or features.most_views < 2:
            return None
        return _spread(features, LIDAR_SAMPLES, min(features.most_views, LIDAR_VIEWS))
    bounds = features.sequences.bounds
    counts = np.diff(bounds)
    views = min(int(counts.min()), LIDAR_VIEWS)
    if len(counts) < 2 or views < 2:
        return None
    chosen = np.linspace(0, len(counts) - 1, min(LIDAR_SAMPLES, len(counts))).round().astype(np.int64)
    frames = bounds[chosen, None] + np.arange(views) * counts[chosen, None] // views
    return features.z_of(torch.from_numpy(features.places_of(frames)).to(features.z.device)).float()


REPRESENTATION = Study(
    "representation",
    lambda ctx: AFTER_CONTEXT if isinstance(ctx.loaded.method, EncodesInContext) else "",
    _representation,
)
