"""Room in the cache: how much there may be, what readers have claimed of it, what may go when more is wanted.

    <cache>/NAME-DIGEST/.in-use    locked (shared) by every process that reads the set: the folder stays
                        .pins      byte n, locked (shared) by those who read shard n: its file stays
                                   byte LATER + n, by those who will: it stays where others only fetch ahead as well
                                   byte UNDER_WAY + n, by those for whom shard n is being fetched: its room is taken
                                   byte AT_FILE + n, locked by the one who fetches or checks the file of shard n
                        .checked   when shard n was last held against its checksum, 8 bytes each
                        .room-ID   locked (shared) by a reader; the most bytes that it has there at a time

Claims are made and files removed by one process at a time, which holds a lock on the cache's folder. The kernel frees
all locks of a process that dies. Shards are numbered as dataset.json lists them, split after split.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import struct
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shards.errors import DiskFullError, UsageError
from shards.layout import MAX_SHARDS, Layout
from shards.machine.files import opened_fd
from shards.metadata import read_info
from shards.schema import DatasetInfo, ShardEntry

FOLDER, SIZE = "SEQJEPA_CACHE", "SEQJEPA_CACHE_SIZE"
ORIGIN, IN_USE, PINS, CHECKED, CLAIM = ".origin.json", ".in-use", ".pins", ".checked", ".room-"
LATER, UNDER_WAY, AT_FILE = 1 << 32, 1 << 33, 1 << 34
RW = os.O_RDWR | os.O_CREAT
_FLOCK = "hhqqi4x"
"""struct flock of Linux: type, whence, start, length, pid."""
_TIME = struct.Struct("<d")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_folder() -> Path:
    """SEQJEPA_CACHE, else seqjepa/shards in the user's cache."""
    if given := os.environ.get(FOLDER):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqjepa" / "shards"


