"""Retrieval by the predictor: MRR, H@1 and H@5 in SIE's protocol (facebookresearch/SIE@54541cf eval_MRR_Hk.py:97-332).

The source is view 0 of an object. For every view j of it, j = 0 included, the embedding that the predictor makes of the
source and the action 0 → j looks for view j among all views of the object: for seq-JEPA, among features of its target
encoder f̄.

Letters: S objects of a split, b of a chunk, n view slots, M views of a context, A size of an action, P width of an
embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import chance, rank_intervals, rank_scores, ranks_of
from seqjepa.evaluate.rollouts import draws_of, pool_of, predict_next, target_features, walk, why_not_retrieved
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.methods.base import Predicting, PredictsViews
from shards.schema import ActionSpec

LONG_CONTEXT = 3
GPU_QUERIES, CPU_QUERIES = 16384, 2048  # at once


@torch.no_grad()
def rank_views(
    features: Features, predictions: OfObjects, candidates: Mapping[str, OfObjects], device: torch.device
) -> dict[str, np.ndarray]:
    """The rank of view j for the prediction of view j, among each kind of candidates: int64 [S, n] by their name."""
    n = features.z.shape[1]
    at_once = max(1, (GPU_QUERIES if device.type == "cuda" else CPU_QUERIES) // n)
    count = torch.from_numpy(features.n_views).to(device)
    found: dict[str, list[Tensor]] = {name: [] for name in candidates}
    for objects in torch.arange(len(features), device=device).split(at_once):
        predicted = predictions(objects)
        right = torch.arange(n, device=device).expand(len(objects), n)
        for name, of in candidates.items():
            found[name].append(ranks_of(predicted, of(objects), right, count[objects]).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


class Found(NamedTuple):
    """Ranks int64 [S, n] of predictions, and of those from another object's views; which were asked, bool [S, n]."""

    ranks: np.ndarray
    blind: np.ndarray
    asked: np.ndarray


def take_retrieval(ctx: EvalContext) -> dict[str, Any]:
    """Scores by name: "retrieval", and for seq-JEPA "retrieval_3", "retrieval_online" and "retrieval_3_online"; their
    intervals under "intervals"."""
    method = ctx.loaded.method
    if ctx.splits.val.sequences is not None:
        return _along_sequences(ctx)
    if isinstance(method, PredictsViews):
        found = _of_sequences(ctx, method)
    else:
        assert isinstance(method, Predicting), "why_not has turned others away"
        found = _of_pairs(ctx, method)
    scores = {name: retrieval_scores(of, ctx.splits.val.n_views) for name, of in found.items()}
    intervals: dict[str, Any] = {}
    for name, of in found.items():
        moved = rank_intervals(of.ranks, without_identity(of.asked), ctx.bench.resampling)
        whole = rank_intervals(of.ranks, of.asked, ctx.bench.resampling)
        intervals[name] = {**whole, **_marked(moved, "no_identity")}
    return {**scores, "intervals": intervals}


def _of_pairs(ctx: EvalContext, method: Predicting) -> dict[str, Found]:
    features, device = ctx.splits.val, ctx.bench.device
    asked = queries(features, ctx.loaded.action, 1, ctx.bench.seed)
    predictions = partial(by_predictor, method, features, asked, device)
    return _found(ctx, asked, predictions, {"retrieval": projected(method, features, device)})


def _of_sequences(ctx: EvalContext, method: PredictsViews) -> dict[str, Found]:
    features, device = ctx.splits.val, ctx.bench.device
    kinds = {"": target_features(ctx), "_online": features.z}
    candidates = {kind: partial(rows_of, z, device=device) for kind, z in kinds.items()}
    found: dict[str, Found] = {}
    for name, context in (("retrieval", 1), (f"retrieval_{LONG_CONTEXT}", LONG_CONTEXT)):
        asked = queries(features, ctx.loaded.action, context, ctx.bench.seed)
        if without_identity(asked.asked).any():
            predictions = partial(by_aggregate, method, features, asked, device)
            found |= _found(ctx, asked, predictions, {name + kind: of for kind, of in candidates.items()})
    return found


