"""The equivalent forward against the installed package, which runs in float64 as the reference. Random weights."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
import torch

from benchmarks.saliency_weights import calibrate, corner_dark_bias, noise_pictures
from pipelines.saliency.deepgaze import PackageDeepGaze
from pipelines.saliency.deepgaze_fast import FastDeepGaze
from pipelines.saliency.deepgaze_package import build_untrained

pytestmark = pytest.mark.slow
package = pytest.importorskip("deepgaze_pytorch")
SIZES = [(512, 512), (375, 500), (333, 501)]


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return calibrate(build_untrained(package)).state_dict()


def with_weights(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = build_untrained(package)
    model.load_state_dict(state, strict=True)
    return model


@pytest.fixture(scope="module")
def references(state) -> Iterator[dict[tuple[int, int], torch.Tensor]]:
    """Log densities float64 [2, H, W] of the package in float64."""
    model = PackageDeepGaze(with_weights(state).double())
    with torch.inference_mode():
        yield {size: model(noise_pictures(2, *size, seed=7), corner_dark_bias(*size)) for size in SIZES}


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """The largest KL(p‖q) of the batch, nats; log densities."""
    return float((p.exp() * (p - q)).sum((1, 2)).abs().max())


@pytest.fixture(scope="module", params=["float32", "float64"])
def fast(request, state) -> Iterator[tuple[FastDeepGaze, float]]:
    """The equivalent forward and the largest difference of log densities that is allowed, nats."""
    dtype, allowed = {"float32": (torch.float32, 5e-4), "float64": (torch.float64, 1e-9)}[request.param]
    yield FastDeepGaze(with_weights(state).to(dtype)), allowed
    gc.collect()


@pytest.mark.parametrize("size", SIZES)
def test_equivalent_forward_is_the_packages(fast, references, size: tuple[int, int]) -> None:
    model, allowed = fast
    reference, bias = references[size], corner_dark_bias(*size)
    with torch.inference_mode():
        found = model(noise_pictures(2, *size, seed=7), bias.to(model.mixture.sigma.dtype)).double()
    assert divergence(reference, bias.expand_as(reference)) > 0.03  # the maps are neither the centre bias
    assert divergence(reference, reference.flip(0)) > 0.03  # nor the same for each image
    assert (found - reference).abs().max() <= allowed
    assert divergence(reference, found) <= 1e-6


def test_the_model_has_the_tensors_of_the_released_file(state) -> None:
    assert len(state) == 5461
    assert sum(tensor.numel() for name, tensor in state.items() if "num_batches" not in name) > 104e6