def parse_size(text: str) -> int:
    """ "200GB" → bytes. UsageError: not of this form."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]+)?)\s*([KMGT]?)B?", text.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"{SIZE} is {text!r:.40}; write it as 200GB or 1.5TB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def limit_of(cache: Path) -> int:
    """Bytes of shards that there may be: SEQJEPA_CACHE_SIZE, else half of what they have and what is free together."""
    if given := os.environ.get(SIZE):
        return parse_size(given)
    return (sum(map(_bytes_of, _sets(cache))) + shutil.disk_usage(cache).free) // 2


def is_cached(root: Path) -> bool:
    """Whether the folder stands for a set in a store."""
    return (root / ORIGIN).exists()


def origin(root: Path) -> str:
    """The address of the set in the store."""
    return json.loads((root / ORIGIN).read_text(encoding="utf-8"))["address"]


def numbered(info: DatasetInfo) -> dict[str, tuple[int, ShardEntry]]:
    """Number and entry of every shard by its name."""
    entries = [entry for split in info.splits.values() for entry in split.shards]
    return {entry.name: (number, entry) for number, entry in enumerate(entries)}


@dataclass(eq=False)
class Pins:
    """Shards of the set in `root` that one reader has pinned; the files of these are not removed."""

    root: Path
    _fd: int = field(init=False)
    close: Callable[[], object] = field(init=False)

    def __post_init__(self) -> None:
        self._fd = os.open(self.root / PINS, RW | os.O_CLOEXEC, 0o666)
        self.close = weakref.finalize(self, os.close, self._fd)  # which unpins all

    def pin(self, number: int, count: int = 1) -> None:
        """From now on; whether the file is there has to be seen afterwards."""
        _lock_bytes(self._fd, fcntl.F_RDLCK, number, count, wait=True)

    def unpin(self, number: int) -> None:
        _lock_bytes(self._fd, fcntl.F_UNLCK, number, 1)

    def keep(self, number: int) -> None:
        """For later, unless somebody needs its room now; until let_go(), which unpins it too."""
        self.pin(LATER + number)

    def let_go(self, number: int) -> None:
        self.unpin(number)
        self.unpin(LATER + number)

    def begin(self, number: int) -> None:
        """It is being fetched: room for it is taken, until end()."""
        self.pin(UNDER_WAY + number)

    def end(self, number: int) -> None:
        self.unpin(UNDER_WAY + number)


@contextmanager
def alone_at(root: Path, file: int) -> Iterator[None]:
    """Waits until nobody else, in this process or another, is at the file of this number: a shard's, or a number of
    MAX_SHARDS or more for another file. The kernel frees it when its owner dies."""
    with opened_fd(root / PINS, RW) as fd:
        _lock_bytes(fd, fcntl.F_WRLCK, AT_FILE + file, 1, wait=True)
        yield


def last_check(root: Path, number: int) -> float:
    """When the shard of this number was last held against its checksum, in seconds since 1970; 0: never."""
    try:
        with (root / CHECKED).open("rb") as file:
            file.seek(number * _TIME.size)
            return _TIME.unpack(found)[0] if len(found := file.read(_TIME.size)) == _TIME.size else 0.0
    except FileNotFoundError:
        return 0.0


def note_check(root: Path, number: int) -> None:
    """That it has just been."""
    with opened_fd(root / CHECKED, RW) as fd:
        os.pwrite(fd, _TIME.pack(time.time()), number * _TIME.size)


@dataclass(eq=False)
class Claim:
    """At most `bytes` for a reader of the set in `root`; readers of the same `name`, as ranks of a run, share one.

    UsageError: the cache is smaller, or others have claimed it.
    """

    root: Path
    name: str
    bytes: int
    close: Callable[[], object] = field(init=False)

    def __post_init__(self) -> None:
        with _alone(self.root.parent):
            limit, claimed = limit_of(self.root.parent), _claimed(self.root.parent, self._path)
            if self.bytes > limit:
                raise UsageError(
                    f"{origin(self.root)} needs {in_gb(self.bytes)} in the cache {self.root.parent}, which may hold "
                    f"{in_gb(limit)}; set {SIZE}, or {FOLDER} to a folder on a larger disk"
                )
            if self.bytes + claimed > limit:
                raise UsageError(
                    f"the cache {self.root.parent} is full of sets in use: {in_gb(claimed)} of {in_gb(limit)}, and "
                    f"{origin(self.root)} needs {in_gb(self.bytes)}; set {SIZE} or {FOLDER}"
                )
            fd = os.open(self._path, RW | os.O_CLOEXEC, 0o666)
            self.close = weakref.finalize(self, os.close, fd)
            fcntl.flock(fd, fcntl.LOCK_SH)
            os.pwrite(fd, f"{self.bytes:<20}\n".encode(), 0)

    @property
    def _path(self) -> Path:
        return self.root / f"{CLAIM}{self.name}"


def unclaimed(root: Path, name: str) -> int:
    """Bytes that a reader of this name could claim now."""
    with _alone(root.parent):
        return max(0, limit_of(root.parent) - _claimed(root.parent, root / f"{CLAIM}{name}"))


def make_room(
    pins: Pins, info: DatasetInfo, wanted: Iterable[ShardEntry], first: Iterable[str] = (), now: bool = False
) -> None:
    """Room for these shards, which from now on are said to be under way: remove what nobody reads until there is. Whole
    sets go, the one that was used longest ago first; then shards of this set, in the order `first`; then any other
    shard that nobody has pinned; where they are needed now, also what others keep for later.

    UsageError: it is all in use. DiskFullError: the disk is full of other things.
    """
    root, wanted = pins.root, list(wanted)
    cache, needed, known = root.parent, sum(entry.bytes for entry in wanted), numbered(info)
    with _alone(cache):
        limit, (there, coming) = limit_of(cache), _bytes_taken(cache)
        used, free = there + coming, shutil.disk_usage(cache).free - coming
        for freed in _removals(root, info, first, now):
            used, free = used - freed, free + freed
            if used + needed <= limit and needed <= free:
                for entry in wanted:
                    pins.begin(known[entry.name][0])
                return
    if used + needed > limit:
        raise UsageError(f"the cache {cache} is full of sets in use: {in_gb(limit)}; set {SIZE} or {FOLDER}")
    raise DiskFullError(f"{origin(root)} needs {in_gb(needed)} more, and {cache} has {in_gb(free)}; set {FOLDER}")


def in_gb(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 or not count else f"{count / 1e6:.1f} MB"


def _removals(root: Path, info: DatasetInfo, first: Iterable[str], now: bool) -> Iterator[int]:
    """Removes one thing after the other, and says after each how many bytes that gave back; nothing at first."""
    yield 0
    cache, own = root.parent, numbered(info)
    for folder in sorted((other for other in _sets(cache) if other != root), key=_last_use):
        size = _bytes_of(folder)
        if _remove(folder):
            yield size
    for name in first:
        yield _drop(root, *own[name], now)
    for folder in sorted(_sets(cache), key=_last_use):
        for number, entry in numbered(info if folder == root else read_info(folder)).values():
            yield _drop(folder, number, entry, now)


def _drop(root: Path, number: int, entry: ShardEntry, now: bool) -> int:
    """Bytes that removing a shard gave back: 0 where it is pinned, or not there."""
    path = Layout(root).shard(entry.name)
    if not path.exists():
        return 0
    with opened_fd(root / PINS, RW) as fd, contextlib.suppress(OSError):
        for byte in (number,) if now else (number, LATER + number):
            _lock_bytes(fd, fcntl.F_WRLCK, byte, 1)
        path.unlink(missing_ok=True)
        return entry.bytes
    return 0


def _lock_bytes(fd: int, kind: int, start: int, count: int, wait: bool = False) -> None:
    """A lock that belongs to the open file, not to the process (fcntl(2)). OSError: somebody has another."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    fcntl.fcntl(fd, command, struct.pack(_FLOCK, kind, os.SEEK_SET, start, count, 0))


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    with opened_fd(cache, os.O_RDONLY | os.O_DIRECTORY) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield


