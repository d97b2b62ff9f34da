"""Every example of CONTRIBUTING.md runs by itself, from registration to a trained run, on sets of a few samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from noise_shards import noise_shards
from PIL import Image
from small_backbone import SMALL, narrow_mlps
from typer.testing import CliRunner

import cli
from pipelines.sources import IMAGE_SOURCES
from seqjepa.evaluate import run as evaluation
from seqjepa.evaluate.results import format_table, read_results
from seqjepa.evaluate.studies import SUITES
from seqjepa.methods import METHODS
from seqjepa.models.backbone import BACKBONES
from seqjepa.paper.metrics import METRICS as NUMBERS
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.reader import ShardSet

__all__ = ["narrow_mlps"]
PAGE = Path(__file__).resolve().parents[1] / "CONTRIBUTING.md"
BLOCKS = dict(re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
LONGEST = 12
"""Lines of an example, without its imports and blank lines."""


@pytest.fixture(autouse=True)
def _registries_as_they_were() -> Iterator[None]:
    registries: tuple[dict[str, Any], ...] = (METHODS, BACKBONES, IMAGE_SOURCES, NUMBERS, SUITES)
    before = [dict(registry) for registry in registries]
    studies = evaluation.STUDIES
    yield
    evaluation.STUDIES = studies
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """shards/synth, and weather/: sixteen pictures of two classes by two cameras."""
    folder = tmp_path_factory.mktemp("contributing")
    noise_shards(folder / "shards" / "synth", size=48)
    (folder / "weather").mkdir()
    rng = np.random.default_rng(0)
    for number in range(16):
        name = f"{('sun', 'rain')[number % 2]}_cam{1 + number // 2 % 2}_{number:04d}.png"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / "weather" / name)
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    config = load_recipe("synth-tiny", ["optim.epochs=1", SMALL])
    train(config, folder / "shards" / "synth", folder / "runs" / "tiny", workers=0, progress=False)
    return folder / "runs" / "tiny"


def run(heading: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    exec(compile(BLOCKS[heading], f"{PAGE.name}: {heading}", "exec"), {"__name__": "__main__"})


def test_every_example_is_short_and_tested() -> None:
    assert list(BLOCKS) == ["A method", "A backbone", "An action", "A data set", "A metric"]
    for heading, text in BLOCKS.items():
        lines = [line for line in text.splitlines() if line and not re.match(r"(from|import) ", line)]
        assert len(lines) <= LONGEST, heading


def test_a_method(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("A method", folder, monkeypatch)
    config, method, *_ = load_run(folder / "runs" / "pull")
    assert (config.method, type(method).__name__) == ("pull", "Pull")
    assert json.loads((folder / "runs" / "pull" / "metrics.jsonl").read_text())["samples"] == 16


def test_a_backbone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("A backbone", folder, monkeypatch)
    _, method, *_ = load_run(folder / "runs" / "patches")
    assert [p.shape for p in method.encoder.parameters()] == [(16, 3, 8, 8), (16,)]  # a quarter of 64 channels


def test_an_action(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("An action", folder, monkeypatch)
    _, _, data, _ = load_run(folder / "runs" / "turns")
    assert data.action_size == 2


def test_a_data_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("A data set", folder, monkeypatch)
    info = ShardSet.open(folder / "shards" / "weather").info
    assert info.classes == ("rain", "sun")
    assert {name: split.samples for name, split in info.splits.items()} == {"train": 8, "val": 8}
    assert json.loads((folder / "runs" / "weather" / "metrics.jsonl").read_text())["samples"] == 8


def test_a_metric(folder: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("A metric", folder, monkeypatch)
    results = read_results(trained)
    assert 0 <= results["trained"]["dead"]["z"] < 1
    assert "share of dead features, z" in format_table(results)
    report = CliRunner().invoke(cli.seqjepa_app, ["report", str(trained), "--out", "report.html"])
    assert report.exit_code == 0, report.output
    assert "Dead features" in Path("report.html").read_text()
