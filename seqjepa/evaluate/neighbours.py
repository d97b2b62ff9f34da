"""Nearest neighbours of validation views by cosine of z, what they share with the query, and their pictures (Figure 4).

Neighbours are found a block at a time: no matrix of all pairs is ever there. Letters: T views of all samples, Q
queries, k neighbours of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.actions import ROTATION_COLUMNS, quaternion
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import object_interval
from seqjepa.evaluate.studies import EvalContext, Study
from shards.reader import ShardSet, SplitIndex
from shards.schema import ViewSpec, features_of

NEIGHBOURS_EACH = 3
MOST_VIEWS = 200_000
SHOWN_QUERIES = 12
CPU_QUERIES = 8192
RANDOM_EACH = 100


@dataclass(frozen=True)
class Views:
    """Views of a split in stored order, or its whole images where views are made of those.

    x float32 [T, D] of length 1; sample, slot, label and object int64 [T], label −1 for none; rotation float64 [T, 4]
    as quaternions, None where there are none. Of sequences, which may be long, at most 200,000 views, evenly spread.
    """

    x: Tensor
    sample: np.ndarray
    slot: np.ndarray
    label: np.ndarray
    object: np.ndarray
    rotation: np.ndarray | None

    @classmethod
    def of(cls, features: Features) -> Views:
        labels = features.labels.cpu().numpy()
        if features.z_image is not None:
            each = np.arange(len(features))
            return cls(directions(features.z_image), each, np.zeros_like(each), labels, each, None)
        sample, slot = np.nonzero(np.arange(features.z.shape[1]) < features.n_views[:, None])
        if features.sequences is not None:
            kept = spread(len(sample), MOST_VIEWS)
            sample, slot = sample[kept], slot[kept]
        angles = features.params_at(sample, slot, ROTATION_COLUMNS)
        rotation = None if angles is None else quaternion(angles.astype(np.float64))
        z = directions(features.z_at(sample, slot))
        return cls(z, sample, slot, labels[sample], features.objects[sample], rotation)


@dataclass(frozen=True)
class Shared:
    """What views have in common with others, [Q, k]: bool, and degrees in 0 … 180, NaN where there are no rotations."""

    same_class: np.ndarray
    same_object: np.ndarray
    angle_deg: np.ndarray

    @classmethod
    def between(cls, views: Views, queries: np.ndarray, others: np.ndarray) -> Shared:
        """queries int64 [Q], others int64 [Q, k]. A view without a label shares its class with none."""
        label, q = views.label, queries[:, None]
        angles = np.full(others.shape, np.nan)
        if views.rotation is not None:
            angles = angle_between(views.rotation[q], views.rotation[others])
        same_class = (label[others] == label[q]) & (label[q] >= 0)
        return cls(same_class, views.object[others] == views.object[q], angles)


def angle_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The angle in degrees of the rotation from a to b, unit quaternions [..., 4]: 2 acos |a·b|."""
    return np.degrees(2 * np.arccos(np.minimum(1, np.abs((a * b).sum(axis=-1)))))


def spread(total: int, most: int) -> np.ndarray:
    """Up to `most` of the numbers 0 … total − 1, evenly spread over them: int64, ascending."""
    return np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(np.int64))


def take_neighbours(ctx: EvalContext) -> dict[str, Any]:
    """{class, object, angle_deg, …_chance, queries} of three neighbours each, intervals, and the figure's arrays.

    Class only where all have a label, object only where objects have several views, angles only of rotations.
    """
    views, device = Views.of(ctx.splits.val), ctx.bench.device
    T = len(views.sample)
    queries = spread(T, T if device.type == "cuda" else CPU_QUERIES)
    found = nearest(views.x.to(device), torch.from_numpy(queries).to(device), NEIGHBOURS_EACH).cpu().numpy()
    _save(ctx, views, queries, found)
    near = _measured(views, Shared.between(views, queries, found))
    by_chance = _measured(views, Shared.between(views, queries, random_others(T, queries, ctx.bench.seed)))
    scores = {name: float(values.mean()) for name, values in near.items()}
    scores |= {f"{name}_chance": float(values.mean()) for name, values in by_chance.items()}
    sample, S = views.sample[queries], len(ctx.splits.val)
    count = np.bincount(sample, minlength=S)
    sums = {name: np.bincount(sample, of.mean(axis=1), minlength=S) for name, of in near.items()}
    intervals = {name: object_interval(of, count, ctx.bench.resampling) for name, of in sums.items()}
    return {"neighbours": {**scores, "queries": len(queries)}, "intervals": {"neighbours": intervals}}


