"""The numbers that the paper reports, and their bootstrap intervals.

Top-1 accuracy, two definitions of R² (docs/fidelity.md #42), angles in degrees, and where the right candidate comes
among all: ranks, MRR and hits (Table 10). R² is always computed over the whole validation set at once; averaging it
over batches is a different number.

Intervals say which validation objects there happened to be. Objects are drawn with replacement; all draws of an object
move together, and nothing is fitted again. Every number is a function of means over rows, so a thousand resamples are
one product of matrices.

Letters: n rows or objects, S objects of a split, q queries of an object, D output dimensions, P width of an embedding;
b rows of a chunk, R resamples, k columns that a number needs the means of. In ranks, n is the number of candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_SHOWN = 5
"""Classes, and pairs of classes, that a summary of confusions names."""
FLOAT_NOISE = 1e-5
"""Standard deviation below which a dimension of a target is constant: of targets in their natural units (shares of an
image or of the colour circle, quaternions, z-scores), or of their largest value where that is above 1."""


def varying(target: Tensor) -> Tensor:
    """Which dimensions of targets [n, D] vary by more than float noise: bool [D]. Of the others R² says nothing."""
    y = target.detach().double()
    return y.std(dim=0, correction=0) > FLOAT_NOISE * y.abs().amax(dim=0).clamp(min=1)


def confusion(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """How many rows of each class [C] were taken for each class: logits [n, C], labels [n] → int64 [C, C].

    Rows are true classes, columns predicted ones, as in scikit-learn's `confusion_matrix`.
    """
    pairs = labels * classes + logits.argmax(dim=-1)
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def confusion_summary(counts: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """What stands out in counts int64 [C, C].

    mean      accuracy averaged over classes, which is scikit-learn's balanced_accuracy_score
    lowest    up to five classes with the lowest accuracy: {"class", "accuracy", "count"}, count of samples and draws
    confused  up to five pairs, by the share of a class that is taken for another: {"class", "taken_for", "share"}
    """
    total = counts.sum(axis=1)
    seen = np.flatnonzero(total)
    shares = counts[seen] / total[seen, None]
    hit = shares[np.arange(len(seen)), seen]
    lowest = [
        {"class": names[int(seen[k])], "accuracy": float(hit[k]), "count": int(total[seen[k]])}
        for k in np.argsort(hit, kind="stable")[:MOST_SHOWN]
    ]
    return {
        "mean": float(hit.mean()),
        "classes": len(seen),
        "lowest": lowest,
        "confused": _confused(shares, seen, names),
    }


def _confused(shares: np.ndarray, seen: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of shares [seen classes, C]; the largest ones off the diagonal, without zeros."""
    mistaken = shares.copy()
    mistaken[np.arange(len(seen)), seen] = 0
    largest = np.argsort(-mistaken, axis=None, kind="stable")[:MOST_SHOWN]
    rows, columns = np.unravel_index(largest, mistaken.shape)
    return [
        {"class": names[int(seen[r])], "taken_for": names[c], "share": float(mistaken[r, c])}
        for r, c in zip(rows.tolist(), columns.tolist(), strict=True)
        if mistaken[r, c] > 0
    ]


def top1(logits: Tensor, labels: Tensor) -> float:
    """Share of rows of logits [n, C] whose largest entry is at labels [n]; in 0..1."""
    return (logits.argmax(dim=-1) == labels).double().mean().item()


def r2_avg(target: Tensor, predicted: Tensor, whole: Sequence[int] = ()) -> float:
    """Mean over output dimensions of `1 − Σ(y−ŷ)² / Σ(y−ȳ)²`, both tensors [n, D]: the released code's R².

    whole: a number for each dimension; those that share one are a vector, over which both sums go too. Of small angles
    the cosine hardly varies, and no error of a head is small beside that.

    Equal to scikit-learn's `r2_score` with its default `uniform_average`, also for a target that does not vary:
    such a dimension counts 1 if it is predicted exactly and 0 otherwise.
    """
    y, residual = _in_double(target, predicted)
    unexplained = _summed(residual.square().sum(dim=0), whole)
    total = _summed((y - y.mean(dim=0)).square().sum(dim=0), whole)
    score = 1 - unexplained / torch.where(total > 0, total, 1)
    score = torch.where(total > 0, score, (unexplained == 0).double())
    return score.mean().item()


def r2_pool(target: Tensor, predicted: Tensor) -> float:
    """`1 − Σ(y−ŷ)² / Σ(y−ȳ)²` with both sums over all entries of [n, D] and one scalar mean ȳ: SIE's R².

    Flatters: predicting each dimension's mean already scores 0.229 on relative and 0.461 on absolute rotations of
    3DIEBench, where `r2_avg` scores 0.
    """
    y, residual = _in_double(target, predicted)
    unexplained, total = residual.square().sum(), (y - y.mean()).square().sum()
    if total == 0:
        return float(unexplained == 0)
    return (1 - unexplained / total).item()


