from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cosine

from seqjepa.losses import cosine_loss


def test_equals_scipys_cosine_distance() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7))
    wanted = np.mean([cosine(x, y) for x, y in zip(a, b, strict=True)])
    assert cosine_loss(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 0.0), (-0.2, 2.0)])
def test_ends_of_the_range(factor: float, expected: float) -> None:
    target = torch.rand(4, 9, dtype=torch.float64)
    assert cosine_loss(factor * target, target).item() == pytest.approx(expected, abs=1e-12)


def test_half_precision_is_computed_in_float32() -> None:
    a, b = torch.randn(2, 16, 512).bfloat16()
    assert torch.equal(cosine_loss(a, b), cosine_loss(a.float(), b.float()))
    assert cosine_loss(a, b.float()).dtype == torch.float32