def _measured(views: Views, shared: Shared) -> dict[str, np.ndarray]:
    """By name, [Q, k]: what there is to measure."""
    several = len(views.object) > len(np.unique(views.object))
    there_is = {
        "class": (shared.same_class, views.label.min() >= 0 and views.label.min() < views.label.max()),
        "object": (shared.same_object, several),
        "angle_deg": (shared.angle_deg, views.rotation is not None),
    }
    return {name: values for name, (values, there) in there_is.items() if there}


def random_others(total: int, queries: np.ndarray, seed: int) -> np.ndarray:
    """A hundred random rows other than each query, for what chance gives: int64 [Q] → [Q, 100]."""
    steps = np.random.default_rng(seed).integers(1, total, (len(queries), RANDOM_EACH))
    return (queries[:, None] + steps) % total


def _save(ctx: EvalContext, views: Views, queries: np.ndarray, found: np.ndarray) -> None:
    """For neighbours.npz: a few queries spread over the split, with their neighbours."""
    chosen = spread(len(queries), SHOWN_QUERIES)
    shown = Shared.between(views, queries[chosen], found[chosen])
    rows = np.concatenate([queries[chosen, None], found[chosen]], axis=1)
    ctx.arrays["neighbours"] = {
        "pictures": view_pixels(ctx.stored, ctx.splits.names[1], views.sample[rows], views.slot[rows]),
        "same_class": shown.same_class,
        "same_object": shown.same_object,
        "angle_deg": shown.angle_deg.astype(np.float32),
    }


def _why_no_neighbours(ctx: EvalContext) -> str:
    if features_of(ctx.stored.info.spec):
        return "the shards hold features, and neighbours are shown in pictures"
    features = ctx.splits.val
    there = int(features.n_views.sum()) if features.z_image is None else len(features)
    return f"needs more than {NEIGHBOURS_EACH} views, there are {there}" if there <= NEIGHBOURS_EACH else ""


NEIGHBOURS = Study("neighbours", _why_no_neighbours, take_neighbours)


QUERY_ROWS = 1024
BLOCK_ROWS = 16384


def directions(z: Tensor) -> Tensor:
    """Rows of length 1 in float32, or zero: [T, D] → [T, D]."""
    return F.normalize(z.float(), dim=-1)


@torch.no_grad()
def nearest(x: Tensor, queries: Tensor, count: int) -> Tensor:
    """The `count` rows of x [T, D], of length 1, that are most similar to each of x[queries], itself left out.

    queries int64 [Q], T > count → int64 [Q, count], nearest first; of rows that are as similar the first.
    """
    return torch.cat([_nearest_of(x, rows, count) for rows in queries.split(QUERY_ROWS)])


def _nearest_of(x: Tensor, rows: Tensor, count: int) -> Tensor:
    best = torch.full((len(rows), count), -torch.inf, device=x.device)
    best_rows = torch.zeros(len(rows), count, dtype=torch.int64, device=x.device)
    for start in range(0, len(x), BLOCK_ROWS):
        block = x[start : start + BLOCK_ROWS]
        similarity = x[rows] @ block.T
        own = (rows >= start) & (rows < start + len(block))
        similarity[own, rows[own] - start] = -torch.inf
        values, places = _largest(similarity, min(count, len(block)))
        values, order = torch.cat((best, values), dim=1).sort(dim=1, descending=True, stable=True)
        best, best_rows = values[:, :count], torch.cat((best_rows, places + start), dim=1).gather(1, order)[:, :count]
    return best_rows


def _largest(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As topk, but of equal values the first, which topk leaves open. Overwrites what it found with −inf."""
    values, places = [], []
    for _ in range(count):
        value, place = similarity.max(dim=1, keepdim=True)
        similarity.scatter_(1, place, -torch.inf)
        values.append(value)
        places.append(place)
    return torch.cat(values, dim=1), torch.cat(places, dim=1)


MOST_PIXELS = 96


def view_pixels(stored: ShardSet, split: str, samples: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Stored views by sample and slot, int64 [q, k] each, or images by sample: uint8 [q, k, h, w, 3] RGB, at most 96
    pixels a side. DamageError: one does not decode."""
    of_views = isinstance(stored.info.spec, ViewSpec)
    index = stored.split(split) if of_views else stored.images(split)
    shrink = min(1.0, MOST_PIXELS / max(index.height, index.width))
    size = round(index.width * shrink), round(index.height * shrink)
    pictures = np.empty((*samples.shape, size[1], size[0], 3), np.uint8)
    for place in np.ndindex(samples.shape):
        sample, slot = int(samples[place]), int(slots[place])
        pixels = index.read_view(sample, slot) if isinstance(index, SplitIndex) else index.read_image(sample)
        pictures[place] = pixels if shrink == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pictures
