"""A small set of images to bake from."""

from __future__ import annotations

import numpy as np

from shards.saliency_map import encode_map
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.writer import PixelStats, SetBuilder


def build_source(folder, saliency: str = "float16", samples: int = 21, size: tuple[int, int] = (20, 24)):
    rng = np.random.default_rng(0)
    spec = ImageSpec(*size, "raw", saliency)  # pyright: ignore[reportArgumentType]
    with SetBuilder(folder, name="images", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
        for split, count in (("train", samples), ("test", 3)):
            with builder.open_shard(split, 0) as writer:
                for number in range(count):
                    image = rng.integers(0, 256, (*size, 3), np.uint8)
                    maps = () if saliency == "none" else encode_map(rng.gamma(0.3, size=size), saliency)  # pyright: ignore
                    sample = ImageSample(f"{split}-{number:03d}", encode_raw(image), maps, number % 2, {"name": "x"})
                    writer.add(sample, PixelStats.of(image))
        builder.finish({"command": "test"})
    return folder
