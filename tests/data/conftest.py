from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from shards.reader import ShardSet, SplitIndex
from shards.saliency_map import encode_map
from shards.sample import ImageSample, ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, ImageSpec, ViewSpec
from shards.writer import PixelStats, SetBuilder

SIDE = 16


def make_sample(number: int, n_views: int, encoding: str, rng: np.random.Generator) -> tuple[ViewSample, PixelStats]:
    images = [np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8) for _ in range(n_views)]
    encode = encode_raw if encoding == "raw" else simplejpeg.encode_jpeg
    sample = ViewSample(
        key=f"object-{number:03d}",
        views=[encode(image) for image in images],
        view_ids=list(range(0, 2 * n_views, 2)),
        params=rng.uniform(-1.5, 1.5, (n_views, 7)).astype(np.float32),
        label=number % 3,
        meta={},
    )
    return sample, PixelStats.of(np.stack(images))


@pytest.fixture
def build_index(tmp_path) -> Callable[..., SplitIndex]:
    """Builds a real set of small single-colour views and opens its training split."""

    def build(samples: int = 23, views: int = 6, fewest: int = 6, encoding: str = "jpeg", seed: int = 0) -> SplitIndex:
        rng, out = np.random.default_rng(seed), tmp_path / f"set-{samples}-{views}-{fewest}-{encoding}-{seed}"
        spec = ViewSpec(views, SIDE, SIDE, encoding, THREE_DIEBENCH_PARAMS)
        fingerprint = {"seed": seed}
        with SetBuilder(out, name="tiny", spec=spec, classes=("a", "b", "c"), fingerprint=fingerprint) as builder:
            for shard, first in enumerate(range(0, samples, 8)):
                with builder.open_shard("train", shard) as writer:
                    for number in range(first, min(first + 8, samples)):
                        n_views = fewest if number == samples // 2 else views
                        writer.add(*make_sample(number, n_views, encoding, rng))
            builder.finish({"command": "test"})
        return ShardSet.open(out).split("train")

    return build


def blocky_image(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [H, W, 3] of 4 × 4 blocks, so that a JPEG of it is nearly what it was."""
    blocks = rng.integers(0, 256, (-(-height // 4), -(-width // 4), 3), np.uint8)
    return np.repeat(np.repeat(blocks, 4, 0), 4, 1)[:height, :width].copy()


@pytest.fixture
def build_image_set(tmp_path) -> Callable[..., ShardSet]:
    """Builds a real set of small images, with saliency maps unless saliency is "none"."""

    def build(
        samples: int = 19, size: tuple[int, int] = (24, 28), encoding: str = "raw", saliency: str = "float16"
    ) -> ShardSet:
        out, rng = tmp_path / f"images-{samples}-{size}-{encoding}-{saliency}", np.random.default_rng(samples)
        spec = ImageSpec(*size, encoding, saliency)
        encode = encode_raw if encoding == "raw" else partial(simplejpeg.encode_jpeg, colorsubsampling="444")
        with SetBuilder(out, name="images", spec=spec, classes=("a", "b"), fingerprint={}) as builder:
            for shard, first in enumerate(range(0, samples, 8)):
                with builder.open_shard("train", shard) as writer:
                    for number in range(first, min(first + 8, samples)):
                        image = blocky_image(*size, rng)
                        maps = () if saliency == "none" else encode_map(rng.gamma(0.2, size=size), saliency)
                        sample = ImageSample(f"image-{number:03d}", encode(image), maps, number % 3 - 1)
                        writer.add(sample, PixelStats.of(image))
            builder.finish({"command": "test"})
        return ShardSet.open(out)

    return build


@pytest.fixture
def overwrite_bytes() -> Callable[[Path, int, bytes], None]:
    def overwrite(path: Path, offset: int, data: bytes) -> None:
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(data)

    return overwrite
