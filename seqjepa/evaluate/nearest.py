"""The nearest rows by cosine, a block at a time: no matrix of all pairs is ever there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

QUERY_ROWS = 1024
BLOCK_ROWS = 16384


def directions(z: Tensor) -> Tensor:
    """Rows of length 1 in float32, or zero: [T, D] → [T, D]."""
    return F.normalize(z.float(), dim=-1)


@torch.no_grad()
def nearest(x: Tensor, queries: Tensor, count: int) -> Tensor:
    """The `count` rows of x [T, D], of length 1, that are most similar to each of x[queries], itself left out.

    queries int64 [Q], T > count → int64 [Q, count], nearest first; of rows that are as similar the first.
    """
    return torch.cat([_nearest_of(x, rows, count) for rows in queries.split(QUERY_ROWS)])


def _nearest_of(x: Tensor, rows: Tensor, count: int) -> Tensor:
    best = torch.full((len(rows), count), -torch.inf, device=x.device)
    best_rows = torch.zeros(len(rows), count, dtype=torch.int64, device=x.device)
    for start in range(0, len(x), BLOCK_ROWS):
        block = x[start : start + BLOCK_ROWS]
        similarity = x[rows] @ block.T
        own = (rows >= start) & (rows < start + len(block))
        similarity[own, rows[own] - start] = -torch.inf
        values, places = _largest(similarity, min(count, len(block)))
        values, order = torch.cat((best, values), dim=1).sort(dim=1, descending=True, stable=True)
        best, best_rows = values[:, :count], torch.cat((best_rows, places + start), dim=1).gather(1, order)[:, :count]
    return best_rows


def _largest(similarity: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As topk, but of equal values the first, which topk leaves open. Overwrites what it found with −inf."""
    values, places = [], []
    for _ in range(count):
        value, place = similarity.max(dim=1, keepdim=True)
        similarity.scatter_(1, place, -torch.inf)
        values.append(value)
        places.append(place)
    return torch.cat(values, dim=1), torch.cat(places, dim=1)
