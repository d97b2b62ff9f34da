"""Small trees and tars in 3DIEBench's layout, for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.build.views import shard_views
from pipelines.sources.three_diebench import ThreeDIEBenchSource
from shards.schema import DatasetInfo

OF_SOURCE = ("split_lists", "val_match", "val_fraction", "split")


def shard_3diebench(source: Path, out: Path, **options) -> DatasetInfo:
    """What `seqjepa-data shard 3diebench` does with these options."""
    given = {name: options.pop(name) for name in OF_SOURCE if name in options}
    return shard_views(ThreeDIEBenchSource(source, **given), out, **options)


def smooth_image(seed: int, size: int = 32) -> np.ndarray:
    """uint8 [size, size, 3]: a few soft blobs, as a rendering has."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def jpeg(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 95, **options})
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def latent(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, 7)


def make_tree(
    root: Path, synsets: Sequence[str] = ("0002", "0001"), objects: int = 3, views: int = 4, size: int = 32
) -> Path:
    """`objects` objects o0 … of each synset, `views` views each."""
    for s, synset in enumerate(synsets):
        for o in range(objects):
            folder = root / synset / f"o{o}"
            folder.mkdir(parents=True)
            for k in range(views):
                seed = 10000 * s + 100 * o + k
                (folder / f"image_{k}.jpg").write_bytes(jpeg(smooth_image(seed, size)))
                (folder / f"latent_{k}.npy").write_bytes(npy(latent(seed)))
    return root


def make_tar(tree: Path, path: Path, seed: int = 0, prefix: str = "./Some Root") -> Path:
    """`tree` as a tar (gzipped if so named): objects in any order, each one's files together but shuffled."""
    rng = np.random.default_rng(seed)
    folders = sorted(tree.glob("*/*/"))
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for i in rng.permutation(len(folders)):
            files = sorted(folders[i].iterdir())
            for j in rng.permutation(len(files)):
                tar.add(files[j], f"{prefix}/{files[j].relative_to(tree)}")
    return path


def same_folders(a: Path, b: Path) -> bool:
    names = [sorted(str(p.relative_to(root)) for p in root.rglob("*")) for root in (a, b)]
    return names[0] == names[1] and all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in names[0] if (a / name).is_file()
    )
