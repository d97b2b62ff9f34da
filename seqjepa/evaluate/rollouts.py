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
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.draws import Purpose
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import Resampling, chance, rank_intervals, rank_scores, ranks_of
from seqjepa.evaluate.retrieval import target_features, why_not_retrieved
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.methods.base import PredictsViews
from shards.schema import ActionSpec

FARTHEST = 8
ENOUGH_WALKS, MOST_DRAWS = 8192, 8
GPU_WALKS, CPU_WALKS = 8192, 1024  # at once


def roll_out(method: PredictsViews, z: Tensor, actions: Tensor) -> Tensor:
    """Predictions from predictions: z [b, M, D] of true views, actions [b, M − 1 + K, A] along the whole way, the first
    M − 1 of them between those views → ẑ [b, K, D] of the K views that follow. Meant for eval mode."""
    context = z.shape[1]
    length = z.norm(dim=-1).mean(dim=1, keepdim=True)
    known = z
    for step in range(context - 1, actions.shape[1]):
        predicted = _next(method, known, actions[:, : step + 1])
        known = torch.cat((known, (F.normalize(predicted, dim=-1) * length).unsqueeze(1)), dim=1)
    return known[:, context:]


def one_by_one(method: PredictsViews, z: Tensor, actions: Tensor, context: int) -> Tensor:
    """The same views, each from the true features of all before it: z [b, M − 1 + K, D] → [b, K, D]."""
    steps = range(context - 1, actions.shape[1])
    return torch.stack([_next(method, z[:, : step + 1], actions[:, : step + 1]) for step in steps], dim=1)


def _next(method: PredictsViews, z: Tensor, actions: Tensor) -> Tensor:
    """z and actions of the views so far, the last action leading on: ẑ [b, D] of the next."""
    return method.predict(method.aggregate(z, actions[:, :-1]), actions[:, -1])


@torch.no_grad()
def walk(
    method: PredictsViews,
    features: Features,
    targets: Tensor,
    slots: np.ndarray,
    action: ActionSpec,
    context: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Ranks int64 [S, K] of the true views: "rollout" from predictions, "teacher" from true features, "blind" as a
    rollout from the views of the next object, to which only the actions say where this one goes.

    slots int64 [S, M + K] of the way; targets: candidates' features [S, n, D].
    """
    way, actions = torch.from_numpy(slots), features.actions(slots, action)
    n_views = torch.from_numpy(features.n_views)
    found: dict[str, list[Tensor]] = {"rollout": [], "teacher": [], "blind": []}
    for objects in torch.arange(len(features)).split(GPU_WALKS if device.type == "cuda" else CPU_WALKS):
        z = _features(features, objects, way[objects, :-1], device)
        others = (objects + 1) % len(features)
        z_others = _features(features, others, way[objects, :context] % n_views[others, None], device)
        a = actions[objects.to(actions.device)].to(device)
        candidates = targets[objects.to(targets.device)].to(device).float()
        predicted = {
            "rollout": roll_out(method, z[:, :context], a),
            "teacher": one_by_one(method, z, a, context),
            "blind": roll_out(method, z_others, a),
        }
        right, count = way[objects, context:].to(device), n_views[objects].to(device)
        for name, guess in predicted.items():
            found[name].append(ranks_of(guess, candidates, right, count).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def _features(features: Features, objects: Tensor, slots: Tensor, device: torch.device) -> Tensor:
    """float32 z [b, V, D] of slots [b, V]."""
    return features.z[objects.to(features.z.device)[:, None], slots.to(features.z.device)].to(device).float()


def take_rollouts(ctx: EvalContext) -> dict[str, Any]:
    """{"rollout": {mrr: {"1": …}, h1, …_teacher, …_blind, …_chance, context, queries}}, queries at each horizon, and
    intervals. Walks of a small split are drawn up to eight times."""
    method, features, device = ctx.loaded.method, ctx.splits.val, ctx.bench.device
    assert isinstance(method, PredictsViews), "why_not has turned others away"
    context, horizons = extent(ctx.loaded.config.data.context, features.most_views)
    targets, action = target_features(ctx), ctx.loaded.action
    draws = min(MOST_DRAWS, features.runs if features.run_length else MOST_DRAWS, -(-ENOUGH_WALKS // len(features)))
    ranks: dict[str, list[np.ndarray]] = {}
    for draw in range(draws):
        slots = features.draw(ctx.bench.seed, draw, Purpose.EVALUATION, context + horizons)
        for name, found in walk(method, features, targets, slots, action, context, device).items():
            ranks.setdefault(name, []).append(found)
    every = {name: np.concatenate(parts) for name, parts in ranks.items()}
    by_chance = {"mrr_chance": chance(features.n_views)["mrr"], "h1_chance": chance(features.n_views)["h1"]}
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
    return why_not_retrieved(ctx)


ROLLOUTS = Study(
    name="rollout",
    why_not=_why_not,
    take=take_rollouts,
)
