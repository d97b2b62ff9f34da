"""The benchmark's data: pictures of STL-10's size and smooth maps with a few peaks, as arrays and as shards."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from shards.reader import ImageIndex, ShardSet
from shards.saliency_map import encode_map
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.writer import PixelStats, SetBuilder

IMAGES, SIDE, PATCH, VIEWS, BATCH = 4096, 96, 32, 5, 512


def picture_and_map(number: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [SIDE, SIDE, 3], and float32 [SIDE, SIDE] that sums to 1."""
    rng = np.random.default_rng(number)
    picture = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    density = np.exp(cv2.resize(2 * rng.standard_normal((8, 8)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    return picture, (density / density.sum()).astype(np.float32)


def prepare(work: Path) -> None:
    """Write both, once."""
    work.mkdir(parents=True, exist_ok=True)
    pictures, maps = (np.stack(part) for part in zip(*map(picture_and_map, range(IMAGES)), strict=True))
    np.save(work / "images.npy", pictures)
    np.save(work / "maps.npy", maps)
    spec = ImageSpec(SIDE, SIDE, "raw", "float16")
    with SetBuilder(
        work / "shards", name="bench", spec=spec, classes=("a",), fingerprint={"images": IMAGES}
    ) as builder:
        if builder.complete:
            return
        with builder.open_shard("train", 0) as writer:
            for number, (picture, density) in enumerate(zip(pictures, maps, strict=True)):
                sample = ImageSample(f"{number:05d}", encode_raw(picture), encode_map(density, "float16"), 0)
                writer.add(sample, PixelStats.of(picture))
        builder.finish({"command": "benchmarks/fixations.py"})


def arrays(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [IMAGES, SIDE, SIDE, 3] and maps float32 [IMAGES, SIDE, SIDE], mapped."""
    images, maps = (np.load(work / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("images", "maps"))
    return images, maps


def index(work: Path) -> ImageIndex:
    return ShardSet.open(work / "shards").images("train")
