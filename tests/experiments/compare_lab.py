"""Shards, and a scale at which eleven methods are trained and probed in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from noise_shards import SIZE

from seqjepa.experiments.compare_scales import SMALL
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

NARROW = ("model.width=0.125", "model.layers=1", "context_ssl.width=32")
TINY = replace(
    SMALL,
    entries={name: replace(entry, changes=(*entry.changes, *NARROW)) for name, entry in SMALL.entries.items()},
    evaluation={"m_val": (1, 3), "probe_epochs": 2, "agg_draws": 2},
)


def image_shards(out: Path) -> Path:
    """One black image, without parameters."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    spec = ImageSpec(SIZE, SIZE, "raw", "none")
    with SetBuilder(out, name="black", spec=spec, classes=("dark",), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            shard.add(ImageSample("one", encode_raw(pixels), (), 0, {}), PixelStats.of(pixels[None]))
        builder.finish({"command": "test"})
    return out
