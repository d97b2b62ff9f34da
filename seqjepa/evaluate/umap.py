"""Maps of the features in two dimensions, by UMAP (Figures 5, 12–14): of which points, in which colours.

Of validation samples of up to ten classes: z of single views, and z_AGG. The paper gives neither UMAP's settings nor
the classes; these are ours.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from seqjepa.data.actions import POSITION_COLUMNS, ROTATION_COLUMNS, quaternion
from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import Gather
from seqjepa.evaluate.inputs import label_of_prefixes
from seqjepa.evaluate.studies import AFTER_CONTEXT, EvalContext, Study
from seqjepa.methods.base import Aggregating, EncodesInContext
from shards.extras import missing_line

NEIGHBOURS, MIN_DIST = 15, 0.1
CLASSES, MOST_POINTS, FEWEST_POINTS = 10, 5000, 10
AGG_SIZES = {"stored views": 5, "patches": 4, "augmentations": 5}
"""M_val of the paper's maps of z_AGG, by what views are."""


def _why_no_map(ctx: EvalContext) -> str:
    if not ctx.can.labelled:
        return "samples without a label"
    if int(ctx.splits.val.n_views.sum()) < FEWEST_POINTS:
        return f"needs {FEWEST_POINTS} views"
    if isinstance(ctx.loaded.method, EncodesInContext):
        return AFTER_CONTEXT
    if importlib.util.find_spec("umap") is None:
        return missing_line("umap")
    return ""


def _map_scores(ctx: EvalContext) -> dict[str, Any]:
    """Gives umap.npz its arrays and returns how far neighbours stay neighbours, 0 to 1, where sklearn is there.

    view_xy f32 [n, 2], view_class i16 [n], view_angle_deg f32 [n] or view_position f32 [n, 2] where views have them,
    agg_xy f32 [k, 2], agg_class i16 [k] where the method has z_AGG; class_names U [C], what the numbers
    of classes mean.
    """
    features, seed = ctx.splits.val, ctx.bench.seed
    classes = most_frequent(features, CLASSES)
    names = ctx.stored.info.classes
    arrays: dict[str, np.ndarray] = {"class_names": np.array([names[c] if names else str(c) for c in classes])}
    kinds = {"view": views(features, classes, MOST_POINTS, seed)}
    if isinstance(ctx.loaded.method, Aggregating):
        size = min(AGG_SIZES[ctx.can.seen], ctx.can.most_context)
        kinds["agg"] = aggregates(ctx, classes, size, MOST_POINTS)
    scores = {}
    for kind, points in kinds.items():
        if len(points) < FEWEST_POINTS:
            continue
        xy = flattened(points.x, seed)
        arrays |= {f"{kind}_xy": xy, f"{kind}_class": points.label}
        arrays |= {f"{kind}_{name}": values for name, values in points.colours.items()}
        scores |= _trustworthiness(kind, points, xy)
    ctx.arrays["umap"] = arrays
    return {"umap": scores}


def flattened(x: np.ndarray, seed: int) -> np.ndarray:
    """Points float32 [n, D] → their places float32 [n, 2]; the same for the same seed on the same machine."""
    umap = _import_umap()
    how = {"n_neighbors": min(NEIGHBOURS, len(x) - 1), "min_dist": MIN_DIST, "random_state": seed, "n_jobs": 1}
    return np.asarray(umap.UMAP(**how).fit_transform(x), np.float32)


