"""A small ragged shard set of coloured noise and a run directory with a tiny, randomly initialised seq-JEPA."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.methods.base import as_module
from seqjepa.recipes import to_toml
from seqjepa.training.checkpoint import DataInfo, initial_method, save_weights
from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS, CLASSES = 16, 6, ("blue", "green", "red")
FEWEST = 4


def jpeg(rng: np.random.Generator, label: int, hue: float) -> tuple[bytes, np.ndarray]:
    """Noise, brighter in the label's channel; the floor hue sets how bright the lower half is."""
    pixels = rng.integers(0, 120, (SIZE, SIZE, 3))
    pixels[..., 2 - label] += 60
    pixels[SIZE // 2 :] += int(70 * hue)
    pixels = pixels.astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue(), pixels


def sample(number: int, rng: np.random.Generator) -> tuple[ViewSample, PixelStats]:
    views = VIEWS - number % (VIEWS - FEWEST + 1)
    label = number % len(CLASSES)
    params = rng.uniform(0, 1, (views, 7)).astype(np.float32)
    encoded, pixels = zip(*(jpeg(rng, label, row[3]) for row in params), strict=True)
    stats = PixelStats.of(np.stack(pixels))
    return ViewSample(f"object_{number:04d}", encoded, range(views), params, label), stats


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 24 validation objects in two shards a split, with 4 to 6 views of 16×16 pixels."""
    out, rng = tmp_path_factory.mktemp("evaluate") / "shards", np.random.default_rng(0)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="coloured-noise", spec=spec, classes=CLASSES, fingerprint={"by": "test"}) as builder:
        number = 0
        for split, count in (("train", 24), ("val", 12)):
            for shard in range(2):
                with builder.open_shard(split, shard) as writer:
                    for _ in range(count):
                        writer.add(*sample(number, rng))
                        number += 1
        builder.finish({"command": "test"})
    return out


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as `seqjepa train` leaves it, of a model that differs from its own initial weights."""
    config = RunConfig(
        name="tiny", model=ModelConfig(width=0.125, layers=1, ff_mult=1, action_dim=8, predictor_hidden=16)
    )
    data = DataInfo("rotation", 4, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), SIZE, SIZE)
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.toml").write_text(to_toml(config))
    identity = {"kind": "seqjepa-run", "format": 1, "data": data._asdict()}
    (out / "run.json").write_text(json.dumps(identity))
    other = config.model_copy(update={"seed": 1})
    save_weights(as_module(initial_method(other, data.action_size)), out / "model.safetensors")
    return out
