"""The offline models against slow, independent versions of themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from saliency_scene import photo
from scipy import ndimage, stats

from pipelines.saliency import offline_models
from pipelines.saliency.models import MODELS, ModelChoice
from pipelines.saliency.offline_models import bilinear_matrix, smoothing_matrix
from shards.errors import UsageError


def to_tensor(images: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def hou_and_zhang(image: np.ndarray) -> np.ndarray:
    """The recipe step by step in float64, with SciPy and OpenCV."""
    grey = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    spectrum = np.fft.fft2(cv2.resize(grey, (64, 64), interpolation=cv2.INTER_AREA))
    log_amplitude = np.log(np.abs(spectrum))
    residual = log_amplitude - ndimage.uniform_filter(log_amplitude, 3, mode="nearest")
    energy = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    smooth = ndimage.gaussian_filter(energy, 3.0, mode="mirror")
    full = cv2.resize(smooth, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return full / full.sum()


@pytest.mark.parametrize("size", [(128, 128), (192, 128), (128, 256)])
def test_spectral_residual_is_hou_and_zhangs(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = [photo(rng, *size) for _ in range(3)]
    found = ModelChoice("spectral-residual").build("cpu").density(to_tensor(images))
    for p, image in zip(found, images, strict=True):
        np.testing.assert_allclose(p, hou_and_zhang(image), rtol=2e-3)


def test_spectral_residual_finds_the_odd_one_out() -> None:
    image = np.random.default_rng(4).integers(110, 140, (96, 96, 3)).astype(np.uint8)
    image[58:64, 22:28] = 255
    p = ModelChoice("spectral-residual").build("cpu").density(to_tensor([image]))[0]
    row, col = divmod(int(p.argmax()), 96)
    assert abs(row - 61) <= 3
    assert abs(col - 25) <= 3


@pytest.mark.parametrize("level", [0, 128])
def test_an_image_without_contrast_has_a_flat_map(level: int) -> None:
    images = torch.full((2, 3, 40, 50), level, dtype=torch.uint8)
    images[1, :, 10, 10] = 255
    flat, other = ModelChoice("spectral-residual").build("cpu").density(images)
    torch.testing.assert_close(flat, torch.full((40, 50), 1 / 2000), rtol=1e-4, atol=0)
    assert other.max() > 2 / 2000


@pytest.mark.parametrize("name", ["spectral-residual", "centre-bias"])
@pytest.mark.parametrize("out_size", [None, 24])
def test_maps_are_densities_and_batching_does_not_matter(name: str, out_size: int | None) -> None:
    rng = np.random.default_rng(1)
    images = to_tensor([photo(rng, 50, 70) for _ in range(5)])
    model = ModelChoice(name, out_size=out_size).build("cpu")
    together = model.density(images)
    assert together.shape == (5, *((24, 24) if out_size else (50, 70)))
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.sum((1, 2)), torch.ones(5), rtol=1e-5, atol=0)
    assert (together > 0).all()
    alone = torch.cat([model.density(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-9)


def test_smoothing_and_interpolation_matrices() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(64)
    smooth = smoothing_matrix(64, 3.0).numpy() @ values
    np.testing.assert_allclose(smooth, ndimage.gaussian_filter1d(values, 3.0, mode="mirror"), atol=1e-12)
    enlarged = bilinear_matrix(64, 150).numpy() @ values
    np.testing.assert_allclose(enlarged, cv2.resize(values[None], (150, 1))[0], atol=1e-4)


def test_centre_gaussian_against_scipy() -> None:
    p = ModelChoice("centre-bias").build("cpu").density(torch.zeros(1, 3, 60, 100, dtype=torch.uint8))[0].numpy()
    rows = stats.norm.pdf((np.arange(60) + 0.5) / 60, 0.5, 0.20)
    cols = stats.norm.pdf((np.arange(100) + 0.5) / 100, 0.5, 0.22)
    np.testing.assert_allclose(p, np.outer(rows, cols) / np.outer(rows, cols).sum(), rtol=1e-4)


def test_centre_bias_from_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = np.log(np.random.default_rng(3).random((16, 16)))
    np.save(tmp_path / "t.npy", logs)
    monkeypatch.setattr(offline_models, "locate", lambda asset, template, download: template)
    model = ModelChoice("centre-bias", centre_bias=tmp_path / "t.npy", out_size=8).build("cpu")
    p = model.density(torch.zeros(2, 3, 16, 16, dtype=torch.uint8))
    expected = np.exp(logs).reshape(8, 2, 8, 2).sum((1, 3)) / np.exp(logs).sum()
    np.testing.assert_allclose(p[1], expected, rtol=1e-5)
    assert model.provenance["what"] == "centre bias alone (MIT1003 template), not DeepGaze"
    assert len(str(model.provenance["template_sha256"])) == 64


@pytest.mark.parametrize("name", ["spectral-residual", "centre-bias"])
def test_offline_models_say_that_they_are_not_deepgaze(name: str) -> None:
    provenance = ModelChoice(name).build("cpu").provenance
    assert provenance["model"] == name
    assert "not DeepGaze" in str(provenance["what"])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("deepgaze", {}, "model 'deepgaze' is not known; allowed are deepgaze-iie, spectral-residual, centre-bias"),
        ("deepgaze-iie", {"input_scale": "1"}, "--input-scale '1' is not known; allowed are 255, author"),
        ("deepgaze-iie", {"pooling": "mean"}, "--pooling 'mean' is not known"),
        ("deepgaze-iie", {"forward": "slow"}, "--forward 'slow' is not known"),
        ("spectral-residual", {"out_size": 0}, "--out-size 0: 1 or more"),
    ],
)
def test_bad_choices_are_one_line(name: str, options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ModelChoice(name, **options)


def test_what_a_choice_is_known_by() -> None:
    offline = ModelChoice("spectral-residual", out_size=96, input_size=512).identity()
    assert {name: value for name, value in offline.items() if value is not None} == {
        "model": "spectral-residual",
        "out_size": 96,
    }
    deepgaze = ModelChoice("deepgaze-iie", out_size=96, input_size=512, input_scale="author").identity()
    assert deepgaze["input_size"] == 512
    assert deepgaze["input_scale"] == "author"
    assert set(MODELS) == {"deepgaze-iie", "spectral-residual", "centre-bias"}
