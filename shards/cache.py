"""Sets in object stores, in a folder on this machine: whole shards, each checked when it comes, fetched once for all.

    <cache>/NAME-DIGEST/          one set as it was at one address: an ordinary set's folder, filled as it is asked for
        .origin.json              the address; only folders with it are ever emptied
        .in-use                   locked (shared) by every process that reads the set; its time is when that last began
        .lock-FILE                locked by the process that is fetching FILE

SEQJEPA_CACHE is the folder, SEQJEPA_CACHE_SIZE its size ("200GB"); half of what is free, if it is not given. The sets
that were used least recently make room.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from shards.errors import DamageError, DiskFullError, FailureError, UsageError
from shards.files import sha256_of_bytes, write_atomic
from shards.layout import Layout
from shards.metadata import MAX_JSON, info_from_bytes
from shards.schema import DatasetInfo, features_of
from shards.store import INFO, Store, as_address, open_store

log = logging.getLogger(__name__)

FOLDER, SIZE = "SEQJEPA_CACHE", "SEQJEPA_CACHE_SIZE"
ORIGIN, IN_USE = ".origin.json", ".in-use"
MAX_README = 16 << 20
STREAMS = 8
"""Files that are fetched at the same time."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


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


def is_cached(root: Path) -> bool:
    """Whether the folder stands for a set in a store."""
    return (root / ORIGIN).exists()


def fetch(root: Path, info: DatasetInfo, splits: Iterable[str] | None = None, tars: bool = True) -> None:
    """The files of these splits, or of all, into a set's folder in the cache; of any other folder, nothing.

    tars: False for indexes alone.

    UsageError: the cache is too small. DiskFullError: the disk is. DamageError: what came is not what dataset.json
    says, twice. FailureError: the store is down.
    """
    if not is_cached(root):
        return
    _hold(root)
    if not is_cached(root):
        raise FailureError(f"{root} has just been removed from the cache to make room; run the same command again")
    files = list(_files(Layout(root), info, tuple(info.splits) if splits is None else tuple(splits)))
    wanted = [file for file in files if not _is_there(file) and (tars or file.path.suffix != ".tar")]
    if not wanted:
        return
    store = open_store(_origin(root))
    make_room(root, sum(file.size for file in wanted), store.address)
    total = sum(file.size for file in wanted)
    with (
        tqdm(total=total, unit="B", unit_scale=True, desc=f"fetch {info.name}", disable=None, leave=False) as bar,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        for done in [pool.submit(_fetch_file, store, root, file, bar.update) for file in wanted]:
            done.result()


def cache_folder() -> Path:
    """SEQJEPA_CACHE, else seqjepa/shards in the user's cache."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqjepa" / "shards"


def parse_size(text: str) -> int:
    """ "200GB" → bytes. UsageError: not of this form."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"{SIZE} is {text!r:.40}; write it as 200GB or 1.5TB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def make_room(root: Path, needed: int, address: str) -> None:
    """Remove the sets that were used least recently, and are not in use, until `needed` bytes more may be there."""
    cache = root.parent
    used = {folder: _bytes_of(folder) for folder in _sets(cache)}
    free = shutil.disk_usage(cache).free
    given = os.environ.get(SIZE)
    limit = parse_size(given) if given else sum(used.values()) + free // 2
    if needed + used.get(root, 0) > limit:
        raise UsageError(
            f"{address} needs {_gb(needed + used.get(root, 0))} in the cache {cache}, which may hold {_gb(limit)}; "
            f"set {SIZE}, or {FOLDER} to a folder on a larger disk"
        )
    for folder in sorted((other for other in used if other != root), key=_last_use):
        if sum(used.values()) + needed <= limit and needed <= free:
            break
        if _remove(folder):
            free += used.pop(folder)
    if sum(used.values()) + needed > limit:
        raise UsageError(f"the cache {cache} is full of sets in use: {_gb(limit)}; set {SIZE} or {FOLDER}")
    if needed > free:
        raise DiskFullError(f"{address} needs {_gb(needed)} more, and {cache} has {_gb(free)}; set {FOLDER}")


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


def _origin(root: Path) -> str:
    return json.loads((root / ORIGIN).read_text(encoding="utf-8"))["address"]


def _files(layout: Layout, info: DatasetInfo, splits: Iterable[str]) -> Iterator[_File]:
    if features := features_of(info.spec):
        yield _File(layout.encoder.relative_to(layout.root).as_posix(), layout.encoder, features.file_sha256)
    for split in (info.splits[name] for name in splits):
        yield _File(split.index, layout.root / split.index, split.index_sha256)
        for entry in split.shards:
            yield _File(f"{entry.name}.tar", layout.shard(entry.name), entry.sha256, entry.bytes)


def _is_there(file: _File) -> bool:
    return file.path.is_file() and file.path.stat().st_size == (file.size or file.path.stat().st_size)


def _fetch_file(store: Store, root: Path, file: _File, on_bytes: Callable[[int], object]) -> None:
    """One process fetches it, others wait. What is damaged on the way is fetched again, once."""
    with _locked(root / f".lock-{file.path.name}"):
        if _is_there(file):
            on_bytes(file.size)
            return
        try:
            store.fetch(file.name, file.path, file.sha256, on_bytes)
        except DamageError:
            store.fetch(file.name, file.path, file.sha256, lambda count: None)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Wait for the lock; the kernel frees it when its owner dies."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


_held: dict[Path, int] = {}


def _hold(root: Path) -> None:
    """This process, and those that it starts by fork, read the set: nobody removes it."""
    if root not in _held:
        _held[root] = os.open(root / IN_USE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        fcntl.flock(_held[root], fcntl.LOCK_SH)
    os.utime(root / IN_USE)


def _sets(cache: Path) -> list[Path]:
    return [folder for folder in cache.iterdir() if (folder / ORIGIN).is_file() and not folder.is_symlink()]


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def _last_use(folder: Path) -> float:
    mark = folder / IN_USE
    return mark.stat().st_mtime if mark.exists() else 0.0


def _remove(folder: Path) -> bool:
    """Whether the set was removed: it is in nobody's use."""
    with (folder / IN_USE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        (folder / ORIGIN).unlink()  # from now on it is no set of the cache
        for path in [*folder.glob("*.tar"), *folder.glob(".tmp-*"), *folder.glob(".lock-*"), folder / "README.md"]:
            path.unlink(missing_ok=True)
        for path in (folder / "_meta").iterdir():
            path.unlink()
        (folder / "_meta").rmdir()
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes of what it fetched
        (folder / IN_USE).unlink()
        folder.rmdir()
    return True


def _gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
