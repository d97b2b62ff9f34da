"""ShardSet opens a finished set; SplitIndex (views) or ImageIndex (images, maps) is one split of it as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shards.errors import ConfigError, DamageError, FormatError, few
from shards.layout import Layout
from shards.machine.files import sha256_of_bytes
from shards.metadata import read_info
from shards.reading.split_index import ImageIndex, SplitIndex, SplitTable, load_table
from shards.schema import DatasetInfo, ImageSpec, MapSpec, ViewSpec, features_of
from shards.stores.cache import fetch, local_folder
from shards.stores.cache_room import is_cached, origin
from shards.stores.store import unfinished

__all__ = ["ImageIndex", "ShardSet", "SplitIndex", "require_finished"]


@dataclass(frozen=True)
class ShardSet:
    """A finished set. open() reads and checks dataset.json only; split() and images() read an index.

    A set in an object store is opened by its address; its shards are fetched into the cache when a split is read.
    """

    path: Path
    info: DatasetInfo

    @classmethod
    def open(cls, path: str | Path) -> ShardSet:
        """path: a folder, or an address as s3://bucket/set.

        FormatError: no folder, not a set, an unfinished one, one of a newer version, or a damaged dataset.json."""
        layout = Layout(local_folder(path))
        require_finished(layout)
        return cls(layout.root, read_info(layout.root))

    @property
    def place(self) -> str:
        """What messages call it: its address, where it was opened by one; else its folder."""
        return origin(self.path) if is_cached(self.path) else str(self.path)

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.info.splits)

    def split(self, name: str, tars: bool = True) -> SplitIndex:
        """A split of a `views` set. ConfigError: another kind of set, or no such split.

        DamageError: the index or a tar's size is not what dataset.json says. FormatError: an impossible index.
        """
        if not isinstance(spec := self.info.spec, ViewSpec):
            raise ConfigError(f"{self.place} holds {spec.kind} shards, this needs views shards")
        return SplitIndex.of(self.table(name, tars), spec)

    def images(self, name: str, tars: bool = True) -> ImageIndex:
        """A split of a `saliency`, `image` or `maps` set. Errors as split()."""
        if not isinstance(spec := self.info.spec, ImageSpec | MapSpec):
            raise ConfigError(f"{self.place} holds {spec.kind} shards, this needs saliency, image or maps shards")
        return ImageIndex.of(self.table(name, tars), spec)

    def read_encoder(self) -> bytes:
        """The file of the encoder's weights (safetensors) of a set of features. ConfigError: another set.

        DamageError: it is not there, or not what dataset.json says.
        """
        features, path = features_of(self.info.spec), Layout(self.path).encoder
        if features is None:
            raise ConfigError(f"{self.place} holds no features, and no encoder")
        fetch(self.path, self.info, [])
        if not path.is_file():
            raise DamageError(f"{path} is missing: copy the set again or rebuild it")
        data = path.read_bytes()
        if sha256_of_bytes(data) != features.file_sha256:
            raise DamageError(f"{path} is damaged (its sha256 differs): copy the set again or rebuild it")
        return data

    def table(self, name: str, tars: bool = True) -> SplitTable:
        """A split of any kind, as its index has it. tars: as load_table. Errors as split()."""
        if name not in self.info.splits:
            raise ConfigError(f"{self.place} has no split {name!r}, there are: {', '.join(self.splits)}")
        return load_table(self.path, self.info, name, tars)


def require_finished(layout: Layout) -> None:
    """FormatError, saying what to do, unless the folder has a dataset.json."""
    if not layout.root.is_dir():
        raise FormatError(f"{layout.root} is not a folder: give the folder of a shard set")
    if layout.info.is_file():
        return
    if layout.build.exists():
        raise unfinished(layout.root)
    within = [str(path.parent.parent) for path in sorted(layout.root.glob("*/_meta/dataset.json"))]
    hint = f"sets in it: {few(within)}" if within else "`seqjepa-data shard` makes one of images"
    raise FormatError(f"{layout.root} is not a shard set (it has no _meta/dataset.json); {hint}")
