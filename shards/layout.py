"""Where everything lies in a shard set's folder. The one place that knows file names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shards.schema import DatasetInfo, features_of

SPLIT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
SHARD_NAME = re.compile(r"([a-z][a-z0-9_]{0,31})-(\d{6})")
MAX_SHARDS = 1_000_000
ENCODER = "_meta/encoder.safetensors"


def shard_name(split: str, number: int) -> str:
    """("train", 3) → "train-000003"."""
    return f"{split}-{number:06d}"


def split_of_shard(name: str) -> str:
    """ "train-000003" → "train"."""
    return name.rsplit("-", 1)[0]


def number_of_shard(name: str) -> int:
    """ "train-000003" → 3"""
    return int(name.rpartition("-")[2])


class SetFile(NamedTuple):
    """A file that dataset.json tells of, below the set's folder; size: None where it tells none."""

    name: str
    sha256: str
    size: int | None = None


def set_files(info: DatasetInfo) -> Iterator[SetFile]:
    """All of them but the card."""
    if features := features_of(info.spec):
        yield SetFile(ENCODER, features.file_sha256)
    for split in info.splits.values():
        yield SetFile(split.index, split.index_sha256)
        yield from (SetFile(f"{entry.name}.tar", entry.sha256, entry.bytes) for entry in split.shards)


@dataclass
class Layout:
    """Paths of one set. While a build is under way there are also build.json, lock, parts/, claims/ and tmp/.

    parts/ and tmp/ are the build's own: a caller may keep notes of its own there until the set is finished.
    worker: who is at work; its temporary files are in a folder of its own (building/workers.py).
    """

    root: Path
    worker: str = ""

    def __post_init__(self) -> None:
        self.readme, self.encoder, self.meta = (self.root / name for name in ("README.md", ENCODER, "_meta"))
        self.info, self.build, self.lock = (self.meta / name for name in ("dataset.json", "build.json", "lock"))
        self.parts, self.claims, self.workers = (self.meta / name for name in ("parts", "claims", "tmp"))
        self.tmp = self.workers / self.worker if self.worker else self.workers

    def shard(self, name: str) -> Path:
        return self.root / f"{name}.tar"

    def part(self, name: str) -> Path:
        return self.parts / f"{name}.parquet"

    def claim(self, name: str) -> Path:
        return self.claims / name

    def index(self, split: str) -> Path:
        return self.meta / f"index-{split}.parquet"
