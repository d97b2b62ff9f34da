"""A finished set into an object store: each file under its final name, never overwritten, dataset.json last.

Until dataset.json is there, no reader sees a set. Stopped at any moment, the same command goes on; somebody else's
files are left as they are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from shards.layout import set_files
from shards.reader import ShardSet
from shards.stores.store import INFO, as_address
from shards.stores.store_write import open_writable
from shards.verify import refuse_unsound

AT_ONCE = 4
"""Files in memory at the same time, each whole: a store creates an object in one request, or not at all."""


@dataclass(frozen=True)
class StorePush:
    """What there is at `address` now. sent: files that were not there before."""

    address: str
    sent: list[str] = field(default_factory=list)
    unchanged: int = 0
    bytes: int = 0


def files_of(folder: Path) -> dict[str, Path]:
    """Every file of a finished set by its name, dataset.json last."""
    named = (name for name, *_ in set_files(ShardSet.open(folder).info))
    return {name: folder / name for name in ("README.md", *named, INFO)}


def push_to_store(folder: Path, address: str | Path, *, check: bool = True, progress: bool = True) -> StorePush:
    """Sends what is not there. `check`: every byte of the set is read before, and held against its checksum.

    UsageError: no address that can be written to, or another set is there. FormatError: not a finished set.
    DamageError: it is not sound. FailureError: the store is down.
    """
    store = open_writable(as_address(address) or str(address))
    files = files_of(folder)
    if check:
        refuse_unsound(folder, progress=progress)
    *rest, last = files
    total = sum(path.stat().st_size for path in files.values())
    sent: list[str] = []
    with tqdm(total=total, unit="B", unit_scale=True, desc="push", disable=None if progress else True) as bar:

        def send(name: str) -> None:
            data = files[name].read_bytes()
            if store.create(name, data):
                sent.append(name)
            bar.update(len(data))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(send, rest))  # after an error, or Ctrl-C, no other is begun
        send(last)
    return StorePush(store.address, sorted(sent), len(files) - len(sent), total)