def geodesic_deg(target: Tensor, predicted: Tensor) -> Tensor:
    """Angle of the rotation between two others, in degrees, 0 to 180: quaternions [n, 4] → float64 [n].

    Targets are of unit norm, predictions are brought to it; q and −q are one rotation, so signs play no part. The angle
    is that of scipy's Rotation.magnitude. A prediction of exactly 0 counts as 180.
    """
    q = target.detach().double()
    p = predicted.detach().double()
    p = p / p.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    p = torch.where((p * q).sum(-1, keepdim=True) < 0, -p, p)
    # Of the half angle between unit vectors both sine and cosine are precise where acos of a product is not.
    return torch.rad2deg(4 * torch.atan2((q - p).norm(dim=-1), (q + p).norm(dim=-1)))


def _summed(values: Tensor, whole: Sequence[int]) -> Tensor:
    """[…, D] → […, Q]: the sums over dimensions that share a number; without numbers as they are."""
    if not whole:
        return values
    names, place = torch.tensor(whole, device=values.device).unique(return_inverse=True)
    return values.new_zeros(*values.shape[:-1], len(names)).index_add(-1, place, values)


def _in_double(target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    if target.shape != predicted.shape or target.ndim != 2:
        raise ValueError(f"targets {list(target.shape)} and predictions {list(predicted.shape)} must be one [n, D]")
    y = target.detach().double()
    return y, y - predicted.detach().double()


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


RESAMPLES, LEVEL = 1000, 0.95
RESAMPLES_AT_ONCE = 100


class Averaged(NamedTuple):
    """A number that is a function of means.

    rows    float64 [rows, k]: the columns that are averaged over rows
    number  means [R, k] → the number [R]
    """

    rows: Tensor
    number: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Resampling:
    """R bootstrap samples of n objects: counts uint8 [R, n], how often each object is in a sample.

    objects  int64 [S]: which object each of S rows is of, where objects have several rows; None: each has one
    """

    counts: Tensor
    objects: Tensor | None = None

    @staticmethod
    def over(objects: np.ndarray, seed: int, device: torch.device) -> Resampling:
        """Of the objects that rows belong to, int64 [S] from 0 on: all rows of one move together."""
        count = int(objects.max()) + 1
        found = Resampling.of(count, seed, device)
        return found if count == len(objects) else replace(found, objects=torch.from_numpy(objects).to(device))

    @staticmethod
    def of(objects: int, seed: int, device: torch.device, resamples: int = RESAMPLES) -> Resampling:
        """The same samples for every number of an evaluation, from the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        counts = torch.empty(resamples, objects, dtype=torch.uint8)
        for row in counts:
            drawn = torch.randint(objects, (objects,), generator=generator)
            row.copy_(torch.bincount(drawn, minlength=objects))
        return Resampling(counts.to(device))

    def interval(self, averaged: Averaged) -> list[float]:
        """[low, high]: the middle 95 % of the number over the samples. Rows are all objects, or rows of objects, once
        for each draw, in order."""
        parts = self.counts.split(RESAMPLES_AT_ONCE)
        if self.objects is None:
            objects = self.counts.shape[1]
            rows = averaged.rows.unflatten(0, (-1, objects)).mean(dim=0) / objects
            means = torch.cat([part.to(rows.dtype) @ rows for part in parts])
        else:
            rows = averaged.rows.unflatten(0, (-1, len(self.objects))).mean(dim=0)
            rows = torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1)  # and how many rows there are
            sums = rows.new_zeros(self.counts.shape[1], rows.shape[1]).index_add(0, self.objects, rows)
            means = torch.cat([part.to(sums.dtype) @ sums for part in parts])
            means = means[:, :-1] / means[:, -1:]
        values = averaged.number(means)
        tail = (1 - LEVEL) / 2
        return torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()


def averaged_mean(values: Tensor) -> Averaged:
    """The mean of values [rows], such as hits for an accuracy."""
    return Averaged(values.double()[:, None], lambda means: means[:, 0])


def averaged_r2_avg(target: Tensor, predicted: Tensor, whole: Sequence[int] = ()) -> Averaged:
    """metrics.r2_avg of tensors [rows, D]."""
    y, squared = _centred(target, predicted)
    return Averaged(torch.cat([squared, y, y.square()], dim=1), partial(_explained, whole=whole))


def averaged_r2_pool(target: Tensor, predicted: Tensor) -> Averaged:
    """metrics.r2_pool of tensors [rows, D]: that of one dimension with all entries in it."""
    y, squared = _centred(target, predicted)
    return Averaged(torch.stack([squared.mean(1), y.mean(1), y.square().mean(1)], dim=1), _explained)


def _centred(target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Targets less one scalar, which changes neither R² and keeps sums of squares exact, and squared errors."""
    y = target.detach().double()
    return y - y.mean(), (y - predicted.detach().double()).square()


def _explained(means: Tensor, whole: Sequence[int] = ()) -> Tensor:
    """R² [R] from means [R, 3 D] of squared errors, targets, squared targets; averaged over the D dimensions.

    As in `metrics`, a dimension that does not vary in a sample counts 1 if it is predicted exactly and 0 otherwise.
    """
    error, mean, square = means.chunk(3, dim=1)
    error, square, total = (_summed(values, whole) for values in (error, square, square - mean.square()))
    varies = total > 1e-12 * square
    score = torch.where(varies, 1 - error / torch.where(varies, total, 1), (error == 0).double())
    return score.mean(dim=1)
