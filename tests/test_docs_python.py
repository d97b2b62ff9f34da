"""Every block of Python in README files and docs runs, by itself, in a folder that holds what it names."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from pathlib import Path

import docs_text
import numpy as np
import pytest
import simplejpeg
from hub_server import Repo, serving, use_hub
from small_backbone import BACKBONES, small

from seqjepa.export.run import ExportOptions, export_run
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.saliency_map import encode_map
from shards.sample import ImageSample, ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ImageSpec, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

BLOCKS = docs_text.python_blocks()
NEEDS = {"# needs nvidia-dali and a GPU": 1}
"""First line of blocks that are compiled and not run → how many there are."""
EXPORT = "docs/export.md"
"""What its blocks begin with takes ten seconds to write."""
SIDE, VIEWS = 16, 4
TINY = ("data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=1", "optim.batch_size=4")


def views_set(out: Path, side: int, train: int = 6, val: int = 4) -> None:
    """Objects of four views of noise, as JPEGs, with 3DIEBench's parameters."""
    rng = np.random.default_rng(0)
    spec = ViewSpec(VIEWS, side, side, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("dark", "bright"), fingerprint={}) as builder:
        for split, count in (("train", train), ("val", val)):
            with builder.open_shard(split, 0) as shard:
                for number in range(count):
                    pixels = (rng.integers(0, 150, (VIEWS, side, side, 3)) + 80 * (number % 2)).astype(np.uint8)
                    views = [simplejpeg.encode_jpeg(view) for view in pixels]
                    params = rng.uniform(-1, 1, (VIEWS, 7)).astype(np.float32)
                    shard.add(
                        ViewSample(f"{split}{number}", views, range(VIEWS), params, number % 2), PixelStats.of(pixels)
                    )
        builder.finish({"command": "test"})


def image_set(out: Path, saliency: str) -> None:
    rng = np.random.default_rng(0)
    spec = ImageSpec(SIDE, SIDE, "raw", saliency)  # pyright: ignore[reportArgumentType]
    with SetBuilder(out, name="images", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            for number in range(10):
                image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
                maps = () if saliency == "none" else encode_map(rng.gamma(0.3, size=(SIDE, SIDE)), "float16")
                shard.add(ImageSample(f"image{number}", encode_raw(image), maps, number % 2), PixelStats.of(image))
        builder.finish({"command": "test"})


def filled(folder: Path) -> Path:
    """shards/3die, synth, stl10 and cifar100, and runs/3die-rot-M3, all tiny."""
    views_set(folder / "shards" / "3die", SIDE)
    views_set(folder / "shards" / "synth", 48)
    image_set(folder / "shards" / "stl10", "float16")
    image_set(folder / "shards" / "cifar100", "none")
    train(load_recipe("3die-rot-M3", TINY), folder / "shards" / "3die", folder / "runs" / "3die-rot-M3", workers=0)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "resnet18", small)
        return filled(tmp_path_factory.mktemp("docs"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another such folder, of a ResNet, with the files that EXPORT begins with."""
    folder = filled(tmp_path_factory.mktemp("exported"))
    run = folder / "runs" / "3die-rot-M3"
    for to in ("pt2", "onnx", "safetensors"):
        export_run(run, folder / f"encoder.{to}", ExportOptions(to))
    for part in ("aggregate", "predict"):
        export_run(run, folder / f"{part}.onnx", ExportOptions("onnx", part))
    return folder


def test_there_are_blocks() -> None:
    pages = {str(block.page) for block in BLOCKS}
    assert {"README.md", "shards/README.md", "docs/training.md", "docs/sweep.md", "docs/augmentations.md"} <= pages
    assert {"docs/python.md", "docs/world-model.md"} <= pages
    assert sum(not block.text.startswith("# needs ") for block in BLOCKS) >= 9
    for block in BLOCKS:
        compile(block.text, str(block), "exec")
    for line, count in NEEDS.items():
        assert sum(block.text.startswith(f"{line}\n") for block in BLOCKS) == count


@contextlib.contextmanager
def on_a_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The run as hf://me/3die-rot-M3, on this machine."""
    run = folder / "runs" / "3die-rot-M3"
    with serving() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        hub.repos["model", f"me/{run.name}"] = Repo()
        hub.repos["model", f"me/{run.name}"].add({path.name: path.read_bytes() for path in run.iterdir()})
        yield


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset.WebDataset does not close its tars
@pytest.mark.parametrize(
    "block", [pytest.param(b, marks=pytest.mark.slow if str(b.page) == EXPORT else ()) for b in BLOCKS], ids=str
)
def test_a_block_runs(
    block: docs_text.Shown,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if block.text.partition("\n")[0] in NEEDS:
        return
    if "datasets" in block.text:
        pytest.importorskip("datasets").disable_progress_bars()
    folder = request.getfixturevalue("exported" if str(block.page) == EXPORT else "folder")
    if str(block.page) != EXPORT:  # pages say resnet18, whatever they are about: with two convolutions it is quick
        monkeypatch.setitem(BACKBONES, "resnet18", small)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "hf"))
    logging.getLogger("datasets").setLevel(logging.ERROR)
    with on_a_hub(folder, tmp_path, monkeypatch) if "hf://" in block.text else contextlib.nullcontext():
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    gc.collect()
