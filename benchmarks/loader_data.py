"""The benchmark's data: random smooth objects, the same pictures as a tree at 256 px, a tree at 128 px, and shards.

512 objects × 50 views, so that a batch of 512 sequences is one epoch. At 128 px a view takes about 4 kB (quality 90,
4:2:0), as a view of 3DIEBench does; at 256 px about 6.5 kB, as in the distributed archive (17 GB, 2.6 million views).
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.writer import PixelStats, SetBuilder

OBJECTS, VIEWS, SIDE, SEQUENCE, BATCH = 512, 50, 128, 4, 512
_PER_SHARD = 64
_LOW = np.array([-np.pi / 2] * 3 + [0, 0, 0, 0])
_HIGH = np.array([np.pi / 2] * 3 + [1, np.pi / 4, 2 * np.pi, 1])


def latents(number: int) -> np.ndarray:
    """float64 [VIEWS, 7] of one object, in the ranges of 3DIEBench."""
    return np.random.default_rng([1, number]).uniform(_LOW, _HIGH, (VIEWS, 7))


def pictures(number: int) -> list[np.ndarray]:
    """VIEWS pictures uint8 [256, 256, 3] of one object: a textured disc on a plain ground."""
    rng = np.random.default_rng([0, number])
    rows, cols = np.mgrid[:256, :256] - 127.5
    shots = []
    for _ in range(VIEWS):
        texture = cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
        inside = np.hypot(rows - rng.uniform(-40, 40), cols - rng.uniform(-40, 40)) < rng.uniform(85, 105)
        shots.append(np.where(inside[..., None], texture, rng.integers(0, 256, 3, np.uint8)))
    return shots


def prepare(work: Path) -> None:
    """Write what is not there yet."""
    if not (work / "trees.done").exists():
        for number in range(OBJECTS):
            _write_trees(work, number)
        (work / "trees.done").touch()
    spec = ViewSpec(VIEWS, SIDE, SIDE, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(
        work / "shards", name="benchmark", spec=spec, classes=["object"], fingerprint={"benchmark": 1}
    ) as builder:
        if builder.complete:
            return
        for shard in range(OBJECTS // _PER_SHARD):
            with builder.open_shard("train", shard) as writer:
                for number in range(shard * _PER_SHARD, (shard + 1) * _PER_SHARD):
                    writer.add(_sample(work, number), PixelStats())
        builder.finish({"command": "benchmarks/loader.py"})


def object_folder(work: Path, tree: str, number: int) -> Path:
    """Folder of one object in "tree256" (3DIEBench's layout) or "tree128" (the pictures resized)."""
    return work / tree / "00000001" / f"{number:06d}"


def small_jpegs(work: Path, number: int) -> list[bytes]:
    """The VIEWS 128-px JPEGs of one object."""
    folder = object_folder(work, "tree128", number)
    return [(folder / f"image_{view}.jpg").read_bytes() for view in range(VIEWS)]


def _write_trees(work: Path, number: int) -> None:
    large, small = (object_folder(work, tree, number) for tree in ("tree256", "tree128"))
    large.mkdir(parents=True, exist_ok=True)
    small.mkdir(parents=True, exist_ok=True)
    np.save(small / "latents.npy", latents(number))
    for view, (picture, latent) in enumerate(zip(pictures(number), latents(number), strict=True)):
        np.save(large / f"latent_{view}.npy", latent)
        (large / f"image_{view}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=80, colorsubsampling="420"))
        resized = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        (small / f"image_{view}.jpg").write_bytes(simplejpeg.encode_jpeg(resized, quality=90, colorsubsampling="420"))


def _sample(work: Path, number: int) -> ViewSample:
    return ViewSample(f"{number:06d}", small_jpegs(work, number), range(VIEWS), latents(number).astype(np.float32), 0)
