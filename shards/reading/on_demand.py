"""Shards of a split that is larger than the cache, one after the other, for whoever reads it without a plan.

What is read in stored order is fetched a few shards ahead; after a jump the shard is waited for. A loader, which knows
its order, has a FetchAhead of its own.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from pathlib import Path

from shards.layout import number_of_shard, split_of_shard
from shards.metadata import read_info
from shards.reading.fetch_ahead import FetchAhead, Visit
from shards.schema import DatasetInfo
from shards.stores.cache import check_shard, fetch, hold, is_whole
from shards.stores.cache_room import in_gb, is_cached, unclaimed

log = logging.getLogger(__name__)

BEHIND, AHEAD = 4, 4
"""Shards that stay behind the newest one, as threads read at several places, and that are fetched ahead of it."""


def fetch_or_stream(root: Path, info: DatasetInfo, split: str) -> None:
    """All shards of a split, where there is room, each checked when it is read; else each fetched when it is read.

    Errors as cache.fetch()."""
    if not is_cached(root):
        return
    hold(root)
    free, needed = unclaimed(root, split), info.splits[split].bytes
    if needed <= free or is_whole(root, info, split):
        fetch(root, info, [split], check=False)
        return
    fetch(root, info, [split], tars=False)
    if (root, split) not in _streamed:
        _streamed.add((root, split))
        log.warning(
            "split %r is larger (%s) than what the cache has left (%s): its shards are fetched when they are read",
            *(split, in_gb(needed), in_gb(free)),
        )


def comes_and_goes(path: Path) -> bool:
    """Whether this shard is there only while it is read: it may not stay open or mapped."""
    return (path.parent, split_of_shard(path.stem)) in _streamed


def bring(path: Path) -> None:
    """The shard is there now; mostly for as long as those around it are read, but whoever finds it gone when opening it
    asks again. Errors as cache.fetch()."""
    if path in _known and path.exists():
        return
    if comes_and_goes(path) or (not path.exists() and is_cached(path.parent)):
        with _one_at_a_time:
            reader = _reader(os.getpid(), path.parent, split_of_shard(path.stem))
        reader.bring(number_of_shard(path.stem))
        return
    if is_cached(path.parent):
        check_shard(path)
    _known.add(path)


_one_at_a_time = threading.Lock()
os.register_at_fork(after_in_child=lambda: globals().update(_one_at_a_time=threading.Lock()))
_streamed: set[tuple[Path, str]] = set()
_known: set[Path] = set()
"""Shards that are there for as long as this process lives, and are checked if they are the cache's."""


class _Reader:
    def __init__(self, root: Path, split: str) -> None:
        info = read_info(root)
        entries = info.splits[split].shards
        largest = max(entry.bytes for entry in entries)
        room = min((BEHIND + 1 + AHEAD) * largest, unclaimed(root, ""))
        self._behind = max(0, min(BEHIND, room // largest - 1))
        visits = [Visit(number, number, number) for number in range(len(entries))]
        self._place = {number_of_shard(entry.name): number for number, entry in enumerate(entries)}
        claim = (f"{split}-read-{os.getpid()}", room)
        self._shards = FetchAhead(root, info, split, lambda epoch: visits, claim, epochs=False)
        self._lock, self._at = threading.Lock(), 0

    def bring(self, number: int) -> None:
        with self._lock:
            place = self._place[number]
            at = max(self._at, place - self._behind) if place >= self._at else place
            if at != self._at:  # back: everything begins anew from there
                self._shards.release((0, at))
                self._at = at
        self._shards.ready((0, place), [place])
        self._shards.loosen(place)  # threads that are far behind may still need room


@functools.lru_cache(maxsize=8)
def _reader(process: int, root: Path, split: str) -> _Reader:
    """Of this process: after a fork the threads are the parent's."""
    return _Reader(root, split)
