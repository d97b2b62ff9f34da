"""Shards, and a scale at which eleven methods are trained and probed in seconds."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import tomli_w
from noise_shards import SIZE
from small_backbone import small

from seqjepa.experiments.scale import FOLDER
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder


def tiny_scale(folder: Path) -> str:
    """The small scale with narrower networks and shorter probes, as a file for --scale."""
    scale = tomllib.loads((FOLDER / "small.toml").read_text(encoding="utf-8"))
    scale["settings"]["model"] |= {"backbone": small.__name__, "width": 0.125}
    scale["defaults"]["model"]["layers"] = 1
    for method in scale["method"].values():
        if "defaults" in method:
            method["defaults"]["model"]["projector"] = [32, 32]
    scale["method"]["context_ssl"]["settings"]["context_ssl"]["width"] = 32
    scale["compare"]["evaluation"] = {"m_val": [1, 3], "probe_epochs": 2, "agg_draws": 2}
    (folder / "tiny.toml").write_text(tomli_w.dumps(scale))
    return str(folder / "tiny.toml")


def image_shards(out: Path) -> Path:
    """One black image, without parameters."""
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    spec = ImageSpec(SIZE, SIZE, "raw", "none")
    with SetBuilder(out, name="black", spec=spec, classes=("dark",), fingerprint={}) as builder:
        with builder.open_shard("train", 0) as shard:
            shard.add(ImageSample("one", encode_raw(pixels), (), 0, {}), PixelStats.of(pixels[None]))
        builder.finish({"command": "test"})
    return out
