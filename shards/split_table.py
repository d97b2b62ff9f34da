"""One split as its index has it, read and checked: what all kinds have in common. Every reader is made from one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.environment import pass_environment_on
from shards.errors import DamageError
from shards.files import sha256_of_bytes
from shards.index import META, column_numpy, number_columns, table_from_bytes
from shards.index_checks import check_index
from shards.layout import Layout
from shards.schema import DatasetInfo

MAX_INDEX = 16 << 30


@dataclass(frozen=True)
class SplitTable:
    """S samples in stored order, each of m members.

    shard    int32 [S], position in shard_paths      label    int64 [S], −1 for none
    offsets  int64 [S, m], bytes into the shard      lengths  int32 [S, m], bytes
    columns  the kind's own, [S] or [S, width]       meta     per name, strings or integers [S]
    digest   a sha256 over the index and all shards of the split: equal exactly if the split is the same
    """

    name: str
    shard_paths: list[Path]
    keys: list[str]
    shard: np.ndarray
    label: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    columns: dict[str, np.ndarray]
    meta: dict[str, list]
    digest: str


def load_table(root: Path, info: DatasetInfo, name: str) -> SplitTable:
    """DamageError: the index or a tar's size is not what dataset.json says. FormatError: an impossible index."""
    entry, layout = info.splits[name], Layout(root)
    paths = [layout.shard(shard.name) for shard in entry.shards]
    for shard, path in zip(entry.shards, paths, strict=True):
        _check_size(path, shard.bytes)
    where = root / entry.index
    table = table_from_bytes(_read_index(where, entry.index_sha256), info.spec, entry.samples, str(where))
    columns = {n: column_numpy(table, n, column.width) for n, column in number_columns(info.spec).items()}
    arrays = {"shard": column_numpy(table, "shard"), **columns}
    keys = table.column("key").to_pylist()
    check_index(keys, arrays, entry, info, str(where))
    common = {n: arrays.pop(n) for n in ("shard", "label", "offsets", "lengths")}
    meta = {c.removeprefix(META): table.column(c).to_pylist() for c in table.column_names if c.startswith(META)}
    digests = "".join([entry.index_sha256, *(shard.sha256 for shard in entry.shards)])
    digest = sha256_of_bytes(digests.encode())
    return SplitTable(name, paths, keys, **common, columns=arrays, meta=meta, digest=digest)


def read_stored(path: Path, offset: int, length: int, key: str) -> bytes:
    """The bytes of a member of sample `key`. DamageError: the shard is cut or gone."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    except OSError as error:
        pass_environment_on(error)
        raise DamageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) != length:
        raise DamageError(f"{path} ends inside sample {key!r}: run verify on the set")
    return data


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
