"""ShardSet opens a finished set; SplitIndex is one split as arrays, enough to read any view without walking a tar."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.errors import ConfigError, DamageError, FormatError
from shards.files import sha256_of_bytes
from shards.index import META, column_numpy, table_from_bytes
from shards.index_checks import check_index
from shards.layout import Layout
from shards.metadata import read_info
from shards.sample import raw_header
from shards.schema import DatasetInfo, Encoding, SplitInfo

MAX_INDEX = 16 << 30


@dataclass(frozen=True)
class SplitIndex:
    """One split. S samples in stored order, N view slots, P parameters; slots from n_views on are repeats.

    shard    int32 [S], position in shard_paths      labels   int64 [S], −1 for none
    n_views  int32 [S], distinct views               view_ids int32 [S, N], numbers in the source, −1 for repeats
    offsets  int64 [S, N], bytes into the shard      lengths  int32 [S, N], bytes
    params   float32 [S, N, P], in the units of ViewSpec.params, columns called param_names
    rest_offsets int64 [S, 3], rest_lengths int32 [S, 3]: the params, label and JSON members, in that order
    meta     per name, strings or integers [S]
    """

    name: str
    shard_paths: list[Path]
    keys: list[str]
    shard: np.ndarray
    labels: np.ndarray
    n_views: np.ndarray
    view_ids: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    params: np.ndarray
    encoding: Encoding
    height: int
    width: int
    param_names: tuple[str, ...]
    digest: str
    rest_offsets: np.ndarray
    rest_lengths: np.ndarray
    meta: dict[str, list] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def fingerprint(self) -> str:
        """A sha256 over the index and all shards of the split: equal exactly if the split is the same."""
        return self.digest

    def read_bytes(self, sample: int, view: int) -> bytes:
        """The stored bytes of one view. DamageError: the shard is cut or gone."""
        path = self.shard_paths[self.shard[sample]]
        length = int(self.lengths[sample, view])
        try:
            with open(path, "rb") as file:
                file.seek(int(self.offsets[sample, view]))
                data = file.read(length)
        except OSError as error:
            raise DamageError(f"cannot read {path}: {error.strerror}") from error
        if len(data) != length:
            raise DamageError(f"{path} ends inside sample {self.keys[sample]!r}: run verify on the set")
        return data

    def read_view(self, sample: int, view: int) -> np.ndarray:
        """uint8 [H, W, 3] RGB, decoded; for previews and tests. DamageError: the bytes do not decode to that."""
        data = self.read_bytes(sample, view)
        where = f"view {view} of sample {self.keys[sample]!r} in {self.shard_paths[self.shard[sample]].name}"
        if self.encoding == "raw":
            start = raw_header(self.height, self.width)
            if not data.startswith(start):
                raise DamageError(f"{where} is not the .npy of uint8 [{self.height}, {self.width}, 3]")
            return np.frombuffer(data, np.uint8, offset=len(start)).reshape(self.height, self.width, 3).copy()
        return self._decode(data, where)

    def _decode(self, data: bytes, where: str) -> np.ndarray:
        import simplejpeg

        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            if (height, width) != (self.height, self.width):
                raise ValueError(f"{height}×{width} pixels, expected {self.height}×{self.width}")
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError as error:
            raise DamageError(f"{where} does not decode: {error}") from error


@dataclass(frozen=True)
class ShardSet:
    """A finished set. open() reads and checks dataset.json only; split() reads an index."""

    path: Path
    info: DatasetInfo

    @classmethod
    def open(cls, path: str | Path) -> ShardSet:
        """FormatError: no folder, not a set, an unfinished one, one of a newer version, or a damaged dataset.json."""
        layout = Layout(Path(path))
        require_finished(layout)
        return cls(layout.root, read_info(layout.root))

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self.info.splits)

    def split(self, name: str) -> SplitIndex:
        """ConfigError: no such split. DamageError: the index or a tar's size is not what dataset.json says."""
        if name not in self.info.splits:
            raise ConfigError(f"{self.path} has no split {name!r}, there are: {', '.join(self.splits)}")
        entry, layout = self.info.splits[name], Layout(self.path)
        paths = [layout.shard(shard.name) for shard in entry.shards]
        for shard, path in zip(entry.shards, paths, strict=True):
            _check_size(path, shard.bytes)
        return self._load(name, entry, paths)

    def _load(self, name: str, entry: SplitInfo, paths: list[Path]) -> SplitIndex:
        spec, where = self.info.spec, self.path / entry.index
        table = table_from_bytes(_read_index(where, entry.index_sha256), spec, entry.samples, str(where))
        slots = spec.views
        arrays = {
            "shard": column_numpy(table, "shard"),
            "labels": column_numpy(table, "label"),
            "n_views": column_numpy(table, "n_views"),
            "view_ids": column_numpy(table, "view_ids", slots),
            "offsets": column_numpy(table, "offsets", slots + 3),
            "lengths": column_numpy(table, "lengths", slots + 3),
            "params": column_numpy(table, "params", slots * len(spec.params)).reshape(-1, slots, len(spec.params)),
        }
        keys = table.column("key").to_pylist()
        check_index(keys, arrays, entry, self.info, str(where))
        for member in ("offsets", "lengths"):
            whole = arrays[member]
            arrays[member] = np.ascontiguousarray(whole[:, :slots])
            arrays[f"rest_{member}"] = np.ascontiguousarray(whole[:, slots:])
        meta = {c.removeprefix(META): table.column(c).to_pylist() for c in table.column_names if c.startswith(META)}
        digests = "".join([entry.index_sha256, *(shard.sha256 for shard in entry.shards)])
        return SplitIndex(
            name=name,
            shard_paths=paths,
            keys=keys,
            **arrays,
            encoding=spec.encoding,
            height=spec.height,
            width=spec.width,
            param_names=spec.param_names,
            digest=sha256_of_bytes(digests.encode()),
            meta=meta,
        )


def require_finished(layout: Layout) -> None:
    """FormatError, saying what to do, unless the folder has a dataset.json."""
    if not layout.root.is_dir():
        raise FormatError(f"{layout.root} is not a folder: give the folder of a shard set")
    if layout.info.is_file():
        return
    if layout.build.exists():
        raise FormatError(f"{layout.root} is an unfinished set: run the same build command again")
    raise FormatError(f"{layout.root} is not a shard set (it has no _meta/dataset.json)")


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise DamageError(f"{path} is missing: copy the set again or rebuild it")
    if (found := path.stat().st_size) != expected:
        raise DamageError(f"{path} has {found} bytes instead of {expected}: copy the set again or rebuild it")


def _read_index(path: Path, sha256: str) -> bytes:
    if not path.is_file() or path.stat().st_size > MAX_INDEX:
        raise DamageError(f"{path} is missing or too large: copy the set again or rebuild it")
    data = path.read_bytes()
    if sha256_of_bytes(data) != sha256:
        raise DamageError(f"{path} is damaged (its sha256 differs): copy the set again or rebuild it")
    return data
