"""The training benchmark's data: the same textured discs as a 256-px tree in 3DIEBench's layout and as shards."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.writer import PixelStats, SetBuilder

VIEWS, SOURCE, CLASSES = 8, 256, 55
_LOW = np.array([-np.pi / 2] * 3 + [0, 0, 0, 0])
_HIGH = np.array([np.pi / 2] * 3 + [1, np.pi / 4, 2 * np.pi, 1])


@dataclass(frozen=True)
class Data:
    """`work` holds tree/OBJECT/{image,latent}_{view} at 256 px and shards/ at `side` px."""

    work: Path
    objects: int
    side: int

    @property
    def shards(self) -> Path:
        return self.work / f"shards-{self.side}-{self.objects}"

    def folder(self, number: int) -> Path:
        return self.work / "tree" / f"{number:06d}"


def prepare(data: Data, processes: int) -> None:
    """Write what is not there yet."""
    spec = ViewSpec(VIEWS, data.side, data.side, "jpeg", THREE_DIEBENCH_PARAMS)
    classes = [f"class-{c:02d}" for c in range(CLASSES)]
    data.work.mkdir(parents=True, exist_ok=True)
    with SetBuilder(data.shards, name="bench", spec=spec, classes=classes, fingerprint={"benchmark": 1}) as builder:
        if builder.complete:
            return
        with multiprocessing.get_context("spawn").Pool(processes) as pool, builder.open_shard("train", 0) as writer:
            for sample, stats in pool.imap(_make, ((data, n) for n in range(data.objects)), chunksize=8):
                writer.add(sample, stats)
        builder.finish({"command": "benchmarks/train.py"})


def _make(job: tuple[Data, int]) -> tuple[ViewSample, PixelStats]:
    """Write one object's part of the tree; return its sample for the shards."""
    data, number = job
    rng = np.random.default_rng(number)
    latents = rng.uniform(_LOW, _HIGH, (VIEWS, 7))
    folder = data.folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    small = []
    for view in range(VIEWS):
        picture = _picture(rng)
        (folder / f"image_{view}.jpg").write_bytes(simplejpeg.encode_jpeg(picture, quality=80, colorsubsampling="420"))
        np.save(folder / f"latent_{view}.npy", latents[view])
        small.append(cv2.resize(picture, (data.side, data.side), interpolation=cv2.INTER_AREA))
    jpegs = [simplejpeg.encode_jpeg(p, quality=90, colorsubsampling="420") for p in small]
    sample = ViewSample(f"{number:06d}", jpegs, range(VIEWS), latents.astype(np.float32), number % CLASSES)
    return sample, PixelStats.of(np.stack(small))


def _picture(rng: np.random.Generator) -> np.ndarray:
    rows, cols = np.mgrid[:SOURCE, :SOURCE] - (SOURCE - 1) / 2
    texture = cv2.resize(rng.integers(0, 256, (14, 14, 3), np.uint8), (SOURCE, SOURCE), interpolation=cv2.INTER_CUBIC)
    inside = np.hypot(rows - rng.uniform(-40, 40), cols - rng.uniform(-40, 40)) < rng.uniform(85, 105)
    return np.where(inside[..., None], texture, rng.integers(0, 256, 3, np.uint8))
