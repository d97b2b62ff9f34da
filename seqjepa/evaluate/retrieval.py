"""Retrieval by the predictor: MRR, H@1 and H@5 in SIE's protocol (facebookresearch/SIE@54541cf eval_MRR_Hk.py:278-332).

The source is view 0 of an object. For every view j of it, j = 0 included, the embedding that the predictor makes of the
source and the action 0 → j looks for view j among all views of the object.

Letters: S objects of a split, n view slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.intervals import Resampling
from seqjepa.evaluate.ranking import chance, rank_intervals, rank_scores, ranks_of
from seqjepa.evaluate.retrieval_embeddings import OfObjects, as_they_are, by_aggregate, by_predictor, projected
from seqjepa.evaluate.retrieval_queries import Queries, queries, without_identity
from seqjepa.evaluate.study import Case, Study
from seqjepa.evaluate.target_features import target_features, why_not_retrieved
from seqjepa.methods.base import Predicting
from seqjepa.methods.seq_jepa import SeqJEPA

LONG_CONTEXT = 3
GPU_QUERIES, CPU_QUERIES = 16384, 2048  # at once


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


class Found(NamedTuple):
    """Ranks int64 [S, n] of predictions, and of those from another object's views; which were asked, bool [S, n]."""

    ranks: np.ndarray
    blind: np.ndarray
    asked: np.ndarray


def take_retrieval(case: Case) -> dict[str, Any]:
    """Scores by name: "retrieval", and for seq-JEPA "retrieval_3", "retrieval_online" and "retrieval_3_online"; their
    intervals under "intervals"."""
    method = case.loaded.method
    if isinstance(method, SeqJEPA):
        found = _of_sequences(case, method)
    else:
        assert isinstance(method, Predicting), "why_not has turned others away"
        found = _of_pairs(case, method)
    scores = {name: retrieval_scores(of, case.banks.val.n_views) for name, of in found.items()}
    if case.bench.resampling is None:
        return scores
    return {**scores, "intervals": {name: _intervals(of, case.bench.resampling) for name, of in found.items()}}


def _of_pairs(case: Case, method: Predicting) -> dict[str, Found]:
    bank, device = case.banks.val, case.bench.device
    asked = queries(bank, case.loaded.data.action, 1, case.bench.seed)
    predictions = partial(by_predictor, method, bank, asked, device)
    return _found(case, asked, predictions, {"retrieval": projected(method, bank, device)})


def _of_sequences(case: Case, method: SeqJEPA) -> dict[str, Found]:
    bank, device = case.banks.val, case.bench.device
    features = {"": as_they_are(target_features(case), device), "_online": as_they_are(bank.z, device)}
    found: dict[str, Found] = {}
    for name, context in (("retrieval", 1), (f"retrieval_{LONG_CONTEXT}", LONG_CONTEXT)):
        asked = queries(bank, case.loaded.data.action, context, case.bench.seed)
        if without_identity(asked.asked).any():
            predictions = partial(by_aggregate, method, bank, asked, device)
            found |= _found(case, asked, predictions, {name + kind: of for kind, of in features.items()})
    return found


def _found(
    case: Case, asked: Queries, predictions: Callable[..., OfObjects], candidates: Mapping[str, OfObjects]
) -> dict[str, Found]:
    """By the candidates' name. predictions(shift=…): as in retrieval_embeddings."""
    ranks, blind = (
        rank_views(case.banks.val, predictions(shift=shift), candidates, case.bench.device) for shift in (0, 1)
    )
    return {name: Found(ranks[name], blind[name], asked.asked) for name in candidates}


def _intervals(found: Found, resampling: Resampling) -> dict[str, list[float]]:
    moved = rank_intervals(found.ranks, without_identity(found.asked), resampling)
    return {**rank_intervals(found.ranks, found.asked, resampling), **_marked(moved, "no_identity")}


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


def _why_not(case: Case) -> str:
    if not isinstance(case.loaded.method, (SeqJEPA, Predicting)):
        return "the method has no predictor that is told one view's embedding and an action"
    return why_not_retrieved(case)


_SCORES = {
    "mrr": "MRR, {}",
    "h1": "H@1, {}",
    "h5": "H@5, {}",
    "mrr_no_identity": "MRR, {}, without the identity",
    "h1_no_identity": "H@1, {}, without the identity",
    "h5_no_identity": "H@5, {}, without the identity",
    "mrr_blind": "MRR, {}, from another object's views",
    "mrr_chance": "MRR, {}, by chance",
}
_AFTER = {"retrieval": "retrieval", "retrieval_3": "retrieval after 3 views"}
RETRIEVAL = Study(
    name="retrieval",
    why_not=_why_not,
    take=take_retrieval,
    rows={
        **{f"{kind}.{score}": label.format(said) for kind, said in _AFTER.items() for score, label in _SCORES.items()},
        **{f"{kind}_online.mrr": f"MRR, {said} among online features" for kind, said in _AFTER.items()},
    },
)
