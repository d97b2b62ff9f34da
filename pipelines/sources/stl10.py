"""STL-10's binary files: uint8, 3 × 96 × 96 an image, channels first, column-major inside a channel."""

from __future__ import annotations

import hashlib
import logging
import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import readable
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.content import content_sha256, file_stats, stamp_of
from shards.errors import FormatError, few

log = logging.getLogger(__name__)

SIDE = 96
IMAGE_BYTES = 3 * SIDE * SIDE
SPLITS = ("train", "test", "unlabeled")
LABELLED = ("train", "test")
CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")
SAMPLED_IMAGES = 64
LARGEST_NAMES = 1 << 16  # bytes of class_names.txt


class Stl10Source(ImageSource):
    """`path` holds train_X.bin …, or a folder stl10_binary that does. Splits are those whose file is there."""

    name = "stl10"

    def __init__(self, path: Path):
        if path.is_file():
            raise FormatError(f"{path} is a file; unpack it and give the folder that holds train_X.bin")
        inner = path / "stl10_binary"
        self.path = inner if inner.is_dir() and not _images(path, "train").exists() else path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a worker looks at the files itself

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Of class_names.txt, else the ten published ones."""
        file = self.path / "class_names.txt"
        if not file.is_file():
            return CLASSES
        with file.open("rb") as opened:
            lines = opened.read(LARGEST_NAMES).decode("utf-8-sig", "replace").splitlines()
        names = tuple(name for line in lines if (name := line.strip()))
        if not names or len(set(names)) != len(names):
            raise FormatError(f"{file} holds {len(names)} names, not one different name a line; fetch it again")
        return names

    @cached_property
    def splits(self) -> tuple[str, ...]:
        found = tuple(split for split in SPLITS if _images(self.path, split).is_file())
        if not found:
            raise FormatError(f"{self.path} holds no train_X.bin, test_X.bin or unlabeled_X.bin; give stl10_binary")
        if "train" not in found:
            log.warning("%s holds no train_X.bin: there is no training split, only %s", self.path, few(found))
        return found

    @cached_property
    def labels(self) -> dict[str, np.ndarray]:
        """int64 [n] of each split, from 0, −1 for unlabelled. FormatError: files cut short or at odds."""
        return {split: self._labels(split) for split in self.splits}

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Counts; for each split a sha256 over labels and some images, by which maps know it; one of the content."""
        records = self.records()
        return {
            "layout": "stl10",
            "images": {split: len(labels) for split, labels in self.labels.items()},
            "sample_sha256": {split: self._sample_sha256(split) for split in self.splits},
            "content_sha256": content_sha256(
                ((record.name, IMAGE_BYTES) for record in records), lambda row, _: self.stored(records[row])
            ),
        }

    def _sample_sha256(self, split: str) -> str:
        labels = self.labels[split]
        rows = np.linspace(0, len(labels) - 1, min(SAMPLED_IMAGES, len(labels))).astype(int)
        digest = hashlib.sha256("\n".join(self.classes).encode())
        digest.update(labels.tobytes())
        for row in rows.tolist():
            digest.update(self._stored(split, row))
        return digest.hexdigest()

    def records(self) -> list[ImageRecord]:
        found = []
        for split, labels in self.labels.items():
            file = _images(self.path, split).name
            for row, label in enumerate(labels.tolist()):
                meta: dict[str, str | int] = {"file": file, "row": row}
                found.append(ImageRecord(f"{split}-{row:05d}", label, split, f"{file}[{row}]", row, 0, meta))
        return found

    def read(self, record: ImageRecord) -> np.ndarray:
        """uint8 [96, 96, 3], a copy. Rows and columns are swapped in the file."""
        pixels = np.frombuffer(self.stored(record), np.uint8).reshape(3, SIDE, SIDE)
        return np.ascontiguousarray(pixels.transpose(2, 1, 0))

    def stored(self, record: ImageRecord) -> bytes:
        return self._stored(record.split, record.position)

    def _stored(self, split: str, row: int) -> bytes:
        """Not of a map: a file that is cut meanwhile would end the process (SIGBUS). FormatError: it was."""
        file = _images(self.path, split)
        with readable(), file.open("rb", buffering=0) as opened:
            data = os.pread(opened.fileno(), IMAGE_BYTES, row * IMAGE_BYTES)
        if len(data) < IMAGE_BYTES:
            raise FormatError(f"{file} ends before image {row}: it became shorter while it was read")
        return data

    def stamp(self) -> str:
        files = ((_images(self.path, split), self.path / f"{split}_y.bin") for split in self.splits)
        return stamp_of(file_stats(file for pair in files for file in pair))

    def _labels(self, split: str) -> np.ndarray:
        file = _images(self.path, split)
        size = file.stat().st_size
        if split not in LABELLED:
            if size % IMAGE_BYTES or not size:
                whole = max(1, -(-size // IMAGE_BYTES))
                raise FormatError(_cut(file, size, whole, "whole images of 27648 bytes"))
            return np.full(size // IMAGE_BYTES, -1, np.int64)
        label_file = self.path / f"{split}_y.bin"
        if not label_file.is_file():
            raise FormatError(f"{label_file} is missing beside {file.name}; fetch it again")
        labels = np.fromfile(label_file, np.uint8).astype(np.int64)
        if size != len(labels) * IMAGE_BYTES or not size:
            raise FormatError(_cut(file, size, len(labels), f"as many as {label_file.name} has labels"))
        first, last = labels.min(), labels.max()
        if first < 1 or last > len(self.classes):
            raise FormatError(f"{label_file} has labels from {first} to {last}, expected 1 to {len(self.classes)}")
        return labels - 1


def _images(path: Path, split: str) -> Path:
    return path / f"{split}_X.bin"


def _cut(file: Path, size: int, images: int, why: str) -> str:
    return (
        f"{file} has {size} bytes, expected {images * IMAGE_BYTES} ({images} images, {why}): cut short, or of another "
        "copy; fetch it again"
    )
