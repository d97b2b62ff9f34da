"""Tiny sets for the tests: deterministic by (seed, split, shard), ragged, and quick to build."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from shards.sample import ViewSample, encode_raw
from shards.schema import THREE_DIEBENCH_PARAMS, DatasetInfo, ViewSpec
from shards.writer import PixelStats, SetBuilder

PLAN = {"train": 3, "val": 2}
CLASSES = ["chair", "lamp", "table"]
SLOTS = 3


def spec_of(encoding: str = "raw", views: int = SLOTS) -> ViewSpec:
    return ViewSpec(views, 8, 12, encoding, THREE_DIEBENCH_PARAMS)


def pixels_of(split: str, shard: int, sample: int, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 8, 12, 3], smooth enough for JPEG."""
    rng = np.random.default_rng([seed, len(split), shard, sample])
    coarse = rng.integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 95, "subsampling": 0} | options)
    return buffer.getvalue()


def sample_of(
    split: str, shard: int, number: int, encoding: str = "raw", seed: int = 0
) -> tuple[ViewSample, np.ndarray]:
    """A sample of 1 to 3 views (so most sets are ragged), and its pixels before encoding."""
    count = 1 + number % SLOTS
    pixels = pixels_of(split, shard, number, count, seed)
    params = np.random.default_rng([seed, shard, number]).normal(size=(count, 7)).astype(np.float32)
    encode = encode_raw if encoding == "raw" else jpeg
    meta = {"synset": f"0{number}", "object": 100 * shard + number}
    ids = list(range(0, 2 * count, 2))
    key = f"{split}_{shard}-{number}"
    return ViewSample(key, [encode(p) for p in pixels], ids, params, number % 3, meta), pixels


def builder(out: Path, encoding: str = "raw", seed: int = 0, overwrite: bool = False) -> SetBuilder:
    fingerprint = {"seed": seed, "source": "tests"}
    return SetBuilder(
        out, name="toy", spec=spec_of(encoding), classes=CLASSES, fingerprint=fingerprint, overwrite=overwrite
    )


def build(
    out: Path,
    encoding: str = "raw",
    seed: int = 0,
    samples: int = 3,
    overwrite: bool = False,
    on_shard: Callable[[str], None] = lambda name: None,
) -> DatasetInfo:
    """Builds, or resumes, the tiny set in `out`; `on_shard` hears the name of each shard that is written."""
    with builder(out, encoding, seed, overwrite) as target:
        for split, shards in PLAN.items():
            for shard in range(shards):
                if (name := f"{split}-{shard:06d}") in target.done():
                    continue
                on_shard(name)
                with target.open_shard(split, shard) as writer:
                    for number in range(samples):
                        sample, pixels = sample_of(split, shard, number, encoding, seed)
                        writer.add(sample, PixelStats.of(pixels, pixels // 2 * 2))
        return target.finish({"command": "tests"})


def contents(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file under `folder`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def final_files(folder: Path) -> dict[str, str]:
    """contents() without what belongs to a build under way."""
    under_way = ("_meta/tmp/", "_meta/parts/", "_meta/build.json", "_meta/lock")
    return {name: digest for name, digest in contents(folder).items() if not name.startswith(under_way)}
