"""Latent rollouts: seq-JEPA walks on from its own predictions. How soon does it lose its way?

The paper names this as future work. From a context of true views the model predicts the next view's features, takes
the prediction for the next view, and so on for h = 1 … K. At each horizon the prediction looks for the true view among
all views of the object, as in retrieval.

Predictions are of the target encoder's features, tokens are the online encoder's: an average of the same encoder over
the last steps, so the one may stand for the other. Their length may not: the cosine loss leaves it open. A prediction
is brought to the mean length of the context's features before it becomes a token.

Letters: S objects, b of a chunk, n view slots, M views of the context, K horizons, D width of z, A of an action.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from seqjepa.data.draws import Purpose
from seqjepa.evaluate.metrics import Resampling, chance, rank_intervals, rank_scores
from seqjepa.evaluate.retrieval import target_features, why_not_retrieved
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.evaluate.walks import draws_of, pool_of, walk
from seqjepa.methods.base import PredictsViews

FARTHEST = 8


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
    scores = {"rollout": {**_named(every, by_horizon), **by_chance, **extra}}
    if ctx.bench.resampling is None:
        return scores
    intervals = _named(every, partial(horizon_intervals, resampling=ctx.bench.resampling))
    return {**scores, "intervals": {"rollout": intervals}}


def _named(ranks: dict[str, np.ndarray], measured: Callable[[np.ndarray], dict[str, Any]]) -> dict[str, Any]:
    """{mrr, h1, mrr_teacher, …}"""
    named = {kind: measured(of) for kind, of in ranks.items()}
    others = {f"{name}_{kind}": of[name] for kind, of in named.items() if kind != "rollout" for name in of}
    return {**named["rollout"], **others}


def extent(trained_on: int, most_views: int) -> tuple[int, int]:
    """How many true views a walk begins with, as many as in training or fewer if there is no other way to go on from
    them, and how many steps it goes, at most 8."""
    context = min(trained_on, most_views - 1)
    return context, min(FARTHEST, most_views - context)


def by_horizon(ranks: np.ndarray) -> dict[str, dict[str, float]]:
    """Ranks [q, K] → {mrr: {"1": …}, h1: {…}}."""
    return _turned([rank_scores(column, np.ones_like(column, bool)) for column in _columns(ranks)])


def horizon_intervals(ranks: np.ndarray, resampling: Resampling) -> dict[str, dict[str, list[float]]]:
    """The same with bootstrap intervals over objects; ranks [draws · S, K], draw after draw."""
    return _turned([rank_intervals(column, np.ones_like(column, bool), resampling) for column in _columns(ranks)])


def _columns(ranks: np.ndarray) -> list[np.ndarray]:
    return list(ranks.T[..., None])


def _turned(by_step: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {str(h): numbers[name] for h, numbers in enumerate(by_step, 1)} for name in ("mrr", "h1")}


def _why_not(ctx: EvalContext) -> str:
    if not isinstance(ctx.loaded.method, PredictsViews):
        return "the method does not go on from its own predictions (seq-JEPA does)"
    if ctx.splits.val.most_views < 2:
        return "some samples have one view"
    if ctx.splits.val.stride and not ctx.loaded.method.predictor_sees_actions:
        return ""  # what comes next in a window can be predicted without being told the action
    return why_not_retrieved(ctx)


ROLLOUTS = Study(
    name="rollout",
    why_not=_why_not,
    take=take_rollouts,
)
