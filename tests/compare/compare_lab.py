"""Shards, and a scale at which eleven methods are trained and probed in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from seqjepa.compare.scales import SMALL
from shards.sample import ImageSample, ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ImageSpec, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS = 16, 4
NARROW = ("model.width=0.125", "model.layers=1", "context_ssl.width=32")
TINY = replace(
    SMALL,
    entries={name: replace(entry, changes=(*entry.changes, *NARROW)) for name, entry in SMALL.entries.items()},
    evaluation={"m_val": (1, 3), "probe_epochs": 2, "agg_draws": 2},
)


def view_shards(out: Path, train: int = 16, val: int = 8) -> Path:
    """Noise in two classes, one of them brighter; with 3DIEBench's parameters."""
    rng = np.random.default_rng(0)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "raw", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("dark", "bright"), fingerprint={}) as builder:
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


def image_shards(out: Path) -> Path:
    """One black image, without parameters."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    spec = ImageSpec(SIZE, SIZE, "raw", "none")
    with SetBuilder(out, name="black", spec=spec, classes=("dark",), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            shard.add(ImageSample("one", encode_raw(pixels), (), 0, {}), PixelStats.of(pixels[None]))
        builder.finish({"command": "test"})
    return out
