"""Predictions along the ways that a split's samples go, and latent rollouts: how soon does seq-JEPA lose its way?

The paper names rollouts as future work. From a context of true views the model predicts the next view's features, takes
the prediction for the next view, and so on for h = 1 … K. At each horizon the prediction looks for the true view among
all views of the object, as in retrieval.

Predictions are of the target encoder's features, tokens are the online encoder's: an average of the same encoder over
the last steps, so the one may stand for the other. Their length may not: the cosine loss leaves it open. A prediction
is brought to the mean length of the context's features before it becomes a token.

Letters: S samples, b of a pass, V = M + K views of a way: M of its context, K predicted (horizons); n candidates, N
slots of a sample, D width of z, A of an action.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.actions import is_augmentation, needs_order
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.data.one_pass import decoding_threads
from seqjepa.evaluate.encode import in_windows, statistics, views_to_draw
from seqjepa.evaluate.features import Draws, Features, encode_images, encode_views
from seqjepa.evaluate.metrics import chance, rank_intervals, rank_scores, ranks_of
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.methods.base import Predicting, PredictsViews
from shards.schema import ActionSpec

FARTHEST = 8
ENOUGH_WALKS, MOST_DRAWS = 8192, 8
GPU_WALKS, CPU_WALKS = 8192, 1024  # at once
MOST_CANDIDATES = 64
"""Of a sequence: the views of the way, and others of it at random."""


@dataclass(frozen=True)
class Pool:
    """Candidates of each sample.

    places  int64 [S, n], of which the first count [S] are there
    right   int64 [S, K]: which of them each of the K predicted views is
    blind   int64 [S, V]: a way of another object, to predict from without having seen this one
    """

    places: np.ndarray
    count: np.ndarray
    right: np.ndarray
    blind: np.ndarray


def draws_of(features: Features) -> int:
    """How many ways are drawn of each sample: up to eight of a small split."""
    return min(MOST_DRAWS, features.runs if features.run_length else MOST_DRAWS, -(-ENOUGH_WALKS // len(features)))


def pool_of(features: Features, way: np.ndarray, predicted: int, seed: int, draw: int) -> Pool:
    """For ways int64 [S, V] of places, the last `predicted` of which are looked for."""
    if features.sequences is not None:
        return _of_sequences(features, way, predicted, seed, draw)
    size, width = features.z.shape[:2]
    first = np.arange(size)[:, None] * width
    other = (np.arange(size) + 1) % size
    blind = first[other] + (way - first) % features.n_views[other, None]
    return Pool(first + np.arange(width), features.n_views, (way - first)[:, -predicted:], blind)


def _of_sequences(features: Features, way: np.ndarray, predicted: int, seed: int, draw: int) -> Pool:
    """The predicted views, then those before, so that standing still is no better than a guess, then others."""
    sequences = features.sequences
    assert sequences is not None
    counts, most = sequences.counts, max(MOST_CANDIDATES, way.shape[1])
    # As many at random as there may be, of which those are passed over that are on the way or are not there.
    numbers = draw_u32(seed, draw, Purpose.EVALUATION, len(features) + np.arange(len(features)), most)
    frames = choose_distinct(np.maximum(counts, most), numbers)
    there = frames < counts[:, None]
    others = features.places_of(sequences.starts[:, None] + np.where(there, frames, 0))
    there &= ~(others[:, :, None] == way[:, None, :]).any(axis=2)
    order = np.argsort(~there, axis=1, kind="stable")
    ahead = np.concatenate([way[:, -predicted:], way[:, :-predicted]], axis=1)
    places = np.concatenate([ahead, np.take_along_axis(others, order, axis=1)], axis=1)[:, :most]
    count = np.minimum(way.shape[1] + there.sum(axis=1), most)
    right = np.tile(np.arange(predicted), (len(features), 1))
    firsts = np.flatnonzero(np.diff(sequences.ids, prepend=-1))
    # One sample of the next sequence; after the last sequence comes the first.
    return Pool(places, count, right, way[firsts[(sequences.ids + 1) % len(firsts)]])


def roll_out(method: PredictsViews, z: Tensor, actions: Tensor, *, sliding: bool = False) -> Tensor:
    """Predictions from predictions: z [b, M, D] of true views, actions [b, M − 1 + K, A] along the whole way, the first
    M − 1 of them between those views → ẑ [b, K, D] of the K views that follow. Meant for eval mode.

    sliding: each is made from the last M views alone, as in training, and not from all before it.
    """
    context = z.shape[1]
    length = z.norm(dim=-1).mean(dim=1, keepdim=True)
    known = z
    for step in range(context - 1, actions.shape[1]):
        predicted = _next(method, known, actions[:, : step + 1], context if sliding else step + 1)
        known = torch.cat((known, (F.normalize(predicted, dim=-1) * length).unsqueeze(1)), dim=1)
    return known[:, context:]


def one_by_one(method: PredictsViews, z: Tensor, actions: Tensor, context: int, *, sliding: bool = False) -> Tensor:
    """The same views, each from the true features of those before it: z [b, M − 1 + K, D] → [b, K, D]."""
    steps = range(context - 1, actions.shape[1])
    seen = (context if sliding else step + 1 for step in steps)
    views = [_next(method, z[:, : k + 1], actions[:, : k + 1], n) for k, n in zip(steps, seen, strict=True)]
    return torch.stack(views, dim=1)


def _next(method: PredictsViews, z: Tensor, actions: Tensor, seen: int) -> Tensor:
    """z and actions of the views so far, the last action leading on: ẑ [b, D] of the next, from the last `seen`."""
    z, actions = z[:, -seen:], actions[:, -seen:]
    return method.predict(method.aggregate(z, actions[:, :-1]), actions[:, -1])


@torch.no_grad()
def walk(
    method: PredictsViews,
    features: Features,
    targets: Tensor,
    way: np.ndarray,
    action: ActionSpec,
    pool: Pool,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Ranks int64 [S, K] of the true views: "rollout" from predictions, "teacher" from true features, "blind" as a
    rollout from the views of the next object, to which only the actions say where this one goes.

    way: places int64 [S, M + K]; targets: features [S, N, D] of candidates, among the pool's of which views are looked
    for. Windows slide: tokens are a set, and of more views than in training it is not told which came last.
    """
    sliding = features.stride > 0
    context, actions = way.shape[1] - pool.right.shape[1], features.actions(way, action)
    found: dict[str, list[Tensor]] = {"rollout": [], "teacher": [], "blind": []}
    for objects in passes(len(features), device):
        z, z_others = (z_at(features.z, places[objects, :-1], device) for places in (way, pool.blind))
        a = actions[torch.from_numpy(objects).to(actions.device)].to(device)
        candidates = z_at(targets, pool.places[objects], device)
        predicted = {
            "rollout": roll_out(method, z[:, :context], a, sliding=sliding),
            "teacher": one_by_one(method, z, a, context, sliding=sliding),
            "blind": roll_out(method, z_others[:, :context], a, sliding=sliding),
        }
        right, count = (torch.from_numpy(part[objects]).to(device) for part in (pool.right, pool.count))
        for name, guess in predicted.items():
            found[name].append(ranks_of(guess, candidates, right, count).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def passes(samples: int, device: torch.device) -> list[np.ndarray]:
    """Rows int64 [b] of one pass after the other."""
    size = GPU_WALKS if device.type == "cuda" else CPU_WALKS
    return np.split(np.arange(samples), range(size, samples, size))


def z_at(z: Tensor, places: np.ndarray, device: torch.device) -> Tensor:
    """float32 z [b, V, D] of places [b, V]."""
    return z.flatten(0, 1)[torch.from_numpy(places).to(z.device)].to(device).float()


@torch.no_grad()
def predict_next(
    method: Predicting, features: Features, way: np.ndarray, action: ActionSpec, pool: Pool, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks int64 [S, 1] of the second of way [S, 2], predicted from the first, and from one of another object."""
    actions = features.actions(way, action)[:, 0]
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for objects in passes(len(features), device):
        a = actions[torch.from_numpy(objects).to(actions.device)].to(device)
        z = z_at(features.z, pool.places[objects], device)
        candidates = method.project(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        right, count = (torch.from_numpy(part[objects]).to(device) for part in (pool.right, pool.count))
        for places, ranks in zip((way, pool.blind), found, strict=True):
            y = method.project(z_at(features.z, places[objects, :1], device)[:, 0])
            ranks.append(ranks_of(method.predict(y, a)[:, None], candidates, right, count).cpu())
    ranks, blind = (torch.cat(parts).numpy() for parts in found)
    return ranks, blind


KEPT_AS = "target features"


@dataclass(frozen=True)
class TargetBranch:
    """The target encoder in the place of the online one."""

    method: PredictsViews

    def embed(self, views: Tensor) -> Tensor:
        """[B, C, H, W] → f̄ [B, D]."""
        return self.method.embed_target(views)


def target_features(ctx: EvalContext) -> Tensor:
    """f̄ of every view of the validation split: [S, N, D], as `ctx.splits.val.z`. Encoded once for a ctx."""
    if KEPT_AS not in ctx.kept:
        ctx.kept[KEPT_AS] = _encoded(ctx)
    return ctx.kept[KEPT_AS]


def _encoded(ctx: EvalContext) -> Tensor:
    method, splits, device = ctx.loaded.method, ctx.splits, ctx.bench.device
    assert isinstance(method, PredictsViews), "other methods have no target features that they predict"
    branch, split, threads = TargetBranch(method), splits.names[1], decoding_threads()
    stats = statistics(ctx.loaded, ctx.stored, splits.normalisation)
    if splits.views is None:
        index, _ = in_windows(ctx.loaded, ctx.stored.split(split))
        return encode_views(branch, index, stats, device, threads=threads, progress=ctx.progress).z
    config = ctx.config
    views = views_to_draw(splits.views, config)
    drawn = Draws(splits.views, config.val_draws, views, config.seed, "evaluation")
    images = ctx.stored.images(split)
    return encode_images(branch, images, drawn, stats, device, threads=threads, progress=ctx.progress).z


def why_not_retrieved(ctx: EvalContext) -> str:
    """Why predicted views are not looked for among the others; empty if they are."""
    loaded = ctx.loaded
    features = ctx.splits.val
    if (features.most_views if features.sequences is not None else int(features.n_views.max())) < 2:
        return "samples have one view each"
    if not loaded.method.predictor_sees_actions:
        return "the predictor is not told the action"
    if needs_order(loaded.action) and not features.stride:
        return "recorded commands lead to the very next view, not to any"
    if loaded.config.fidelity == "author" and is_augmentation(loaded.action):
        return "the released actions of augmentations depend on which views are shown beside them"
    return ""


def take_rollouts(ctx: EvalContext) -> dict[str, Any]:
    """{"rollout": {mrr: {"1": …}, h1, …_teacher, …_blind, …_chance, context, queries}}, queries at each horizon, and
    intervals. Walks of a small split are drawn up to eight times."""
    method, features, device = ctx.loaded.method, ctx.splits.val, ctx.bench.device
    assert isinstance(method, PredictsViews), "why_not has turned others away"
    context, horizons = extent(ctx.loaded.config.data.context, features.most_views)
    targets, action = target_features(ctx), ctx.loaded.action
    by_chance: dict[str, float] = {}
    draws = draws_of(features)
    ranks: dict[str, list[np.ndarray]] = {}
    for draw in range(draws):
        way = features.draw(ctx.bench.seed, draw, Purpose.EVALUATION, context + horizons)
        pool = pool_of(features, way, horizons, ctx.bench.seed, draw)
        for name, found in walk(method, features, targets, way, action, pool, device).items():
            ranks.setdefault(name, []).append(found)
        by_chance = chance(pool.count)
    every = {name: np.concatenate(parts) for name, parts in ranks.items()}
    by_chance = {"mrr_chance": by_chance["mrr"], "h1_chance": by_chance["h1"]}
    extra = {"context": context, "queries": draws * len(features)}
    scores = {**by_horizon(every, rank_scores), **by_chance, **extra}
    intervals = by_horizon(every, partial(rank_intervals, resampling=ctx.bench.resampling))
    return {"rollout": scores, "intervals": {"rollout": intervals}}


def by_horizon(
    ranks: Mapping[str, np.ndarray], measured: Callable[[np.ndarray, np.ndarray], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Ranks int64 [draws · S, K] of walks, draw after draw → {mrr: {"1": …}, h1, mrr_teacher, …}.
    measured: of the ranks [draws · S, 1] at a horizon and which were asked (all), its scores or their intervals.
    """
    found: dict[str, dict[str, Any]] = {}
    for kind, of in ranks.items():
        for horizon, column in enumerate(of.T[..., None], 1):
            numbers = measured(column, np.ones_like(column, bool))
            for name in ("mrr", "h1"):
                found.setdefault(name if kind == "rollout" else f"{name}_{kind}", {})[str(horizon)] = numbers[name]
    return found


def extent(trained_on: int, most_views: int) -> tuple[int, int]:
    """How many true views a walk begins with, as many as in training or fewer if there is no other way to go on from
    them, and how many steps it goes, at most 8."""
    context = min(trained_on, most_views - 1)
    return context, min(FARTHEST, most_views - context)


def _why_not(ctx: EvalContext) -> str:
    if not isinstance(ctx.loaded.method, PredictsViews):
        return "the method does not go on from its own predictions (seq-JEPA does)"
    if ctx.splits.val.most_views < 2:
        return "some samples have one view"
    if ctx.splits.val.stride and not ctx.loaded.method.predictor_sees_actions:
        return ""  # what comes next in a window can be predicted without being told the action
    return why_not_retrieved(ctx)


ROLLOUTS = Study("rollout", _why_not, take_rollouts)
