"""The adapter around the DeepGaze package: what it feeds, what it refuses, what it says. With a stand-in package."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path

import fake_deepgaze
import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.saliency.deepgaze import DeepGazeIIE, fitting_batch, zoom_log_density
from pipelines.saliency.deepgaze_fast import area_pool, author_pool
from pipelines.saliency.deepgaze_package import COMMIT, import_package
from shards.errors import FailureError, FormatError, UsageError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    fake_deepgaze.install(monkeypatch)
    return fake_deepgaze.write_files(tmp_path, monkeypatch)


def images(height: int = 40, width: int = 48, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def expected_log(files: dict[str, Path], pixels: torch.Tensor) -> torch.Tensor:
    """The stand-in's log density in float64; pixels float [B, 3, H, W]."""
    bias = torch.from_numpy(zoom_log_density(np.load(files["centre_bias"]), *pixels.shape[2:]))
    return (2 * pixels.double().mean(1) / 255 + bias).flatten(1).log_softmax(1).view(-1, *pixels.shape[2:])


def test_density_at_the_images_own_size_is_the_packages(files) -> None:
    density = DeepGazeIIE(**files, forward="package").density(images())
    assert density.dtype == torch.float32
    torch.testing.assert_close(density, expected_log(files, images().float()).exp().float(), rtol=1e-5, atol=0)
    torch.testing.assert_close(density.sum((1, 2)), torch.ones(2))


def test_the_network_sees_0_to_255_or_as_the_released_scripts_0_to_1(files) -> None:
    right = DeepGazeIIE(**files, forward="package")
    right.density(images())
    assert torch.equal(right.network.model.seen, images().float())
    released = DeepGazeIIE(**files, forward="package", input_scale="author")
    density = released.density(images())
    assert torch.equal(released.network.model.seen, images().float() / 255)
    torch.testing.assert_close(density, expected_log(files, images() / 255).exp().float(), rtol=1e-5, atol=0)


def test_pooling_is_by_area_or_as_the_authors_do_it(files) -> None:
    log = expected_log(files, images().float())
    area = DeepGazeIIE(**files, forward="package", out_size=12).density(images())
    torch.testing.assert_close(area, area_pool(log.exp(), (12, 12)).float(), rtol=1e-5, atol=0)
    bilinear = DeepGazeIIE(**files, forward="package", out_size=12, pooling="author").density(images())
    torch.testing.assert_close(bilinear, author_pool(log, (12, 12)).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("height", "width", "size"), [(33, 33, 64), (96, 96, 40), (48, 40, 80), (80, 97, 50)])
def test_input_is_resized_as_pil_does(files, height: int, width: int, size: int) -> None:
    model = DeepGazeIIE(**files, forward="package", input_size=size)
    density = model.density(images(height, width, 1))
    assert density.shape == (1, height, width)  # the map is of the image, not of what the network saw
    short = min(height, width)
    wanted = (size * width // short, size * height // short)
    pil = Image.fromarray(images(height, width, 1)[0].permute(1, 2, 0).numpy()).resize(
        wanted, Image.Resampling.BILINEAR
    )
    seen = model.network.model.seen[0].permute(1, 2, 0)
    assert torch.equal(seen, seen.round())
    assert (seen - torch.from_numpy(np.array(pil)).float()).abs().max() <= 1


@pytest.mark.parametrize("bad", [images().float() / 255, images()[0], images()[:, :1], images(31, 64)])
def test_images_that_are_not_what_they_should_be_are_refused(files, bad: torch.Tensor) -> None:
    with pytest.raises(UsageError, match=r"float32|uint8|31×64"):
        DeepGazeIIE(**files, forward="package").density(bad)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.001])
