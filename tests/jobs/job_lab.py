"""Shards and jobs small enough to be trained and evaluated in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seqjepa.jobs.job import Job
from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS = 16, 4
SETTINGS = (
    "model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16",
    "model.stem=cifar", "data.image_size=0", "data.normalisation=shards", "optim.epochs=2", "optim.batch_size=8",
    "optim.warmup_epochs=1",
)  # fmt: skip
EVALUATION = {"m_val": (1,), "probe_epochs": 2, "agg_draws": 2}


def noise_shards(out: Path, train: int = 16, val: int = 8, seed: int = 0) -> Path:
    """Noise in two classes, one of them brighter; with 3DIEBench's parameters."""
    rng = np.random.default_rng(seed)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "raw", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("dark", "bright"), fingerprint={"seed": seed}) as builder:
        for split, count in (("train", train), ("val", val)):
            with builder.open_shard(split, 0) as shard:
                for number in range(count):
                    pixels = (rng.integers(0, 150, (VIEWS, SIZE, SIZE, 3)) + 80 * (number % 2)).astype(np.uint8)
                    params = rng.uniform(0, 1, (VIEWS, 7)).astype(np.float32)
                    views = [encode_raw(view) for view in pixels]
                    sample = ViewSample(f"{split}{number:03d}", views, range(VIEWS), params, number % 2)
                    shard.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


def small_job(shards: Path, **changes: object) -> Job:
    fields = {"name": "small", "recipe": "3die-rot-M1", "settings": SETTINGS, "shards": shards}
    return Job(**{**fields, "evaluation": EVALUATION, **changes})  # type: ignore[arg-type]
