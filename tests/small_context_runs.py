"""A small shard set with 3DIEBench's parameters, and run directories of small ContextSSL models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from seqjepa.config import ContextSSLConfig, DataConfig, ModelConfig, RunConfig
from seqjepa.recipes import to_toml
from seqjepa.training.checkpoint import initial_method, save_weights
from seqjepa.training.run import DataInfo
from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS, PAIRS, CLASSES = 16, 4, 5, ("blue", "green", "red")
MODEL = ModelConfig(width=0.125, layers=2, heads=2, ff_mult=2)
SETTINGS = ContextSSLConfig(width=32, pairs=PAIRS)


def context_shards(out: Path, params: tuple[ParamField, ...] = THREE_DIEBENCH_PARAMS) -> Path:
    """24 training and 12 validation objects of noise, brighter in the label's channel."""
    rng = np.random.default_rng(0)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "raw", params)
    with SetBuilder(out, name="noise", spec=spec, classes=CLASSES, fingerprint={"by": "test"}) as builder:
        for split, count in (("train", 24), ("val", 12)):
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    writer.add(*_sample(number, rng, len(params)))
        builder.finish({"command": "test"})
    return out


def _sample(number: int, rng: np.random.Generator, columns: int) -> tuple[ViewSample, PixelStats]:
    label = number % 3
    pixels = rng.integers(0, 120, (VIEWS, SIZE, SIZE, 3))
    pixels[..., label] += 100
    pixels = pixels.astype(np.uint8)
    params = rng.uniform(0, 1, (VIEWS, columns)).astype(np.float32)
    views = [encode_raw(view) for view in pixels]
    return ViewSample(f"object_{number:04d}", views, range(VIEWS), params, label), PixelStats.of(pixels)


def context_run(out: Path, action: str = "rotation_colour") -> Path:
    """A run directory as `seqjepa train` leaves it, with random weights."""
    data = DataConfig(context=1, action=action)  # type: ignore[arg-type]
    config = RunConfig(name="tiny", method="context_ssl", data=data, model=MODEL, context_ssl=SETTINGS)
    size = 6 if action == "rotation_colour" else 4
    info = DataInfo(action, size, (0.4,) * 3, (0.2,) * 3, SIZE, SIZE)
    out.mkdir()
    (out / "config.toml").write_text(to_toml(config))
    identity = {"kind": "seqjepa-run", "format": 1, "data": {**info._asdict(), "fixating": {}}}
    (out / "run.json").write_text(json.dumps(identity))
    other = config.model_copy(update={"seed": 1})
    save_weights(initial_method(other, size), out / "model.safetensors")
    return out
