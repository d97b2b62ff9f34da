"""The benchmark's data: small pictures as an array and as shards."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from shards.reader import ImageIndex, ShardSet
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.writer import PixelStats, SetBuilder

IMAGES, SIDE, VIEWS, BATCH = 4096, 32, 4, 512


def picture(number: int) -> np.ndarray:
    """uint8 [SIDE, SIDE, 3]."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def prepare(work: Path) -> None:
    """Write both, once."""
    work.mkdir(parents=True, exist_ok=True)
    pictures = np.stack([picture(number) for number in range(IMAGES)])
    np.save(work / "images.npy", pictures)
    spec, fingerprint = ImageSpec(SIDE, SIDE, "raw"), {"images": IMAGES}
    with SetBuilder(work / "shards", name="bench", spec=spec, classes=("a",), fingerprint=fingerprint) as builder:
        if builder.complete:
            return
        with builder.open_shard("train", 0) as writer:
            for number, pixels in enumerate(pictures):
                writer.add(ImageSample(f"{number:05d}", encode_raw(pixels), (), 0), PixelStats.of(pixels))
        builder.finish({"command": "benchmarks/augment.py"})


def images(work: Path) -> np.ndarray:
    """uint8 [IMAGES, SIDE, SIDE, 3], mapped."""
    return np.load(work / "images.npy", mmap_mode="r", allow_pickle=False)


def index(work: Path) -> ImageIndex:
    return ShardSet.open(work / "shards").images("train")
