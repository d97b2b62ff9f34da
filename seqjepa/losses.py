"""Losses as pure functions of tensors. N rows, d embedding width; row i of two arguments is a pair.

Every loss is computed in float32 or wider, under autocast too, and is a float32 or float64 scalar with a graph. Where a
loss compares rows with each other, the caller hands in those of all ranks (models/distributed.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.precision import at_least_float32, full_precision


def cosine_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of 1 − cos(prediction, target) over the rows: scalar in [0, 2] (paper eq. 5).

    prediction, target: [N, d], any float type. The caller stops the target's gradient. BYOL's loss is twice this.
    """
    if prediction.dtype != target.dtype or prediction.dtype.itemsize < 4:
        prediction, target = prediction.float(), target.float()
    return (1.0 - F.cosine_similarity(prediction, target, dim=1, eps=1e-8)).mean()


def nt_xent(a: Tensor, b: Tensor, temperature: float, least: float | None = None) -> Tensor:
    """Each row has to tell its partner from the 2N − 2 others, by cosine / temperature: NT-Xent, a scalar ≥ 0
    (arXiv 2002.05709 eq. 1; temperatures: paper §A.3).

    a, b: [N, d], N ≥ 2. The mean over all 2N rows of −log softmax at the partner; a row is never its own candidate.
    least: cosines below it count as it, without a gradient (Sharut/In-Context-Symmetries@124736d main.py:84).
    """
    with full_precision(a.device):
        rows = F.normalize(torch.cat((at_least_float32(a), at_least_float32(b))), dim=1)
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        cosines = rows @ rows.T if least is None else (rows @ rows.T).clamp(min=least)
        scores = (cosines / temperature).masked_fill(itself, -torch.inf)
        partners = torch.arange(len(rows), device=rows.device).roll(len(a))
        return F.cross_entropy(scores, partners)


def variance_hinge(y: Tensor) -> Tensor:
    """½ · mean over columns of relu(1 − √(Var + 1e-4)), Var unbiased over the rows of y [N, d] (arXiv 2105.04906)."""
    return F.relu(1.0 - torch.sqrt(at_least_float32(y).var(dim=0) + 1e-4)).mean() / 2


def covariance_penalty(y: Tensor) -> Tensor:
    """Sum of the squared covariances between different dimensions of y [N, d], N ≥ 2, divided by d: a scalar ≥ 0
    (arXiv 2105.04906 eq. 4). Covariances are divided by N − 1."""
    with full_precision(y.device):
        y = at_least_float32(y)
        centred = y - y.mean(dim=0)
        covariance = centred.T @ centred / (len(y) - 1)
        return (covariance.square().sum() - covariance.diagonal().square().sum()) / y.shape[1]


@dataclass(frozen=True)
class VicWeights:
    """λ of VICReg's three terms, and SIE's fourth, `equivariance`; defaults: paper §A.3."""

    invariance: float = 10.0
    variance: float = 10.0
    covariance: float = 1.0
    equivariance: float = 4.5


def vicreg_loss(a: Tensor, b: Tensor, weights: VicWeights) -> Tensor:
    """VICReg's loss of two views' embeddings a, b [N, d], N ≥ 2: a scalar ≥ 0, the weighted sum of their mean squared
    difference and of both views' variance and covariance terms (arXiv 2105.04906 eq. 6)."""
    spread = variance_hinge(a) + variance_hinge(b)
    redundancy = covariance_penalty(a) + covariance_penalty(b)
    invariance = F.mse_loss(at_least_float32(a), at_least_float32(b))
    return weights.invariance * invariance + weights.variance * spread + weights.covariance * redundancy


def trajectory_loss(left: Tensor, centre: Tensor, right: Tensor, normalised: bool = True) -> Tensor:
    """−mean cos(u₁, u₂) of the steps left → centre → right [N, d] without their parts along `centre`: in [−1, 1]
    (VICRegTraj, paper §A.3).

    normalised: rows are brought to length 1 first, so that u₁ and u₂ are tangents of the sphere at `centre`. The
    released code does not, and taking off (v · centre) centre is then no projection any more (its models.py:1449).
    """
    left, centre, right = (at_least_float32(y) for y in (left, centre, right))
    if normalised:
        left, centre, right = (F.normalize(y, dim=1) for y in (left, centre, right))
    steps = (centre - left, right - centre)
    first, second = (v - (v * centre).sum(1, keepdim=True) * centre for v in steps)
    return -F.cosine_similarity(first, second, dim=1, eps=1e-8).mean()


def sie_loss(
    invariant: tuple[Tensor, Tensor], equivariant: tuple[Tensor, Tensor], predicted: Tensor, weights: VicWeights
) -> Tensor:
    """SIE's loss (arXiv 2302.10283) on two views' invariant and equivariant embeddings and the predicted one.

    All are [N, d]. Variance and covariance are those of [invariant ; equivariant], 2d wide; the prediction has a
    variance term of its own, so that it cannot shrink the error by shrinking.
    """
    wholes = [torch.cat(pair, dim=1) for pair in zip(invariant, equivariant, strict=True)]
    spread = sum((variance_hinge(whole) for whole in wholes), variance_hinge(predicted))
    redundancy = covariance_penalty(wholes[0]) + covariance_penalty(wholes[1])
    apart = F.mse_loss(at_least_float32(invariant[0]), at_least_float32(invariant[1]))
    missed = F.mse_loss(at_least_float32(predicted), at_least_float32(equivariant[1]))
    return (
        weights.invariance * apart
        + weights.equivariance * missed
        + weights.variance * spread
        + weights.covariance * redundancy
    )
