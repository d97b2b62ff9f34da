"""Retrieval by the predictor: MRR, H@1 and H@5 in SIE's protocol (SPEC D.5).

The source is view 0 of an object. For every view j of it, j = 0 included, the embedding that the predictor makes of the
source and the action 0 → j looks for view j among all views of the object.

Letters: S objects of a split, b of a chunk, n view slots, M views of a context, D width of z, P of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.intervals import Resampling
from seqjepa.evaluate.ranking import chance, rank_intervals, rank_scores, ranks_of
from seqjepa.evaluate.retrieval_queries import Queries, queries, without_identity
from seqjepa.evaluate.study import Case, Study
from seqjepa.evaluate.target_features import target_features, why_not_retrieved
from seqjepa.methods.base import Predicting
from seqjepa.methods.seq_jepa import SeqJEPA

LONG_CONTEXT = 3
GPU_QUERIES, CPU_QUERIES = 16384, 2048  # at once
OfObjects = Callable[[Tensor], Tensor]
"""Objects int64 [b] → embeddings float32 [b, n, P]."""


def by_predictor(method: Predicting, bank: FeatureBank, asked: Queries, device: torch.device) -> OfObjects:
    """ŷ of every view j from y of view 0 and the action 0 → j; M = 1."""

    def predictions(objects: Tensor) -> Tensor:
        y = method.project(_rows(bank.z, objects, device)[:, 0])
        actions = _rows(asked.actions, objects, device)[:, :, 0]
        repeated = y.repeat_interleave(actions.shape[1], dim=0)
        return method.predict(repeated, actions.flatten(0, 1)).unflatten(0, actions.shape[:2])

    return predictions


def by_aggregate(method: SeqJEPA, bank: FeatureBank, asked: Queries, device: torch.device) -> OfObjects:
    """ẑ of every view j from z_AGG of the context and the action 0 → j."""
    shown = torch.from_numpy(asked.slots[..., :-1]).to(bank.z.device)

    def predictions(objects: Tensor) -> Tensor:
        at = objects.to(bank.z.device)
        z = bank.z[at[:, None, None], shown[at]].to(device).float()
        actions = _rows(asked.actions, objects, device).flatten(0, 1)
        z_agg = method.aggregate(z.flatten(0, 1), actions[:, :-1])
        return method.predict(z_agg, actions[:, -1]).unflatten(0, z.shape[:2])

    return predictions


def as_they_are(z: Tensor, device: torch.device) -> OfObjects:
    """Candidates: features [S, n, D] themselves."""
    return lambda objects: _rows(z, objects, device)


def projected(method: Predicting, bank: FeatureBank, device: torch.device) -> OfObjects:
    """Candidates: y of every view."""

    def candidates(objects: Tensor) -> Tensor:
        z = _rows(bank.z, objects, device)
        return method.project(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    return candidates


@torch.no_grad()
def rank_views(
    bank: FeatureBank, predictions: OfObjects, candidates: Mapping[str, OfObjects], device: torch.device
) -> dict[str, np.ndarray]:
    """The rank of view j for the prediction of view j, among each kind of candidates: int64 [S, n] by their name."""
    n = bank.z.shape[1]
    at_once = max(1, (GPU_QUERIES if device.type == "cuda" else CPU_QUERIES) // n)
    count = torch.from_numpy(bank.n_views).to(device)
    found: dict[str, list[Tensor]] = {name: [] for name in candidates}
    for objects in torch.arange(len(bank), device=device).split(at_once):
        predicted = predictions(objects)
        right = torch.arange(n, device=device).expand(len(objects), n)
        for name, of in candidates.items():
            found[name].append(ranks_of(predicted, of(objects), right, count[objects]).cpu())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def take_retrieval(case: Case) -> dict[str, Any]:
    """Scores by name: "retrieval", and for seq-JEPA "retrieval_3", "retrieval_online" and "retrieval_3_online"; their
    intervals under "intervals"."""
    method = case.loaded.method
    if isinstance(method, SeqJEPA):
        found = _of_sequences(case, method)
    else:
        assert isinstance(method, Predicting), "why_not has turned others away"
        found = _of_pairs(case, method)
    scores = {name: retrieval_scores(ranks, asked, case.banks.val.n_views) for name, (ranks, asked) in found.items()}
    if case.bench.resampling is None:
        return scores
    intervals = {name: _intervals(ranks, asked, case.bench.resampling) for name, (ranks, asked) in found.items()}
    return {**scores, "intervals": intervals}


Ranked = dict[str, tuple[np.ndarray, np.ndarray]]
"""By name: ranks int64 [S, n], and which of them were asked for, bool [S, n]."""


def _of_pairs(case: Case, method: Predicting) -> Ranked:
    bank, device = case.banks.val, case.bench.device
    asked = queries(bank, case.loaded.data.action, 1, case.bench.seed)
    candidates = {"retrieval": projected(method, bank, device)}
    ranks = rank_views(bank, by_predictor(method, bank, asked, device), candidates, device)
    return {"retrieval": (ranks["retrieval"], asked.asked)}


def _of_sequences(case: Case, method: SeqJEPA) -> Ranked:
    bank, device = case.banks.val, case.bench.device
    features = {"": as_they_are(target_features(case), device), "_online": as_they_are(bank.z, device)}
    found: Ranked = {}
    for name, context in (("retrieval", 1), (f"retrieval_{LONG_CONTEXT}", LONG_CONTEXT)):
        asked = queries(bank, case.loaded.data.action, context, case.bench.seed)
        if without_identity(asked.asked).any():
            candidates = {name + kind: of for kind, of in features.items()}
            ranks = rank_views(bank, by_aggregate(method, bank, asked, device), candidates, device)
            found |= {kind: (of, asked.asked) for kind, of in ranks.items()}
    return found


def _intervals(ranks: np.ndarray, asked: np.ndarray, resampling: Resampling) -> dict[str, list[float]]:
    moved = rank_intervals(ranks, without_identity(asked), resampling)
    return {**rank_intervals(ranks, asked, resampling), **_not_identity(moved)}


def retrieval_scores(ranks: np.ndarray, asked: np.ndarray, n_views: np.ndarray) -> dict[str, float]:
    """{mrr, h1, h5, …_no_identity, …_chance, queries} of ranks and which were asked [S, n]."""
    by_chance = chance(np.repeat(n_views, asked.sum(axis=1)))
    return {
        **rank_scores(ranks, asked),
        **_not_identity(rank_scores(ranks, without_identity(asked))),
        **{f"{name}_chance": value for name, value in by_chance.items()},
        "queries": int(asked.sum()),
    }


def _not_identity(scores: dict[str, Any]) -> dict[str, Any]:
    return {f"{name}_no_identity": value for name, value in scores.items()}


def _rows(values: Tensor, objects: Tensor, device: torch.device) -> Tensor:
    """float32 rows of a tensor that may lie elsewhere."""
    return values[objects.to(values.device)].to(device).float()


def _why_not(case: Case) -> str:
    if not isinstance(case.loaded.method, (SeqJEPA, Predicting)):
        return "the method has no predictor that is told one view's embedding and an action"
    return why_not_retrieved(case)


_SHOWN = {"mrr": "MRR", "h1": "H@1", "h5": "H@5"}
_KINDS = {
    "retrieval": "retrieval",
    "retrieval_3": "retrieval after 3 views",
    "retrieval_online": "retrieval among online features",
    "retrieval_3_online": "retrieval after 3 views among online features",
}
RETRIEVAL = Study(
    name="retrieval",
    why_not=_why_not,
    take=take_retrieval,
    rows={
        f"{kind}.{score}{part}": f"{shown}, {label}{said}"
        for kind, shown in _KINDS.items()
        for part, said in (("", ""), ("_no_identity", " without the identity"), ("_chance", " by chance"))
        for score, label in _SHOWN.items()
    },
)
