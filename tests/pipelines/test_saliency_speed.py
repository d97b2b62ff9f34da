"""What a build says of its speed: FLOPs of a map, beside those of large products on the same device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fake_deepgaze
import pytest
import torch
from deepgaze_slow import small_model
from saliency_scene import contents, make_photos
from torch import Tensor
from typer.testing import CliRunner

from pipelines.build.plan import PlannedShard
from pipelines.commands.saliency import build_saliency_app
from pipelines.saliency import deepgaze, speed
from pipelines.saliency.engine import Crew, MapJob
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.speed import Metered, Speed, matmul_ceiling
from pipelines.sources import open_source


class Product:
    """Of each image's pixels with a matrix: 2·H·W·5 FLOPs for each of three channels."""

    name, batch_size = "product", 4

    def __init__(self, provenance: dict[str, str | int | float]) -> None:
        self.provenance = provenance

    def density(self, images: Tensor) -> Tensor:
        p = (images.float().flatten(2).mT @ torch.ones(3, 5)).sum(2).view(-1, *images.shape[2:]) + 1
        return p / p.sum((1, 2), keepdim=True)


class ProductChoice(ModelChoice):
    def build(self, device: object) -> Product:  # type: ignore[override]
        return Product({"model": self.name, "precision": "fp32"})


def test_flops_are_those_of_the_layers_at_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "matmul_ceiling", lambda device, precision: 1e6)
    model = Metered(Product({"precision": "fp32"}))
    for count, height, width in ((2, 8, 8), (4, 8, 8), (1, 16, 24)):
        model.density(torch.zeros(count, 3, height, width, dtype=torch.uint8))
    found = model.speed()
    assert found is not None
    assert found.maps == 7
    assert found.flops == 2 * 3 * 5 * (6 * 64 + 16 * 24)
    assert found.seconds > 0
    assert found.share == found.flops / found.seconds / 1e6


def test_a_model_without_a_precision_and_no_maps_have_no_speed() -> None:
    model = Metered(Product({}))
    model.density(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert model.speed() is None
    assert Metered(Product({"precision": "fp32"})).speed() is None


def test_devices_that_work_together_are_one() -> None:
    one, other = Speed(10, 1e9, 2.0, 4e9, "fp32"), Speed(30, 3e9, 1.0, 4e9, "fp32")
    both = Speed.of_all([one, None, other])
    assert both == Speed(40, 4e9, 2.0, 8e9, "fp32")
    assert str(both) == "40 maps at 20/s, 0.1 GFLOP each: 0.25 of the 8 GFLOP/s of large products in fp32"
    assert Speed.of_all([None]) is None


@pytest.mark.slow
def test_the_speed_of_a_crew_is_that_of_all_its_members(tmp_path: Path) -> None:
    source = open_source("folder", make_photos(tmp_path / "photos", 5))
    records = source.records()
    crew = Crew(MapJob(ProductChoice("centre-bias"), source, "float16", 0), ["cpu", "cpu"])
    try:
        shard = PlannedShard("train", 0, (0, 1, 2))
        assert len(list(crew.make(iter([(shard, records[:3]), (shard, records[3:])])))) == 5
    finally:
        crew.close()
    assert crew.speed is not None
    assert crew.speed.maps == 5
    assert crew.speed.flops == 2 * 3 * 5 * (2 * 40 * 48 + 2 * 48 * 40 + 40 * 40)
    assert crew.speed.ceiling > 0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ceiling_is_measured(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    sizes, product = [], torch.mm
    monkeypatch.setitem(speed.SIDE, "cpu", 64)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    monkeypatch.setattr(torch, "mm", lambda a, b: sizes.append((a.shape, a.dtype)) or product(a, b))
    assert matmul_ceiling(torch.device("cpu"), precision) > 0
    assert set(sizes) == {((64, 64), torch.float32 if precision == "fp32" else torch.bfloat16)}


def seeded_model(*_: object) -> object:
    torch.manual_seed(0)  # its convolutions begin at random
    return small_model()


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command with a small network of DeepGaze's kind: what it prints."""
    files = fake_deepgaze.write_files(tmp_path, monkeypatch)
    fake_deepgaze.install(monkeypatch)
    monkeypatch.setattr(deepgaze, "load_model", seeded_model)
    monkeypatch.setitem(speed.SIDE, "cpu", 64)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    photos = make_photos(tmp_path / "photos", 5)
    usual = ["folder", "--source", str(photos), "--device", "cpu", "--workers", "0"]
    usual += ["--weights", str(files["weights"]), "--centre-bias", str(files["centre_bias"])]

    def run(out: str, *words: str) -> str:
        result = CliRunner().invoke(build_saliency_app, [*usual, "--out", str(tmp_path / out), *words])
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_a_build_says_its_speed_once_and_counting_changes_no_byte(built, tmp_path: Path, monkeypatch) -> None:
    last = built("first").splitlines()[-1]
    assert last.startswith("  speed   5 maps at ")
    assert last.endswith("of large products in fp32")
    assert "GFLOP" not in built("first")  # it is finished: nothing is made
    told = json.loads(built("second", "--json"))["speed"]
    assert told["maps"] == 5
    assert told["share_of_ceiling"] == told["flops"] / told["seconds"] / told["ceiling"]
    monkeypatch.setattr(Metered, "density", lambda self, images: self.model.density(images))
    assert "GFLOP" not in built("uncounted")
    assert contents(tmp_path / "uncounted") == contents(tmp_path / "first") == contents(tmp_path / "second")
    assert "GFLOP" not in built("offline", "--model", "spectral-residual")


def test_what_the_network_sees_of_an_image_counts() -> None:
    model = Product({})
    model.input_size = 512  # type: ignore[attr-defined]
    assert speed.pixels_seen(model, 96, 96) == 512 * 512
    assert speed.pixels_seen(Metered(model), 96, 192) == 512 * 1024
    assert speed.pixels_seen(ModelChoice("spectral-residual").build("cpu"), 96, 96) == 96 * 96
