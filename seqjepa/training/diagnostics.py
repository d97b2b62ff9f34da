"""Is the representation alive? Spread and effective rank of the features of one epoch.

D feature width, n rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

# Unit vectors spread evenly over all D directions have a standard deviation of 1/√D in each.
COLLAPSED_STD = 0.01
COLLAPSED_RANK = 1.5


class FeatureMoments:
    """Running mean and scatter of unit-length features, updated batch by batch and mergeable over ranks.

    count  float64 [];  mean  float64 [D];  scatter  float64 [D, D]: Σ (u − mean)(u − mean)ᵀ over the n rows u so far
    """

    def __init__(self, width: int, device: torch.device | str = "cpu"):
        self.count = torch.zeros((), dtype=torch.float64, device=device)
        self.mean = torch.zeros(width, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(width, width, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """features: [..., D] of any float dtype. Centred before the product, so that TF32 costs no digits."""
        rows = normalize(features.detach().flatten(0, -2).float(), dim=-1)
        mean = rows.mean(0)
        centred = rows - mean
        self.merge(float(len(rows)), mean.double(), (centred.T @ centred).double())

    def merge(self, count: Tensor | float, mean: Tensor, scatter: Tensor) -> None:
        """Chan's update: the moments of the union of two disjoint sets of rows."""
        total = self.count + count
        delta = mean - self.mean
        share = count / total.clamp(min=1)
        self.scatter += scatter + torch.outer(delta, delta) * (self.count * share)
        self.mean += delta * share
        self.count = total

    def summary(self) -> dict[str, float]:
        """{"std", "rank"}; see `mean_std` and `effective_rank`. Empty when nothing was seen."""
        if self.count == 0:
            return {}
        covariance = self.scatter.cpu() / self.count.cpu()
        return {"std": mean_std(covariance), "rank": effective_rank(covariance)}

    def state_dict(self) -> dict[str, Tensor]:
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(getattr(self, name).device, torch.float64))


def mean_std(covariance: Tensor) -> float:
    """Standard deviation of a coordinate, mean over the D of them, × √D: at most 1, reached when evenly spread."""
    std = covariance.diagonal().clamp(min=0).sqrt().mean()
    return float(std) * math.sqrt(len(covariance))


def effective_rank(covariance: Tensor) -> float:
    """exp of the entropy of the singular values of the centred features (Roy & Vetterli 2007), 1 … D.

    The singular values of the features are the roots of the covariance's eigenvalues.
    """
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0).sqrt()
    if values.sum() == 0:
        return 1.0
    p = values / values.sum()
    return float(torch.exp(-torch.xlogy(p, p).sum()))


def collapse(summary: dict[str, float]) -> str | None:
    """What kind of collapse the numbers of `FeatureMoments.summary` show, or None."""
    if not summary:
        return None
    if summary["std"] < COLLAPSED_STD:
        return f"complete collapse: every input gives the same feature (std {summary['std']:.4f})"
    if summary["rank"] < COLLAPSED_RANK:
        return f"dimensional collapse: features lie on a line (effective rank {summary['rank']:.2f})"
    return None
