"""Small image sets on disk, in the layouts that `pipelines/sources` reads, and maps that belong to them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.sources import ImageRecord, ImageSource
from shards.saliency_map import encode_map
from shards.sample import MapSample
from shards.schema import MapSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """uint8 [height, width, 3], smooth."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, suffix: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix), **options)
    return buffer.getvalue()


def make_folder(root: Path, names: Sequence[str], height: int = 24, width: int = 32) -> Path:
    """A picture for each name; the i-th is picture(i)."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(seed, height, width), path.suffix.lower().strip(".").replace("jpeg", "jpg")))
    return root


def make_tar(folder: Path, path: Path, prefix: str = "./") -> Path:
    """`folder` as a tar, files in no particular order."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for i in np.random.default_rng(0).permutation(len(files)):
            tar.add(files[i], f"{prefix}{files[i].relative_to(folder)}")
    return path


def make_stl10(root: Path, **counts: int) -> Path:
    """Noise in STL-10's files; labels go round from 1 to 10."""
    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    for split, count in counts.items():
        (root / f"{split}_X.bin").write_bytes(rng.integers(0, 256, count * 27648, dtype=np.uint8).tobytes())
        if split != "unlabeled":
            (root / f"{split}_y.bin").write_bytes(bytes(1 + i % 10 for i in range(count)))
    return root


def blob(height: int, width: int, row: float, col: float) -> np.ndarray:
    """float64 [height, width]: a narrow peak at (row, col)."""
    r, c = np.arange(height)[:, None], np.arange(width)[None]
    peak = np.exp(-((r - row) ** 2 + (c - col) ** 2) / 2)
    return peak / peak.sum()


def make_maps(
    out: Path, source: ImageSource, make: Callable[[ImageRecord], np.ndarray | None], storage: str = "float16"
) -> Path:
    """A finished `maps` set; no map where `make` gives None."""
    spec = MapSpec(storage)  # pyright: ignore[reportArgumentType]
    records = source.records()
    identity = {"name": "maps", "spec": spec, "classes": source.classes, "fingerprint": {"of": source.fingerprint}}
    with SetBuilder(out, **identity) as builder:
        for split in dict.fromkeys(record.split for record in records):
            writer = builder.open_shard(split, 0)
            for record in records:
                if record.split == split and (p := make(record)) is not None:
                    parts = encode_map(p, spec.storage)
                    writer.add(MapSample(record.key, parts, *p.shape, record.label, record.meta), PixelStats())
            writer.close()
        builder.finish({"saliency_model": {"model": "a-test-model"}, "source": source.fingerprint})
    return out
