from __future__ import annotations

import numpy as np
import pytest
import torch

from seqjepa.training.monitor import (
    EpochMeter,
    add_features,
    add_up,
    collapse,
    effective_rank,
    merge_moments,
    no_moments,
    spread_of,
)


def moments_of(*batches: torch.Tensor) -> dict[str, torch.Tensor]:
    moments = no_moments(batches[0].shape[-1])
    for batch in batches:
        add_features(moments, batch)
    return moments


def summary_of(moments: dict[str, torch.Tensor]) -> dict[str, float]:
    return spread_of(moments["count"], moments["scatter"])


def test_moments_equal_numpy_on_all_rows_at_once():
    x = torch.randn(300, 7) * torch.arange(1, 8) + 3
    moments = moments_of(x[:10], x[10:17].reshape(7, 1, 7), x[17:])
    unit = x.double().numpy() / np.linalg.norm(x.double().numpy(), axis=1, keepdims=True)
    covariance = np.cov(unit.T, bias=True)
    np.testing.assert_allclose(moments["scatter"] / 300, covariance, atol=1e-7)
    np.testing.assert_allclose(moments["mean"], unit.mean(0), atol=1e-7)
    singular = np.linalg.svd(unit - unit.mean(0), compute_uv=False)
    p = singular / singular.sum()
    summary = summary_of(moments)
    assert summary["rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
    assert summary["std"] == pytest.approx(unit.std(0).mean() * np.sqrt(7), rel=1e-5)


def test_merging_is_the_union():
    x = torch.randn(50, 4)
    whole, left, right = moments_of(x), moments_of(x[:13]), moments_of(x[13:])
    merge_moments(left, right["count"], right["mean"], right["scatter"])
    torch.testing.assert_close(left["scatter"], whole["scatter"], atol=1e-6, rtol=1e-6)
    assert left["count"] == 50


def test_known_ranks():
    assert effective_rank(torch.eye(6)) == pytest.approx(6)
    assert effective_rank(torch.diag(torch.tensor([1.0, 0, 0]))) == pytest.approx(1)
    assert effective_rank(torch.zeros(3, 3)) == 1


def test_collapse_is_named():
    torch.manual_seed(0)
    spread = summary_of(moments_of(torch.randn(1000, 16)))
    assert spread["std"] == pytest.approx(1, abs=0.02)
    assert collapse(spread) is None
    at_one = moments_of(torch.ones(100, 16) + 1e-5 * torch.randn(100, 16))
    assert "complete collapse" in str(collapse(summary_of(at_one)))
    on_a_line = torch.randn(200, 1) * torch.arange(16)
    assert "dimensional collapse" in str(collapse(summary_of(moments_of(on_a_line + 1e-6 * torch.randn(200, 16)))))
    assert collapse({}) is None


def test_state_round_trip():
    meter, again = (EpochMeter({"z": torch.Size((6, 3, 5))}, 2, "cpu") for _ in range(2))
    add_features(meter.moments["z"], torch.randn(6, 3, 5))
    again.load_state_dict(meter.state_dict())
    assert again.moments["z"]["count"] == 18
    assert summary_of(again.moments["z"]) == summary_of(meter.moments["z"])


def test_what_a_gpus_compiler_is_given_adds_up_the_same():
    """In place, as one graph, over two steps."""
    widths = {"z": torch.Size((6, 3, 5)), "z_agg": torch.Size((6, 4))}
    here, there = (EpochMeter(widths, 2, "cpu") for _ in range(2))
    torch._dynamo.reset()
    graph = torch.compile(add_up, dynamic=False, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        features = {name: torch.randn(shape) for name, shape in widths.items()}
        scores = {"labelled": torch.tensor(6), "correct": torch.tensor(4), "sq_err": torch.rand(2)}
        for meter, add in ((here, add_up), (there, graph)):
            of_features = {name: (meter.moments[name], features[name]) for name in widths}
            add(meter.sums, torch.tensor(1.5), scores, of_features, 6.0)
    for name, value in here.sums.items():
        torch.testing.assert_close(there.sums[name], value)
    for name, moments in here.moments.items():
        for key, value in moments.items():
            torch.testing.assert_close(there.moments[name][key], value)
    assert here.sums["loss"] == 18
    assert here.moments["z"]["count"] == 36
