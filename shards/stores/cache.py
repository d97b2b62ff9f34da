"""Sets in object stores, in a folder on this machine: whole shards, fetched once for all, each checked when it comes,
and before another process first reads it.

    <cache>/NAME-DIGEST/          one set as it was at one address: an ordinary set's folder, filled as it is asked for
        .origin.json              the address; only folders with it are ever emptied
        .in-use                   locked (shared) by every process that reads the set; its time is when that last began
        .pins, .checked, .room-…  who reads what, and when it was last checked (cache_room.py)

SEQJEPA_CACHE is the folder, SEQJEPA_CACHE_SIZE its size ("200GB"); cache_room.py says what goes when it is full.
fetch() brings whole splits; reading/fetch_ahead.py one shard after the other.
"""

from __future__ import annotations

import fcntl
import functools
import itertools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from shards.errors import DamageError, FailureError, FormatError, UsageError
from shards.layout import MAX_SHARDS, Layout
from shards.machine.files import sha256_of_bytes, sha256_of_file, write_atomic
from shards.metadata import MAX_JSON, info_from_bytes, read_info
from shards.schema import DatasetInfo, ShardEntry, features_of
from shards.stores.cache_room import (
    FOLDER,
    IN_USE,
    ORIGIN,
    SIZE,
    Claim,
    Pins,
    alone_at,
    cache_folder,
    is_cached,
    last_check,
    make_room,
    note_check,
    numbered,
    origin,
    parse_size,
)
from shards.stores.store import BUILD, INFO, Store, as_address, open_store, unfinished

__all__ = ["FOLDER", "ORIGIN", "SIZE", "fetch", "fetch_split", "is_cached", "local_folder", "parse_size"]

log = logging.getLogger(__name__)

MAX_README = 16 << 20
STREAMS = 8
"""Files that are fetched, or checked, at the same time."""
BEGAN = time.time()
"""When this process did, nearly."""


@dataclass(frozen=True)
class _File:
    """number: of a shard; MAX_SHARDS and more: of another file. size: in bytes; 0 where dataset.json does not say."""

    name: str
    path: Path
    sha256: str
    number: int
    size: int = 0

    @property
    def is_shard(self) -> bool:
        return self.number < MAX_SHARDS


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
    data = _read_info(store)
    info = info_from_bytes(data, f"{store.address}/{INFO}")
    digest = sha256_of_bytes(store.address.encode() + data)[:16]
    root = cache_folder() / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', info.name).strip('.-') or 'set'}-{digest}"
    if not is_cached(root):
        _begin(root, store, data, info)
    return root


def _read_info(store: Store) -> bytes:
    """Of a finished set. Errors as local_folder."""
    try:
        return store.read(INFO, MAX_JSON)
    except FormatError as error:
        try:
            store.read(BUILD, MAX_JSON)
        except FormatError:
            raise error from None
    raise unfinished(store.address)


def fetch(
    root: Path, info: DatasetInfo, splits: Iterable[str] | None = None, tars: bool = True, check: bool = True
) -> None:
    """The files of these splits, or of all, into a set's folder in the cache; of any other folder, nothing. They stay
    for as long as this process lives.

    tars: False for indexes alone. check: False where shards that are there are checked one by one (check_shard).

    UsageError: the cache is too small. DiskFullError: the disk is. DamageError: what came is not what dataset.json
    says, twice. FailureError: the store is down.
    """
    if not is_cached(root):
        return
    hold(root)
    names = tuple(info.splits) if splits is None else tuple(splits)
    if tars:
        _keep(root, info, names)
    good = partial(_is_known, root) if check else _is_there
    wanted = [file for file in _files(Layout(root), info, names) if (tars or not file.is_shard) and not good(file)]
    if not wanted:
        return
    store, total = open_store(origin(root)), sum(file.size for file in wanted)
    known = numbered(info)
    coming = [known[file.path.stem][1] for file in wanted if file.is_shard and not _has_size(file)]
    if pins := Pins(root) if coming else None:
        make_room(pins, info, coming)
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc=f"fetch {info.name}", disable=None, leave=False) as bar,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        list(pool.map(lambda file: _fetch_file(lambda: store, root, file, bar.update), wanted))
    if pins:
        pins.close()


def fetch_split(shard_paths: Sequence[Path], split: str) -> None:
    """fetch() for the shards of a split, before they are mapped or handed on."""
    if shard_paths and is_cached(shard_paths[0].parent):
        fetch(shard_paths[0].parent, read_info(shard_paths[0].parent), [split])


