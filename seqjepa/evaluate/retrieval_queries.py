"""Who looks for which view in retrieval, from which context (facebookresearch/SIE@54541cf eval_MRR_Hk.py:97-117).

Letters: S objects of a split, n view slots, M views of a context, A size of an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.bank import FeatureBank


@dataclass(frozen=True)
class Queries:
    """Of every object and view j: the slots that are shown and then asked for, int64 [S, n, M + 1], the last but one
    being view 0 and the last j; the actions between them, float32 [S, n, M, A]; which queries there are, bool [S, n].
    """

    slots: np.ndarray
    actions: Tensor
    asked: np.ndarray


def queries(bank: FeatureBank, action: str, context: int, seed: int) -> Queries:
    """Queries with `context` views M ≥ 1, view 0 last. The others are drawn for each query, from all but 0 and j.

    Objects that have too few views for that are not asked about j.
    """
    paths, asked = zip(*(_one_query(bank, j, context, seed) for j in range(bank.z.shape[1])), strict=True)
    actions = torch.stack([bank.actions(path, action) for path in paths], dim=1)
    return Queries(np.stack(paths, axis=1), actions, np.stack(asked, axis=1))


def _one_query(bank: FeatureBank, j: int, context: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Slots [S, M + 1] of the query for view j, and who is asked [S]. Rows that are not asked are all view 0."""
    more = context - 1
    left = bank.n_views - (1 if j == 0 else 2)
    asked = (bank.n_views > max(j, context)) & (left >= more)  # among as many as are shown there is nothing to find
    drawn = choose_distinct(np.maximum(left, more), draw_u32(seed, j, Purpose.EVALUATION, np.arange(len(bank)), more))
    others = 1 + drawn + ((drawn + 1 >= j) & (j > 0))  # counts 1, 2, … and leaves out j
    last = np.broadcast_to([0, j], (len(bank), 2))
    return np.where(asked[:, None], np.concatenate([others, last], axis=1), 0), asked


def without_identity(asked: np.ndarray) -> np.ndarray:
    """Without the queries for view 0, which stays a candidate of the others: bool [S, n]."""
    return asked & (np.arange(asked.shape[1]) > 0)
