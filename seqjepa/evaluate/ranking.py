"""Where the right candidate comes among all: ranks, MRR and hits (Table 10).

Letters: S objects of a split, b of a chunk, q queries of an object, n candidates, P width of an embedding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.evaluate.intervals import Averaged, Resampling

TIE = 1e-12
HITS = (1, 5)


def ranks_of(predicted: Tensor, candidates: Tensor, right: Tensor, count: Tensor) -> Tensor:
    """The rank, 1 for the best, of the right candidate by cosine: int64 [b, q].

    predicted [b, q, P], candidates [b, n, P] of which the first count[b] are there, right int64 [b, q].
    Candidates that are as similar as the right one (within 1e-12, in float64) come before it, and so do all of them
    where a prediction is zero or not a number: an encoder that gives the same for all views gets the last rank.
    """
    similarity = F.normalize(predicted.double(), dim=-1) @ F.normalize(candidates.double(), dim=-1).mT
    of_right = similarity.gather(-1, right.unsqueeze(-1))
    before = ~(similarity < of_right - TIE)
    there = torch.arange(candidates.shape[1], device=count.device) < count[:, None]
    before = before.scatter(-1, right.unsqueeze(-1), False) & there[:, None]
    return 1 + before.sum(-1)


def rank_scores(ranks: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Mean reciprocal rank and hits over the queries that were asked: int64 and bool [S, q] → {mrr, h1, h5}."""
    return {name: float(values[asked].mean()) for name, values in _values(ranks).items()}


def rank_intervals(ranks: np.ndarray, asked: np.ndarray, resampling: Resampling) -> dict[str, list[float]]:
    """Bootstrap intervals of the same over objects, each with all its queries."""
    rows = {name: np.where(asked, values, 0).sum(axis=1) for name, values in _values(ranks).items()}
    return {name: object_interval(sums, asked.sum(axis=1), resampling) for name, sums in rows.items()}


def object_interval(sums: np.ndarray, counts: np.ndarray, resampling: Resampling) -> list[float]:
    """Of a mean over everything, from sums and counts for each object [S] (or [draws · S], draw after draw)."""
    rows = torch.from_numpy(np.stack([sums, counts], axis=1).astype(np.float64)).to(resampling.counts.device)
    return resampling.interval(Averaged(rows, lambda means: means[:, 0] / means[:, 1].clamp(min=1e-300)))


def chance(candidates: np.ndarray) -> dict[str, float]:
    """What random embeddings score, queries having `candidates` int [k] candidates each: 1/n Σ 1/r and k/n."""
    harmonic = np.cumsum(1 / np.arange(1, candidates.max() + 1))
    by_chance = {"mrr": harmonic[candidates - 1] / candidates} | {
        f"h{k}": np.minimum(k, candidates) / candidates for k in HITS
    }
    return {name: float(values.mean()) for name, values in by_chance.items()}


def _values(ranks: np.ndarray) -> dict[str, np.ndarray]:
    return {"mrr": 1 / ranks} | {f"h{k}": (ranks <= k).astype(np.float64) for k in HITS}