def _claimed(cache: Path, but: Path) -> int:
    """Bytes that readers who live have claimed; what dead ones left is removed."""
    total = 0
    for path in (found for folder in _sets(cache) for found in folder.glob(f"{CLAIM}*") if found != but):
        with path.open("r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except OSError:
                with contextlib.suppress(ValueError):
                    total += int(file.read(20))
    return total


def _sets(cache: Path) -> list[Path]:
    return [folder for folder in cache.iterdir() if (folder / ORIGIN).is_file() and not folder.is_symlink()]


def _bytes_of(folder: Path) -> int:
    return sum(_sizes(folder).values())


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each shard that is there."""
    found: dict[str, int] = {}
    for path in folder.glob("*.tar"):
        if path.name[0] != ".":
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.stat().st_size
    return found


def _bytes_taken(cache: Path) -> tuple[int, int]:
    """Bytes of the shards that are there, and of those that are being fetched."""
    there = coming = 0
    for folder in _sets(cache):
        under_way = _under_way(folder)  # seen before the files: what arrives in between is counted once
        sizes = _sizes(folder)
        there += sum(sizes.values())
        coming += sum(entry.bytes for entry in under_way if f"{entry.name}.tar" not in sizes)
    return there, coming


def _under_way(folder: Path) -> list[ShardEntry]:
    if not (folder / PINS).exists():
        return []
    with opened_fd(folder / PINS, RW) as fd:
        found = list(_locked_bytes(fd, UNDER_WAY, UNDER_WAY + MAX_SHARDS))
    entries = dict(numbered(read_info(folder)).values()) if found else {}
    return [entries[number - UNDER_WAY] for number in found]


def _locked_bytes(fd: int, start: int, stop: int) -> Iterator[int]:
    """Bytes of this range that others have locked: the kernel tells one of their locks at a time."""
    ranges = [(start, stop)]
    while ranges:
        start, stop = ranges.pop()
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, stop - start, 0)
        kind, _, begin, length, _ = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
        if kind == fcntl.F_UNLCK:
            continue
        begin, end = max(start, begin), min(stop, begin + length)
        yield from range(begin, end)
        ranges += [(low, high) for low, high in ((start, begin), (end, stop)) if low < high]


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
        ours = (path for kind in ("*.tar", ".tmp-*", ".lock-*", f"{CLAIM}*") for path in folder.glob(kind))
        for path in [*ours, folder / PINS, folder / CHECKED, folder / "README.md"]:
            path.unlink(missing_ok=True)
        for path in (folder / "_meta").iterdir():
            path.unlink()
        (folder / "_meta").rmdir()
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes of what it fetched
        (folder / IN_USE).unlink()
        folder.rmdir()
    return True
