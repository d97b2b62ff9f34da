"""CIFAR-100 as a source of images: 32×32, 100 fine classes; the coarse class and the file's name as meta.

Its files are cifar-100-python/{train,test,meta}, in a folder or an archive.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.archives import FILE, TRAILING
from pipelines.archives.tar import TarStream
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.content import Stat, file_stats, stamp_of, stats_of
from pipelines.sources.restricted_pickle import LARGEST_PICKLE, StoredBytes, load_plain
from shards.errors import FormatError
from shards.machine.environment import system_errors_as

log = logging.getLogger(__name__)

FOLDER = "cifar-100-python"
SPLITS = ("train", "test")
FILES = (*SPLITS, "meta")
SIDE = 32
ROW_BYTES = 3 * SIDE * SIDE
WANTED = f"{FOLDER}/ with train, test and meta, or {FOLDER}.tar.gz"


@dataclass(frozen=True)
class Batch:
    """Images of a split: `pixels` uint8 [n, 3, 32, 32] (RGB); `fine`, `coarse` int64 [n]; their files' `names`."""

    pixels: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    names: list[str]


@dataclass(frozen=True)
class Cifar100:
    splits: dict[str, Batch]
    fine_names: tuple[str, ...]
    coarse_names: tuple[str, ...]


class Cifar100Source(ImageSource):
    """`path` is cifar-100-python/, a folder that holds it, or its .tar.gz or .tar. Splits "train" and "test"."""

    name = "cifar100"

    def __init__(self, path: Path):
        self.path = path

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}  # a worker reads the files itself

    @cached_property
    def contents(self) -> Cifar100:
        """Raises FormatError for what read_cifar100 refuses."""
        return _read_once(self.path, tuple(stats_of(cifar100_files(self.path))))

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

    def stored(self, record: ImageRecord) -> bytes:
        return self.contents.splits[record.split].pixels[record.position].tobytes()

    def stamp(self) -> str:
        return stamp_of(file_stats(cifar100_files(self.path)))


@lru_cache(maxsize=1)
def _read_once(path: Path, stats: tuple[Stat, ...]) -> Cifar100:
    """Kept, for a worker is handed a fresh source with every image. `stats`: once a file changed, all are read anew."""
    return read_cifar100(path)


def _sha256(batch: Batch, classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256("\n".join((*classes, *batch.names)).encode())
    for part in (batch.fine, batch.coarse, batch.pixels):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()


def read_cifar100(path: Path) -> Cifar100:
    """`path` is the folder, one that holds it, or a .tar.gz or .tar of it, read once from front to back.

    Raises FormatError: another archive, a missing, cut or damaged file, a pickle that names anything but arrays, counts
    that are at odds, labels without a name.
    """
    found = dict(_archive_files(path) if path.is_file() else _folder_files(path))
    missing = [name for name in FILES if name not in found]
    if missing:
        raise FormatError(f"{path} holds no {FOLDER}/{' or '.join(missing)}; give {WANTED}")
    meta = _table(found.pop("meta"), f"{path}: meta")
    fine, coarse = (_texts(meta, f"{kind}_label_names", f"{path}: meta") for kind in ("fine", "coarse"))
    if len(set(fine)) != len(fine) or not fine or not coarse:
        raise FormatError(f"{path}: meta names {len(fine)} fine and {len(coarse)} coarse classes, not all different")
    splits = {name: _batch(found.pop(name), f"{path}: {name}", len(fine), len(coarse)) for name in SPLITS}
    return Cifar100(splits, tuple(fine), tuple(coarse))


def cifar100_files(path: Path) -> list[Path]:
    """The files that read_cifar100 reads, whether they are there or not."""
    if path.is_file():
        return [path]
    folder = path / FOLDER if (path / FOLDER).is_dir() else path
    return [folder / name for name in FILES]


def _folder_files(path: Path) -> Iterator[tuple[str, bytes]]:
    for name, file in zip(FILES, cifar100_files(path), strict=True):
        if file.is_file():
            _check_size(file.stat().st_size, f"{file}")
            with system_errors_as(lambda why, file=file: FormatError(f"{file} cannot be read: {why}")):
                yield name, file.read_bytes()


def _archive_files(path: Path) -> Iterator[tuple[str, bytes]]:
    bar = tqdm(total=path.stat().st_size, desc="reading", unit="B", unit_scale=True, disable=None, leave=False)
    with bar, TarStream(path, bar.update) as stream:
        for member in stream:
            parts = PurePosixPath(member.name).parts
            if parts[-2:-1] == (FOLDER,) and parts[-1] in FILES:
                where = f"{path}: {member.name}"
                if member.kind != FILE:
                    raise FormatError(f"{where} is a {member.kind}, not a file; pack it again with tar -h")
                _check_size(member.size, where)
                yield parts[-1], stream.read()
        if stream.trailing:
            log.warning("%s: %s", path, TRAILING)
        stream.drain()  # the checksum of a gzipped archive comes last


def _check_size(size: int, where: str) -> None:
    if size > LARGEST_PICKLE:
        raise FormatError(f"{where} has {size} bytes, CIFAR-100's files have 155 million at most; give {WANTED}")


def _batch(data: bytes, where: str, fine_classes: int, coarse_classes: int) -> Batch:
    table = _table(data, where)
    stored = table.get("data")
    pixels = stored.value if isinstance(stored, StoredBytes) else None
    if pixels is None or pixels.ndim != 2 or pixels.shape[1] != ROW_BYTES:
        shape = "nothing" if pixels is None else f"uint8 {pixels.shape}"
        raise FormatError(f"{where} has {shape} as data, expected uint8 (n, {ROW_BYTES}): 32×32 pixels in three planes")
    names = _texts(table, "filenames", where)
    fine, coarse = (
        _labels(table, f"{kind}_labels", count, where)
        for kind, count in (("fine", fine_classes), ("coarse", coarse_classes))
    )
    if not 0 < len(pixels) == len(names) == len(fine) == len(coarse):
        raise FormatError(
            f"{where} has {len(pixels)} images, {len(names)} names, {len(fine)} fine and {len(coarse)} coarse labels; "
            "one of each for every image is expected"
        )
    return Batch(pixels.reshape(-1, 3, SIDE, SIDE), fine, coarse, names)


def _table(data: bytes, where: str) -> dict[str, Any]:
    """Keys are bytes in the distributed files, text in copies that Python 3 wrote."""
    value = load_plain(data, where)
    if not isinstance(value, dict):
        raise FormatError(f"{where} holds a {type(value).__name__}, not CIFAR-100's table; give {WANTED}")
    return {_text(key): item for key, item in value.items()}


def _texts(table: dict[str, Any], name: str, where: str) -> list[str]:
    values = _list(table, name, where)
    if not all(isinstance(value, (str, bytes)) for value in values):
        raise FormatError(f"{where} has {name} that are no text; fetch it again")
    return [_text(value) for value in values]


def _labels(table: dict[str, Any], name: str, classes: int, where: str) -> np.ndarray:
    values = _list(table, name, where)
    if not all(type(value) is int and 0 <= value < classes for value in values):
        raise FormatError(f"{where} has {name} that are not numbers from 0 to {classes - 1}, as many as meta has names")
    return np.array(values, np.int64)


def _list(table: dict[str, Any], name: str, where: str) -> list[Any]:
    if not isinstance(table.get(name), list):
        there = ", ".join(sorted(table)[:8]) or "nothing"
        raise FormatError(f"{where} has no list {name} (it has {there}); is it CIFAR-10? Give {WANTED}")
    return table[name]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