def _import_umap() -> Any:
    """Importing it warns that tensorflow, which we have no use for, is missing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Tensorflow not installed", category=ImportWarning)
        return importlib.import_module("umap")


def _trustworthiness(kind: str, points: Points, xy: np.ndarray) -> dict[str, float]:
    """Of the 15 nearest points on the map, how far they are the nearest in the features too (Venna & Kaski 2001)."""
    if importlib.util.find_spec("sklearn") is None:
        return {}
    from sklearn.manifold import trustworthiness

    neighbours = min(NEIGHBOURS, (len(xy) - 1) // 2)
    return {f"trustworthiness_{kind}": float(trustworthiness(points.x, xy, n_neighbors=neighbours))}


UMAP = Study("umap", _why_no_map, _map_scores)


ENOUGH_SEQUENCES = 1000
ROWS_PER_PASS = 1024


@dataclass(frozen=True)
class Points:
    """n points: x float32 [n, D], label int16 [n] among the chosen classes, colours by name, [n] or [n, 2]."""

    x: np.ndarray
    label: np.ndarray
    colours: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.x)


def most_frequent(features: Features, most: int) -> list[int]:
    """Up to `most` classes with the most samples, of equally frequent ones the first; ascending."""
    count = np.bincount(features.labels.cpu().numpy())
    chosen = np.argsort(-count, kind="stable")[:most]
    return sorted(int(label) for label in chosen if count[label])


def views(features: Features, classes: list[int], most: int, seed: int) -> Points:
    """z of the distinct views of these classes; where there are more than `most`, that many of them at random.

    colours: angle_deg, 2 acos |w| of the absolute rotation, 0 … 180; position (x, y) in fractions of the image.
    """
    labels = features.labels.cpu().numpy()
    whole = np.isin(labels, classes)[:, None] & (np.arange(features.z.shape[1]) < features.n_views[:, None])
    sample, slot = np.nonzero(whole)
    keep = _some(len(sample), most, seed)
    sample, slot = sample[keep], slot[keep]
    x = features.z_at(sample, slot)
    number = np.searchsorted(classes, labels[sample]).astype(np.int16)
    return Points(x.float().cpu().numpy(), number, _colours(features, sample, slot))


def aggregates(ctx: EvalContext, classes: list[int], size: int, most: int) -> Points:
    """z_AGG of the first `size` views of fixed draws: one of every sample, or as many as make 1,000 points."""
    features, seed = ctx.splits.val, ctx.bench.seed
    labels = features.labels.cpu().numpy()
    rows = np.flatnonzero(np.isin(labels, classes))
    wanted = -(-ENOUGH_SEQUENCES // len(rows))
    draws = min(wanted, features.runs) if features.run_length else wanted
    gathers = [_sequences(ctx, size, draw) for draw in range(draws)]
    passes = torch.from_numpy(rows).to(ctx.bench.device).split(ROWS_PER_PASS)
    x = torch.cat([gather(part)[0][:, 0] for gather in gathers for part in passes])
    number = np.searchsorted(classes, np.tile(labels[rows], draws)).astype(np.int16)
    kept = _some(len(x), most, seed)
    return Points(x.cpu().numpy()[kept], number[kept], {})


def _sequences(ctx: EvalContext, size: int, draw: int) -> Gather:
    """Of runs the whole one is drawn: released actions depend on it (docs/fidelity.md #22)."""
    features, method = ctx.splits.val, ctx.loaded.method
    assert isinstance(method, Aggregating), "or it has no z_AGG"
    slots = features.draw(ctx.bench.seed, draw, Purpose.EVALUATION, features.run_length or size)
    return label_of_prefixes(method, ctx.can.action, [size])(features, slots)


def _colours(features: Features, sample: np.ndarray, slot: np.ndarray) -> dict[str, np.ndarray]:
    if (euler := features.params_at(sample, slot, ROTATION_COLUMNS)) is not None:
        w = np.abs(quaternion(euler.astype(np.float64))[:, 3])
        return {"angle_deg": np.degrees(2 * np.arccos(np.minimum(w, 1))).astype(np.float32)}
    places = features.params_at(sample, slot, POSITION_COLUMNS)
    return {} if places is None else {"position": places}


def _some(n: int, most: int, seed: int) -> np.ndarray:
    """Ascending positions of all n, or of `most` at random."""
    return np.arange(n) if n <= most else np.sort(np.random.default_rng(seed).permutation(n)[:most])
