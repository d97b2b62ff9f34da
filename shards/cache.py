"""Sets in object stores, in a folder on this machine: whole shards, each checked when it comes, fetched once for all.

    <cache>/NAME-DIGEST/          one set as it was at one address: an ordinary set's folder, filled as it is asked for
        .origin.json              the address; only folders with it are ever emptied
        .in-use                   locked (shared) by every process that reads the set; its time is when that last began
        .lock-FILE                locked by the process that is fetching FILE

SEQJEPA_CACHE is the folder, SEQJEPA_CACHE_SIZE its size ("200GB"); cache_room.py says what goes when it is full.
fetch() brings whole splits; fetch_ahead.py one shard after the other.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from shards.cache_room import (
    FOLDER,
    IN_USE,
    ORIGIN,
    SIZE,
    Claim,
    Pins,
    cache_folder,
    is_cached,
    make_room,
    numbered,
    origin,
    parse_size,
)
from shards.errors import DamageError, FailureError, UsageError
from shards.files import sha256_of_bytes, sha256_of_file, write_atomic
from shards.layout import Layout
from shards.metadata import MAX_JSON, info_from_bytes, read_info
from shards.schema import DatasetInfo, ShardEntry, features_of
from shards.store import INFO, Store, as_address, open_store

__all__ = ["FOLDER", "ORIGIN", "SIZE", "fetch", "fetch_split", "is_cached", "local_folder", "parse_size"]

log = logging.getLogger(__name__)

MAX_README = 16 << 20
STREAMS = 8
"""Files that are fetched at the same time."""


@dataclass(frozen=True)
class _File:
    """size: in bytes; 0 where dataset.json does not say."""

    name: str
    path: Path
    sha256: str
    size: int = 0


def local_folder(place: str | Path) -> Path:
    """A path as it is. Of an address, the set's folder in the cache, which holds dataset.json from now on.

    UsageError: an address that nothing can be read from. FormatError: no set there. FailureError: the store is down.
    """
    address = as_address(place)
    return _mirror(address) if address else Path(place)


@functools.cache
def _mirror(address: str) -> Path:
    """Asked once in a process, which sees one set to its end."""
    store = open_store(address)
    data = store.read(INFO, MAX_JSON)
    info = info_from_bytes(data, f"{store.address}/{INFO}")
    digest = sha256_of_bytes(store.address.encode() + data)[:16]
    root = cache_folder() / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', info.name).strip('.-') or 'set'}-{digest}"
    if not is_cached(root):
        _begin(root, store, data, info)
    return root


def fetch(root: Path, info: DatasetInfo, splits: Iterable[str] | None = None, tars: bool = True) -> None:
    """The files of these splits, or of all, into a set's folder in the cache; of any other folder, nothing. They stay
    for as long as this process lives.

    tars: False for indexes alone.

    UsageError: the cache is too small. DiskFullError: the disk is. DamageError: what came is not what dataset.json
    says, twice. FailureError: the store is down.
    """
    if not is_cached(root):
        return
    hold(root)
    names = tuple(info.splits) if splits is None else tuple(splits)
    if tars:
        _keep(root, info, names)
    files = list(_files(Layout(root), info, names))
    wanted = [file for file in files if not _is_there(file) and (tars or file.path.suffix != ".tar")]
    if not wanted:
        return
    store, total = open_store(origin(root)), sum(file.size for file in wanted)
    coming = {f.path: numbered(info)[f.path.stem] for f in wanted if f.path.suffix == ".tar" and not _has_size(f)}
    if pins := Pins(root) if coming else None:
        make_room(pins, info, [entry for _, entry in coming.values()])
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc=f"fetch {info.name}", disable=None, leave=False) as bar,
        _stopped_with_us() as pool,
    ):
        for done in [pool.submit(_fetch_file, lambda: store, root, file, bar.update) for file in wanted]:
            done.result()
    if pins:
        pins.close()


@contextmanager
def _stopped_with_us() -> Iterator[ThreadPoolExecutor]:
    """Threads that, after Ctrl-C or an error, begin no other file."""
    with ThreadPoolExecutor(STREAMS) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def fetch_split(shard_paths: Sequence[Path], split: str) -> None:
    """fetch() for the shards of a split that was opened without them."""
    if shard_paths and is_cached(shard_paths[0].parent):
        fetch(shard_paths[0].parent, read_info(shard_paths[0].parent), [split])


def fetch_shard(
    root: Path,
    entry: ShardEntry,
    store: Callable[[], Store],
    before: Callable[[], object],
    on_bytes: Callable[[int], object],
) -> None:
    """One shard, unless it is there. before: called where it is not. Errors as fetch()."""
    file = _File(f"{entry.name}.tar", Layout(root).shard(entry.name), entry.sha256, entry.bytes)
    if not _is_there(file):
        _fetch_file(store, root, file, on_bytes, before)


def _begin(root: Path, store: Store, data: bytes, info: DatasetInfo) -> None:
    """The folder with what every reader needs. Several processes may do so at the same time."""
    readme = store.read("README.md", MAX_README)
    if sha256_of_bytes(readme) != info.readme_sha256:
        log.warning(
            "%s/README.md was edited since the set was written; its shards are read all the same", store.address
        )
    (root / "_meta").mkdir(parents=True, exist_ok=True)
    with _locked(root / ".lock-begin"):
        write_atomic(root / "README.md", readme)
        write_atomic(Layout(root).info, data)
        write_atomic(root / ORIGIN, (json.dumps({"kind": "seqjepa-cache", "address": store.address}) + "\n").encode())


def _files(layout: Layout, info: DatasetInfo, splits: Iterable[str]) -> Iterator[_File]:
    if features := features_of(info.spec):
        yield _File(layout.encoder.relative_to(layout.root).as_posix(), layout.encoder, features.file_sha256)
    for split in (info.splits[name] for name in splits):
        yield _File(split.index, layout.root / split.index, split.index_sha256)
        for entry in split.shards:
            yield _File(f"{entry.name}.tar", layout.shard(entry.name), entry.sha256, entry.bytes)


def _has_size(file: _File) -> bool:
    return file.path.is_file() and file.path.stat().st_size == (file.size or file.path.stat().st_size)


def _is_there(file: _File) -> bool:
    """Whether it is, and nobody has written to it since it was checked."""
    return _has_size(file) and file.path.stat().st_mtime == _mark(file)


def _is_sound(file: _File) -> bool:
    """The same, by reading it: of files that were changed, or come from an earlier version."""
    if not _has_size(file) or sha256_of_file(file.path) != file.sha256:
        return False
    with suppress(PermissionError):  # another user's: it is read again the next time
        os.utime(file.path, (_mark(file), _mark(file)))
    return True


def _mark(file: _File) -> int:
    """The time of change that a checked file is given: of its content, early in this century, in whole seconds."""
    return 946_684_800 + int(file.sha256[:7], 16)


def _fetch_file(
    store: Callable[[], Store],
    root: Path,
    file: _File,
    on_bytes: Callable[[int], object],
    before: Callable[[], object] = lambda: None,
) -> None:
    """One process fetches it, others wait. What is damaged on the way is fetched again, once."""
    with _locked(root / f".lock-{file.path.name}"):
        if _is_there(file) or _is_sound(file):
            on_bytes(file.size)
            return
        before()
        try:
            store().fetch(file.name, file.path, file.sha256, on_bytes)
        except DamageError:
            store().fetch(file.name, file.path, file.sha256, lambda count: None)
        os.utime(file.path, (_mark(file), _mark(file)))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock; the kernel frees it when its owner dies."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_held: dict[Path, int] = {}
_kept: dict[tuple[Path, str], tuple[Pins, Claim | None]] = {}


def hold(root: Path) -> None:
    """This process, and those that it starts by fork, read the set: nobody removes its folder.

    FailureError: somebody just has.
    """
    if root not in _held:
        _held[root] = os.open(root / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(_held[root], fcntl.LOCK_SH)
    os.utime(root / IN_USE)
    if not is_cached(root):
        raise FailureError(f"{root} has just been removed from the cache to make room; run the same command again")


def _keep(root: Path, info: DatasetInfo, names: Iterable[str]) -> None:
    """All shards of these splits stay. UsageError: there is no room for those that are not there yet."""
    number_of = numbered(info)
    for name in (name for name in names if (root, name) not in _kept and info.splits[name].shards):
        shards, pins = info.splits[name].shards, Pins(root)
        pins.pin(number_of[shards[0].name][0], len(shards))
        claim = None
        try:
            claim = Claim(root, name, info.splits[name].bytes)
        except UsageError:
            if not is_whole(root, info, name):
                pins.close()
                raise
        _kept[root, name] = (pins, claim)


def is_whole(root: Path, info: DatasetInfo, split: str) -> bool:
    """Whether all shards of a split are there."""
    return all(_has_size(file) for file in _files(Layout(root), info, [split]))
