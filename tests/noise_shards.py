"""Shards of noise with which everything from training to a report runs in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ActionSpec, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS = 16, 4


def noise_shards(
    out: Path,
    train: int = 16,
    val: int = 8,
    seed: int = 0,
    size: int = SIZE,
    per_shard: int = 0,
    actions: ActionSpec | None = None,
) -> Path:
    """Four views of each object, in two classes, one of them brighter; with 3DIEBench's parameters.

    per_shard: samples in a shard; 0: all.
    """
    rng = np.random.default_rng(seed)
    spec = ViewSpec(VIEWS, size, size, "raw", THREE_DIEBENCH_PARAMS, actions=actions)
    with SetBuilder(out, name="noise", spec=spec, classes=("dark", "bright"), fingerprint={"seed": seed}) as builder:
        for split, count in (("train", train), ("val", val)):
            for start in range(0, count, per_shard or count):
                with builder.open_shard(split, start // (per_shard or count)) as shard:
                    for number in range(start, min(count, start + (per_shard or count))):
                        pixels = (rng.integers(0, 150, (VIEWS, size, size, 3)) + 80 * (number % 2)).astype(np.uint8)
                        params = rng.uniform(0, 1, (VIEWS, 7)).astype(np.float32)
                        views = [encode_raw(view) for view in pixels]
                        sample = ViewSample(f"{split}{number:03d}", views, range(VIEWS), params, number % 2)
                        shard.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out
