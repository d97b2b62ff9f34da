"""Features judged without training anything: k-NN accuracy, RankMe and LiDAR, as functions of tensors.

A new number of this kind is one function here, one entry of seqjepa/paper/metrics.py and a test.

Letters: n rows to learn from, m rows to judge, D width, C classes; for LiDAR n samples with q views each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""Of weighted k-NN, as DINO evaluates (Caron et al. 2021, arXiv:2104.14294, §4.1; after Wu et al. 2018)."""
LIDAR_DELTA = 1e-4
EPSILON = 1e-7
ROWS_AT_ONCE = 1024


@torch.no_grad()
def knn_classes(known: Tensor, labels: Tensor, asked: Tensor, k: int = NEIGHBOURS) -> Tensor:
    """The class that the k nearest rows by cosine vote for, each with weight exp(cos / 0.07).

    known [n, D] with labels int64 [n], asked [m, D] → int64 [m]; k is at most n.
    """
    known, k = F.normalize(known.float(), dim=-1), min(k, len(known))
    classes = int(labels.max()) + 1
    voted = []
    for part in asked.split(ROWS_AT_ONCE):
        similarity, nearest = (F.normalize(part.float(), dim=-1) @ known.T).topk(k, dim=1)
        weights = ((similarity - 1) / TEMPERATURE).exp()  # less 1, which changes no vote, so that none overflows
        votes = weights.new_zeros(len(part), classes).scatter_add_(1, labels[nearest], weights)
        voted.append(votes.argmax(dim=1))
    return torch.cat(voted)


def spectral_rank(values: Tensor) -> float:
    """exp of the entropy of p = values / Σ values + 1e-7, of singular or eigenvalues ≥ 0: 1 to their number."""
    p = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny) + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))


def rankme(z: Tensor) -> float:
    """RankMe (Garrido et al. 2023, eq. 2): the effective rank of z [n, D] by its singular values, nothing centred."""
    return spectral_rank(torch.linalg.svdvals(z.double()))


def lidar(z: Tensor) -> float:
    """LiDAR (Thilak et al. 2024): the effective rank of what tells samples apart, z [n, q, D] of q views of each.

    By the eigenvalues of Σ_w^−½ Σ_b Σ_w^−½, Σ_b being the covariance of the samples' means and Σ_w that of views around
    them, plus 1e-4 on the diagonal. n ≥ 2, q ≥ 2.
    """
    z = z.double()
    n, q, _ = z.shape
    means = z.mean(dim=1)
    between, within = means - means.mean(dim=0), (z - means[:, None]).flatten(0, 1)
    sigma_b, sigma_w = between.T @ between / (n - 1), within.T @ within / (n * (q - 1))
    variances, axes = torch.linalg.eigh(sigma_w + LIDAR_DELTA * torch.eye(len(sigma_w), dtype=z.dtype, device=z.device))
    whitened = axes * variances.rsqrt() @ axes.T
    return spectral_rank(torch.linalg.eigvalsh(whitened @ sigma_b @ whitened).clamp(min=0))