def fetch_shard(
    root: Path,
    number: int,
    entry: ShardEntry,
    store: Callable[[], Store],
    before: Callable[[], object] = lambda: None,
    on_bytes: Callable[[int], object] = lambda count: None,
) -> None:
    """One shard, unless it is there and known to be sound. number: as numbered() has it. before: called where it is
    fetched. Errors as fetch()."""
    file = _File(f"{entry.name}.tar", Layout(root).shard(entry.name), entry.sha256, number, entry.bytes)
    if not _is_known(root, file):
        _fetch_file(store, root, file, on_bytes, before)


def check_shard(path: Path) -> None:
    """A shard of the cache that is there, before it is read: what this machine's disk has lost is fetched again."""
    root = path.parent
    fetch_shard(root, *_entries(root)[path.stem], lambda: open_store(origin(root)))


def check_shards(paths: Sequence[Path]) -> None:
    """check_shard() of several at once, before they are mapped. Nothing for shards of any other folder."""
    if paths and is_cached(paths[0].parent):
        with ThreadPoolExecutor(STREAMS) as pool:
            list(pool.map(check_shard, paths))


@functools.lru_cache(maxsize=8)
def _entries(root: Path) -> dict[str, tuple[int, ShardEntry]]:
    return numbered(read_info(root))


def _begin(root: Path, store: Store, data: bytes, info: DatasetInfo) -> None:
    """The folder with what every reader needs. Several processes may do so at the same time."""
    readme = store.read("README.md", MAX_README)
    if sha256_of_bytes(readme) != info.readme_sha256:
        log.warning(
            "%s/README.md was edited since the set was written; its shards are read all the same", store.address
        )
    (root / "_meta").mkdir(parents=True, exist_ok=True)
    with alone_at(root, MAX_SHARDS):
        write_atomic(root / "README.md", readme)
        write_atomic(Layout(root).info, data)
        write_atomic(root / ORIGIN, (json.dumps({"kind": "seqjepa-cache", "address": store.address}) + "\n").encode())


def _files(layout: Layout, info: DatasetInfo, splits: Iterable[str]) -> Iterator[_File]:
    known, others = numbered(info), itertools.count(MAX_SHARDS + 1)
    if features := features_of(info.spec):
        name = layout.encoder.relative_to(layout.root).as_posix()
        yield _File(name, layout.encoder, features.file_sha256, next(others))
    place = {name: next(others) for name in info.splits}
    for name in splits:
        split = info.splits[name]
        yield _File(split.index, layout.root / split.index, split.index_sha256, place[name])
        for entry in split.shards:
            path = layout.shard(entry.name)
            yield _File(f"{entry.name}.tar", path, entry.sha256, known[entry.name][0], entry.bytes)


def _has_size(file: _File) -> bool:
    return file.path.is_file() and file.path.stat().st_size == (file.size or file.path.stat().st_size)


def _is_there(file: _File) -> bool:
    """Whether it is, and nobody has written to it since it was checked."""
    return _has_size(file) and file.path.stat().st_mtime == _mark(file)


def _is_known(root: Path, file: _File) -> bool:
    """Whether it is there, and was checked since this process began, by it or by another, as ranks of a run. Files that
    are no shards are held against their checksum whenever they are read."""
    return _is_there(file) and (not file.is_shard or BEGAN <= last_check(root, file.number) <= time.time())


def _is_sound(root: Path, file: _File, on_bytes: Callable[[int], object]) -> bool:
    """The same, by reading it."""
    if not _has_size(file):
        return False
    if sha256_of_file(file.path, on_bytes) != file.sha256:
        if _is_there(file):
            log.warning(
                "%s has other bytes than when it was fetched: a disk that forgets; fetching it again", file.path
            )
        return False
    _note_sound(root, file)
    return True


def _note_sound(root: Path, file: _File) -> None:
    with suppress(PermissionError):  # another user's: it is read again the next time
        os.utime(file.path, (_mark(file), _mark(file)))
        if file.is_shard:
            note_check(root, file.number)


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
    """One process fetches or checks it, others wait. What is damaged on the way is fetched again, once."""
    with alone_at(root, file.number):
        if _is_known(root, file):
            on_bytes(file.size)
            return
        if _is_sound(root, file, on_bytes):
            return
        before()
        try:
            store().fetch(file.name, file.path, file.sha256, on_bytes)
        except DamageError:
            store().fetch(file.name, file.path, file.sha256, lambda count: None)
        _note_sound(root, file)


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