def _along_sequences(ctx: EvalContext) -> dict[str, Any]:
    """Of views that belong to longer sequences: after the last of M views of a draw comes one that is looked for among
    some of its sequence. Scores by name as above, without identities, which no draw has."""
    features, bench, method = ctx.splits.val, ctx.bench, ctx.loaded.method
    contexts = (1, LONG_CONTEXT) if isinstance(method, PredictsViews) else (1,)
    draws = draws_of(features)
    found: dict[str, Any] = {}
    for context in (c for c in contexts if c < features.most_views):
        ranks, blind, counts = (
            np.concatenate(parts)
            for parts in zip(*(_one_draw(ctx, context, draw) for draw in range(draws)), strict=True)
        )
        asked = np.ones_like(ranks, bool)
        name = "retrieval" if context == 1 else f"retrieval_{context}"
        by_chance = {**_marked(rank_scores(blind, asked), "blind"), **_marked(chance(counts), "chance")}
        found[name] = {**rank_scores(ranks, asked), **by_chance, "queries": len(ranks), "context": context}
        found.setdefault("intervals", {})[name] = rank_intervals(ranks, asked, bench.resampling)
    return found


def _one_draw(ctx: EvalContext, context: int, draw: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ranks and those of blind predictions int64 [S, 1], and how many candidates there were [S]."""
    features, device, method = ctx.splits.val, ctx.bench.device, ctx.loaded.method
    way = features.draw(ctx.bench.seed, draw, Purpose.EVALUATION, context + 1)
    pool = pool_of(features, way, 1, ctx.bench.seed, draw)
    if isinstance(method, PredictsViews):
        found = walk(method, features, target_features(ctx), way, ctx.loaded.action, pool, device)
        return found["rollout"], found["blind"], pool.count
    assert isinstance(method, Predicting), "why_not has turned others away"
    ranks, blind = predict_next(method, features, way, ctx.loaded.action, pool, device)
    return ranks, blind, pool.count


def _found(
    ctx: EvalContext, asked: Queries, predictions: Callable[..., OfObjects], candidates: Mapping[str, OfObjects]
) -> dict[str, Found]:
    """By the candidates' name. predictions(shift=…): as in retrieval_embeddings."""
    ranks, blind = (
        rank_views(ctx.splits.val, predictions(shift=shift), candidates, ctx.bench.device) for shift in (0, 1)
    )
    return {name: Found(ranks[name], blind[name], asked.asked) for name in candidates}


def retrieval_scores(found: Found, n_views: np.ndarray) -> dict[str, float]:
    """{mrr, h1, h5, …_no_identity, …_blind, …_chance, queries}.

    Blind: what the action gives away by itself, predictions being made from views of another object.
    """
    asked = found.asked
    return {
        **rank_scores(found.ranks, asked),
        **_marked(rank_scores(found.ranks, without_identity(asked)), "no_identity"),
        **_marked(rank_scores(found.blind, asked), "blind"),
        **_marked(chance(np.repeat(n_views, asked.sum(axis=1))), "chance"),
        "queries": int(asked.sum()),
    }


def _marked(scores: dict[str, Any], mark: str) -> dict[str, Any]:
    return {f"{name}_{mark}": value for name, value in scores.items()}


def _why_no_retrieval(ctx: EvalContext) -> str:
    if not isinstance(ctx.loaded.method, PredictsViews | Predicting):
        return "the method has no predictor that is told one view's embedding and an action"
    return why_not_retrieved(ctx)


RETRIEVAL = Study("retrieval", _why_no_retrieval, take_retrieval)


@dataclass(frozen=True)
class Queries:
    """Of every object and view j: the slots that are shown and then asked for, int64 [S, n, M + 1], the last but one
    being view 0 and the last j; the actions between them, float32 [S, n, M, A]; which queries there are, bool [S, n].
    """

    slots: np.ndarray
    actions: Tensor
    asked: np.ndarray


def queries(features: Features, action: ActionSpec, context: int, seed: int) -> Queries:
    """Queries with `context` views M ≥ 1, view 0 last. The others are drawn for each query, from all but 0 and j.

    Objects that have too few views for that are not asked about j.
    """
    paths, asked = zip(*(_one_query(features, j, context, seed) for j in range(features.z.shape[1])), strict=True)
    firsts = np.arange(len(features))[:, None] * features.z.shape[1]
    actions = torch.stack([features.actions(firsts + path, action) for path in paths], dim=1)
    return Queries(np.stack(paths, axis=1), actions, np.stack(asked, axis=1))


def _one_query(features: Features, j: int, context: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots [S, M + 1] of the query for view j, and who is asked [S]. Rows that are not asked are all view 0."""
    more = context - 1
    left = features.n_views - (1 if j == 0 else 2)
    asked = (features.n_views > max(j, context)) & (left >= more)  # among as many as are shown there is nothing to find
    drawn = choose_distinct(
        np.maximum(left, more), draw_u32(seed, j, Purpose.EVALUATION, np.arange(len(features)), more)
    )
    others = 1 + drawn + ((drawn + 1 >= j) & (j > 0))  # counts 1, 2, … and leaves out j
    last = np.broadcast_to([0, j], (len(features), 2))
    return np.where(asked[:, None], np.concatenate([others, last], axis=1), 0), asked


def without_identity(asked: np.ndarray) -> np.ndarray:
    """Without the queries for view 0, which stays a candidate of the others: bool [S, n]."""
    return asked & (np.arange(asked.shape[1]) > 0)


OfObjects = Callable[[Tensor], Tensor]
"""Objects int64 [b] → embeddings float32 [b, n, P]."""


def by_predictor(
    method: Predicting, features: Features, asked: Queries, device: torch.device, shift: int = 0
) -> OfObjects:
    """ŷ of every view j from y of view 0 and the action 0 → j; M = 1. shift: from view 0 of the object so much
    further on, which tells of the object that is asked about nothing but the action."""

    def predictions(objects: Tensor) -> Tensor:
        y = method.project(rows_of(features.z, (objects + shift) % len(features), device)[:, 0])
        actions = rows_of(asked.actions, objects, device)[:, :, 0]
        repeated = y.repeat_interleave(actions.shape[1], dim=0)
        return method.predict(repeated, actions.flatten(0, 1)).unflatten(0, actions.shape[:2])

    return predictions


def by_aggregate(
    method: PredictsViews, features: Features, asked: Queries, device: torch.device, shift: int = 0
) -> OfObjects:
    """ẑ of every view j from z_AGG of the context and the action 0 → j. shift: as above; of an object that has fewer
    views its views in turn."""
    shown = torch.from_numpy(asked.slots[..., :-1]).to(features.z.device)
    n_views = torch.from_numpy(features.n_views).to(features.z.device)

    def predictions(objects: Tensor) -> Tensor:
        at = objects.to(features.z.device)
        seen = (at + shift) % len(features)
        z = features.z[seen[:, None, None], shown[at] % n_views[seen][:, None, None]].to(device).float()
        actions = rows_of(asked.actions, objects, device).flatten(0, 1)
        z_agg = method.aggregate(z.flatten(0, 1), actions[:, :-1])
        return method.predict(z_agg, actions[:, -1]).unflatten(0, z.shape[:2])

    return predictions


def projected(method: Predicting, features: Features, device: torch.device) -> OfObjects:
    """Candidates: y of every view."""

    def candidates(objects: Tensor) -> Tensor:
        z = rows_of(features.z, objects, device)
        return method.project(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    return candidates


def rows_of(values: Tensor, objects: Tensor, device: torch.device) -> Tensor:
    """float32 rows of a tensor that may lie elsewhere."""
    return values[objects.to(values.device)].to(device).float()
