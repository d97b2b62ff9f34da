"""Predictions along the ways that a split's samples go, and among which views the true ones are looked for.

Letters: S samples, b of a pass, V = M + K views of a way: M of its context, K predicted; n candidates, N slots of a
sample, D width of z, A of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.metrics import ranks_of
from seqjepa.methods.base import Predicting, PredictsViews
from shards.schema import ActionSpec

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
    return Pool(places, count, right, way[_of_the_next_sequence(sequences.ids)])


def _of_the_next_sequence(ids: np.ndarray) -> np.ndarray:
    """For each sample one of the next sequence, after the last of the first: int64 [S]."""
    firsts = np.flatnonzero(np.diff(ids, prepend=-1))
    return firsts[(ids + 1) % len(firsts)]


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
