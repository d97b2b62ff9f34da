"""CIFAR-100 as a source of images: 32×32, 100 fine classes; the coarse class and the file's name as meta."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.content import file_stats, short_digest, stamp_of
from pipelines.images.cifar_files import Batch, Cifar100, cifar100_files, read_cifar100
from pipelines.images.source import ImageRecord
from pipelines.left_out import LeftOut


class Cifar100Source:
    """`path` is cifar-100-python/, a folder that holds it, or its .tar.gz or .tar. Splits "train" and "test"."""

    name = "cifar100"
    left_out = 0
    others = LeftOut()

    def __init__(self, path: Path):
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a worker reads the files itself

    @property
    def options(self) -> dict[str, Any]:
        return {}

    @property
    def contents(self) -> Cifar100:
        """Raises FormatError for what read_cifar100 refuses."""
        return self._contents

    @cached_property
    def _contents(self) -> Cifar100:
        status = (self.path / "train" if self.path.is_dir() else self.path).resolve()
        stamp = status.stat().st_mtime_ns if status.exists() else 0
        return _read_once(self.path, stamp)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.contents.fine_names

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Counts, coarse names, and a sha256 over each split's labels, names and pixels: folder and archive agree."""
        splits = self.contents.splits
        return {
            "layout": "cifar100",
            "images": {name: len(batch.names) for name, batch in splits.items()},
            "coarse_classes": list(self.contents.coarse_names),
            "sample_sha256": {name: _sha256(batch, self.classes) for name, batch in splits.items()},
        }

    def records(self) -> list[ImageRecord]:
        """Keys "train-00000" …, in the files' order."""
        found = []
        for split, batch in self.contents.splits.items():
            rows = zip(batch.names, batch.fine.tolist(), batch.coarse.tolist(), strict=True)
            for row, (file, fine, coarse) in enumerate(rows):
                meta: dict[str, str | int] = {"file": file, "coarse": coarse}
                found.append(ImageRecord(f"{split}-{row:05d}", fine, split, f"{split}[{row}] ({file})", row, 0, meta))
        return found

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [32, 32, 3], a copy. The file has one plane after another."""
        return np.ascontiguousarray(self.contents.splits[record.split].pixels[record.position].transpose(1, 2, 0))

    def digest(self, record: ImageRecord) -> str:
        return short_digest(self.contents.splits[record.split].pixels[record.position].tobytes())

    def stamp(self) -> str:
        return stamp_of(file_stats(cifar100_files(self.path)))


@lru_cache(maxsize=1)
def _read_once(path: Path, stamp: int) -> Cifar100:
    """Kept, for a worker is handed a fresh source with every image. `stamp`: a file that changed is read again."""
    return read_cifar100(path)


def _sha256(batch: Batch, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join((*classes, *batch.names)).encode())
    for part in (batch.fine, batch.coarse, batch.pixels):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
