"""Bootstrap intervals of the headline numbers: which validation objects there happened to be.

Objects are drawn with replacement; all draws of an object move together, and nothing is fitted again. Every number here
is a function of means over rows, so a thousand resamples are one product of matrices.

Letters: n objects, R resamples, k columns that a number needs the means of, D output dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

RESAMPLES, LEVEL = 1000, 0.95
RESAMPLES_AT_ONCE = 100
Intervals = dict[str, list[float]]
"""[lowest, highest] value by the name of a number."""


class Averaged(NamedTuple):
    """A number that is a function of means.

    rows    float64 [rows, k]: the columns that are averaged over rows
    number  means [R, k] → the number [R]
    """

    rows: Tensor
    number: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Resampling:
    """R bootstrap samples of n objects: counts uint8 [R, n], how often each object is in a sample."""

    counts: Tensor

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
        """[low, high]: the middle 95 % of the number over the samples. Rows are all objects, once for each draw, in
        order."""
        objects = self.counts.shape[1]
        rows = averaged.rows.unflatten(0, (-1, objects)).mean(dim=0) / objects
        parts = self.counts.split(RESAMPLES_AT_ONCE)
        values = averaged.number(torch.cat([part.to(rows.dtype) @ rows for part in parts]))
        tail = (1 - LEVEL) / 2
        return torch.quantile(values, values.new_tensor([tail, 1 - tail])).tolist()


def averaged_mean(values: Tensor) -> Averaged:
    """The mean of values [rows], such as hits for an accuracy."""
    return Averaged(values.double()[:, None], lambda means: means[:, 0])


def averaged_r2_avg(target: Tensor, predicted: Tensor) -> Averaged:
    """metrics.r2_avg of tensors [rows, D]."""
    y, squared = _centred(target, predicted)
    return Averaged(torch.cat([squared, y, y.square()], dim=1), _explained)


def averaged_r2_pool(target: Tensor, predicted: Tensor) -> Averaged:
    """metrics.r2_pool of tensors [rows, D]: that of one dimension with all entries in it."""
    y, squared = _centred(target, predicted)
    return Averaged(torch.stack([squared.mean(1), y.mean(1), y.square().mean(1)], dim=1), _explained)


def _centred(target: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Targets less one scalar, which changes neither R² and keeps sums of squares exact, and squared errors."""
    y = target.detach().double()
    return y - y.mean(), (y - predicted.detach().double()).square()


def _explained(means: Tensor) -> Tensor:
    """R² [R] from means [R, 3 D] of squared errors, targets, squared targets; averaged over the D dimensions.

    As in `metrics`, a dimension that does not vary in a sample counts 1 if it is predicted exactly and 0 otherwise.
    """
    error, mean, square = means.chunk(3, dim=1)
    total = square - mean.square()
    varies = total > 1e-12 * square
    score = torch.where(varies, 1 - error / torch.where(varies, total, 1), (error == 0).double())
    return score.mean(dim=1)
