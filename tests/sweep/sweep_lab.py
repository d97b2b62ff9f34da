"""Shards and a scale at which a run of a sweep takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SIZE, VIEWS = 16, 4
SCALE = """\
# For tests.
[defaults.model]
action_dim = 8
layers = 1
ff_mult = 1
predictor_hidden = 16
[settings]
data.normalisation = "shards"
data.image_size = 16
model.width = 0.125
optim.epochs = 2
optim.batch_size = 8
[evaluation]
suite = "probes"
m_val = [1]
probe_epochs = 2
agg_draws = 2
[method.sie.defaults.model]
projector = [16, 16]
[method.equimod.defaults.model]
projector = [16, 16]
"""


def noise_shards(out: Path) -> Path:
    """16 + 8 objects of noise in two classes, with 3DIEBench's parameters."""
    rng = np.random.default_rng(0)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "raw", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="noise", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
        for split, count in (("train", 16), ("val", 8)):
            with builder.open_shard(split, 0) as shard:
                for number in range(count):
                    pixels = rng.integers(0, 255, (VIEWS, SIZE, SIZE, 3)).astype(np.uint8)
                    params = rng.uniform(0, 1, (VIEWS, 7)).astype(np.float32)
                    views = [encode_raw(view) for view in pixels]
                    sample = ViewSample(f"{split}{number:03d}", views, range(VIEWS), params, number % 2)
                    shard.add(sample, PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


def scale_file(folder: Path, more: str = "") -> Path:
    file = folder / "test.toml"
    file.write_text(SCALE + more)
    return file
