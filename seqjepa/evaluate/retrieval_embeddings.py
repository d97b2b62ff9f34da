"""What is compared in retrieval: embeddings that are predicted, and those of the views that there are.

Letters: S objects of a split, b of a chunk, n view slots, M views of a context, P width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.retrieval_queries import Queries
from seqjepa.methods.base import Predicting
from seqjepa.methods.seq_jepa import SeqJEPA

OfObjects = Callable[[Tensor], Tensor]
"""Objects int64 [b] → embeddings float32 [b, n, P]."""


def by_predictor(
    method: Predicting, bank: FeatureBank, asked: Queries, device: torch.device, shift: int = 0
) -> OfObjects:
    """ŷ of every view j from y of view 0 and the action 0 → j; M = 1. shift: from view 0 of the object so much
    further on, which tells of the object that is asked about nothing but the action."""

    def predictions(objects: Tensor) -> Tensor:
        y = method.project(rows_of(bank.z, (objects + shift) % len(bank), device)[:, 0])
        actions = rows_of(asked.actions, objects, device)[:, :, 0]
        repeated = y.repeat_interleave(actions.shape[1], dim=0)
        return method.predict(repeated, actions.flatten(0, 1)).unflatten(0, actions.shape[:2])

    return predictions


def by_aggregate(method: SeqJEPA, bank: FeatureBank, asked: Queries, device: torch.device, shift: int = 0) -> OfObjects:
    """ẑ of every view j from z_AGG of the context and the action 0 → j. shift: as above; of an object that has fewer
    views its views in turn."""
    shown = torch.from_numpy(asked.slots[..., :-1]).to(bank.z.device)
    n_views = torch.from_numpy(bank.n_views).to(bank.z.device)

    def predictions(objects: Tensor) -> Tensor:
        at = objects.to(bank.z.device)
        seen = (at + shift) % len(bank)
        z = bank.z[seen[:, None, None], shown[at] % n_views[seen][:, None, None]].to(device).float()
        actions = rows_of(asked.actions, objects, device).flatten(0, 1)
        z_agg = method.aggregate(z.flatten(0, 1), actions[:, :-1])
        return method.predict(z_agg, actions[:, -1]).unflatten(0, z.shape[:2])

    return predictions


def as_they_are(z: Tensor, device: torch.device) -> OfObjects:
    """Candidates: features [S, n, D] themselves."""
    return lambda objects: rows_of(z, objects, device)


def projected(method: Predicting, bank: FeatureBank, device: torch.device) -> OfObjects:
    """Candidates: y of every view."""

    def candidates(objects: Tensor) -> Tensor:
        z = rows_of(bank.z, objects, device)
        return method.project(z.flatten(0, 1)).unflatten(0, z.shape[:2])

    return candidates


def rows_of(values: Tensor, objects: Tensor, device: torch.device) -> Tensor:
    """float32 rows of a tensor that may lie elsewhere."""
    return values[objects.to(values.device)].to(device).float()
