"""The equivalent forward and its pieces against the slow definition in deepgaze_slow.py, in float64."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from deepgaze_slow import (
    gaussian_filter,
    layer,
    readout,
    saliency_network,
    selection_network,
    slow_log_density,
    small_model,
)

from pipelines.saliency import deepgaze_fast
from pipelines.saliency.deepgaze_fast import (
    FastDeepGaze,
    HalfGrid,
    Stem,
    Tail,
    TappedBackbone,
    area_pool,
    blur_matrices,
    fold_layer,
    gaussian_kernels,
    half_area_matrix,
    nearest_source,
    softplus,
)

SIZES = [(128, 128), (93, 125), (83, 126), (33, 200), (64, 47)]


def images(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8)


def bias(height: int, width: int) -> torch.Tensor:
    log = torch.randn(height, width, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return log - log.logsumexp((0, 1))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_log_density_is_that_of_the_definition(height: int, width: int) -> None:
    model = small_model()
    expected = slow_log_density(model, images(height, width), bias(height, width))
    assert (expected[0] - expected[1]).std() > 0.05  # the images matter
    found = FastDeepGaze(scaled(model))(images(height, width), bias(height, width))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [(24, 24), (96, 31), (200, 200)])
@pytest.mark.parametrize(("height", "width"), SIZES[:3])
def test_pooling_from_the_half_grid_is_pooling_of_the_full_one(height: int, width: int, size) -> None:
    model = FastDeepGaze(scaled(small_model()))
    density = model.density(images(height, width), bias(height, width))
    pooled = model.pooled(images(height, width), bias(height, width), size)
    torch.testing.assert_close(pooled, area_pool(density, size), rtol=0, atol=1e-14)
    torch.testing.assert_close(pooled.sum((1, 2)), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize(("precision", "most"), [("fp16", 0.01), ("bf16", 0.1)])
def test_half_precision_moves_log_densities_by_little(precision: str, most: float) -> None:
    model = small_model()
    expected = slow_log_density(model, images(128, 128), bias(128, 128))
    found = FastDeepGaze(scaled(model), precision).float()(images(128, 128), bias(128, 128))  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    assert most / 1000 < (found - expected).abs().max() < most


def scaled(model):
    """The same model with the normaliser (/255) inside its backbones, as the package has it."""
    for part in model.models:
        part.features.features.register_forward_pre_hook(lambda module, inputs: (inputs[0] / 255,))
    return model


@pytest.mark.parametrize("elements", [1, 1 << 14, 1 << 30], ids=["one by one", "some", "all"])
def test_mixture_does_not_depend_on_how_many_components_are_worked_on_at_a_time(elements: int, monkeypatch) -> None:
    monkeypatch.setitem(deepgaze_fast.ELEMENTS, "cpu", elements)
    model = small_model()
    expected = slow_log_density(model, images(64, 64), bias(64, 64))
    torch.testing.assert_close(FastDeepGaze(scaled(model))(images(64, 64), bias(64, 64)), expected, rtol=0, atol=1e-10)


def test_mixture_survives_readouts_far_from_zero() -> None:
    model = small_model()
    for part in model.models:
        for net in part.fixation_selection_networks:
            net.conv2.weight += 200  # fields of many hundred nats
    found = FastDeepGaze(scaled(model))(images(64, 64), bias(64, 64))
    assert found.isfinite().all()
    torch.testing.assert_close(found, slow_log_density(model, images(64, 64), bias(64, 64)), rtol=0, atol=1e-8)


def test_a_backbone_stops_at_its_last_tapped_layer_and_leaves_no_hooks() -> None:
    extractor = small_model().models[0].features
    backbone = TappedBackbone(extractor)
    x = images(64, 64).double()
    found = backbone(x, (3, 2))  # the last layer takes 99 channels: running it would fail
    expected = torch.cat([F.interpolate(tap, (3, 2)) for tap in extractor.taps(255 * x)], dim=1)
    torch.testing.assert_close(found, expected)
    assert all(not module._forward_hooks for module in extractor.modules())


def test_readouts_are_the_networks_one_by_one() -> None:
    generator = torch.Generator().manual_seed(3)
    a = [saliency_network(generator, 20) for _ in range(4)]
    b = [selection_network(generator) for _ in range(4)]
    features = 5 + 3 * torch.randn(2, 20, 5, 7, generator=generator, dtype=torch.float64)
    found = Tail(a, b)(Stem(a)(features)).unflatten(2, (5, 7))
    expected = torch.cat([readout(features, *pair) for pair in zip(a, b, strict=True)], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-7), (torch.float64, 1e-15)])
def test_softplus_is_exact_to_rounding_at_both_ends(dtype: torch.dtype, error: float) -> None:
    x = torch.linspace(-80, 80, 100_001, dtype=dtype)
    expected = torch.logaddexp(x.double(), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(softplus(x).double(), expected, rtol=error, atol=0)


def test_fold_takes_the_affine_into_the_convolution() -> None:
    net = saliency_network(torch.Generator().manual_seed(4), 6)
    x = torch.randn(1, 6, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    weight, offset = fold_layer(net.conv0, net.layernorm0, net.bias0)
    normalised = F.layer_norm(x, x.shape[1:], eps=1e-12)
    found = F.conv2d(normalised, weight[:, :, None, None], offset)
    torch.testing.assert_close(found, layer(x, net.conv0, net.layernorm0, net.bias0))


@pytest.mark.parametrize(("cells", "pixels"), [(16, 256), (12, 187), (11, 166), (2, 16), (1, 20)])
def test_blur_is_enlarging_padding_and_convolving(cells: int, pixels: int) -> None:
    sigma = torch.tensor([0.4, 3.3, 8.0, 14.0], dtype=torch.float64)
    r = torch.randn(4, 1, cells, cells + 1, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    rows, cols = (blur_matrices(gaussian_kernels(sigma), n, pixels) for n in r.shape[2:])
    for k, width in enumerate(sigma.tolist()):
        expected = gaussian_filter(F.interpolate(r[k : k + 1], (pixels, pixels)), width)[0, 0]
        torch.testing.assert_close(rows[k] @ r[k, 0] @ cols[k].T, expected)
    torch.testing.assert_close(rows.sum(2), torch.ones(4, pixels, dtype=torch.float64))


def test_kernels_end_at_three_standard_deviations() -> None:
    kernels = gaussian_kernels(torch.tensor([1.0, 2.1]))
    assert (kernels > 0).sum(1).tolist() == [2 * 3 + 1, 2 * math.ceil(6.3) + 1]


@pytest.mark.parametrize(("height", "width"), [(512, 512), (375, 500), (333, 501), (2, 3)])
def test_half_grid_is_that_of_torchs_interpolation(height: int, width: int) -> None:
    grid = HalfGrid.of(height, width)
    x = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(7))
    half = F.interpolate(x, scale_factor=0.5, recompute_scale_factor=False)
    assert torch.equal(grid.half(x), half)
    full = F.interpolate(half, (height, width))
    assert torch.equal(half[..., grid.rows[:, None], grid.cols], full)
    assert grid.counts.sum() == height * width
    torch.testing.assert_close((half * grid.counts).sum(), full.sum(), rtol=1e-4, atol=1e-3)


def test_half_area_matrix_keeps_mass() -> None:
    matrix = half_area_matrix(375, 96)
    repeats = torch.bincount(nearest_source(187, 375), minlength=187).double()
    torch.testing.assert_close(matrix.sum(0), repeats)
    torch.testing.assert_close(matrix.sum(1), torch.full((96,), 375 / 96, dtype=torch.float64))


@pytest.mark.gpu
def test_the_gpu_gives_the_same_and_the_host_never_waits() -> None:
    parts = small_model()  # its convolutions begin at random
    expected = slow_log_density(parts, images(93, 125), bias(93, 125))
    model = FastDeepGaze(scaled(parts)).cuda()
    pictures, centre = images(93, 125).cuda(), bias(93, 125).cuda()
    model(pictures, centre)  # makes the matrices of this size
    with no_waiting():
        found = model(pictures, centre)
    # The GPU's softplus is the identity from 20 on, which is 2e-9 off, layer after layer.
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-6)


@contextmanager
def no_waiting() -> Iterator[None]:
    """Raises where the host would wait for the GPU."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype feature")
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