def test_a_result_that_is_no_density_is_a_failure(files, wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DeepGazeIIE(**files, forward="package")
    original = fake_deepgaze.FakeDeepGaze.forward
    monkeypatch.setattr(fake_deepgaze.FakeDeepGaze, "forward", lambda *a: original(*a) + np.log(wrong))
    with pytest.raises(FailureError, match="logsumexp"):
        model.density(images())


def test_a_result_of_another_shape_is_a_failure(files, monkeypatch: pytest.MonkeyPatch) -> None:
    model = DeepGazeIIE(**files, forward="package")
    original = fake_deepgaze.FakeDeepGaze.forward
    monkeypatch.setattr(fake_deepgaze.FakeDeepGaze, "forward", lambda *a: original(*a)[..., :-1])
    with pytest.raises(FailureError, match=r"\[2, 1, 40, 47\] instead of \[2, 1, 40, 48\]"):
        model.density(images())


def test_provenance_names_what_made_the_maps(files) -> None:
    model = DeepGazeIIE(**files, forward="package", out_size=8, input_scale="author")
    noted = model.provenance
    assert model.name == noted["model"] == "deepgaze-iie"
    assert noted["input_scale"] == "author"
    assert noted["forward"] == "package"
    assert len(str(noted["weights_sha256"])) == 64
    assert all(isinstance(value, str | int | float) for value in noted.values())


@pytest.mark.parametrize("state", [{}, {"gain": torch.tensor(1.0), "more": torch.zeros(1)}, {"gain": torch.zeros(3)}])
def test_weights_are_loaded_strictly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state) -> None:
    fake_deepgaze.install(monkeypatch)
    files = fake_deepgaze.write_files(tmp_path, monkeypatch, state)
    with pytest.raises(FormatError, match=r"deepgaze2e\.pth does not fit"):
        DeepGazeIIE(**files, forward="package")


def test_weights_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_deepgaze.install(monkeypatch)
    files = fake_deepgaze.write_files(tmp_path, monkeypatch, {"gain": Path("not a tensor")})  # type: ignore[dict-item]
    with pytest.raises(FormatError, match=r"deepgaze2e\.pth"):
        DeepGazeIIE(**files, forward="package")


def test_what_the_package_loads_from_the_web_is_as_before_afterwards(files) -> None:
    DeepGazeIIE(**files, forward="package")
    with pytest.raises(AssertionError, match="download"):
        torch.hub.load("a", "b")
    with pytest.raises(AssertionError, match="download"):
        fake_deepgaze.FakeEfficientNet.from_pretrained("efficientnet-b5")


def test_precisions_that_device_or_forward_have_not_are_refused(files) -> None:
    with pytest.raises(UsageError, match="--precision tf32 needs CUDA"):
        DeepGazeIIE(**files, precision="tf32")
    for forward, precision in (("package", "fp16"), ("package", "bf16")):
        with pytest.raises(UsageError, match=f"--precision {precision} needs the fast forward"):
            DeepGazeIIE(**files, forward=forward, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize(("free", "batch"), [(1, 1), (4, 4), (8, 16), (24, 64), (80, 128)])
def test_a_gpus_batch_fits_its_free_memory(monkeypatch: pytest.MonkeyPatch, free: int, batch: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free << 30, 1 << 40))
    assert fitting_batch(torch.device("cuda", 0)) == batch


class RaisingFinder(MetaPathFinder):
    """Lets `import deepgaze_pytorch` end with an error of choice."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "deepgaze_pytorch":
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'deepgaze_pytorch'", name="deepgaze_pytorch"), "needs the package"),
        (ModuleNotFoundError("No module named 'clip'", name="clip"), "commit that cannot be imported"),
        (ImportError("einops is required for DINOv2 feature extractors"), "commit that cannot be imported"),
        (ModuleNotFoundError("No module named 'boltons'", name="boltons"), "with its dependencies"),
        (RuntimeError("operator torchvision::nms does not exist"), "RuntimeError: operator"),
    ],
    ids=["absent", "clip", "einops", "incomplete", "other"],
)
def test_each_way_of_not_importing_has_its_own_line(monkeypatch, error: Exception, words: str) -> None:
    monkeypatch.delitem(sys.modules, "deepgaze_pytorch", raising=False)
    monkeypatch.setattr(sys, "meta_path", [RaisingFinder(error), *sys.meta_path])
    with pytest.raises(UsageError) as caught:
        import_package()
    text = str(caught.value)
    assert words in text
    assert f'pip install "deepgaze_pytorch @ git+https://github.com/matthias-k/DeepGaze@{COMMIT}"' in text
    assert "\n" not in text


def test_a_package_without_the_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package = fake_deepgaze.install(monkeypatch)
    del package.DeepGazeIIE
    with pytest.raises(UsageError, match="no DeepGazeIIE"):
        import_package()
