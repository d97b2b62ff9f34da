"""What a source's files hold, as a sha256 that every copy shares; and, cheaper, whether they may have changed here.

The content is that of all names and sizes and of the bytes of a sample that is spread over the files by a hash of their
names: of all files in a small source, of 16,384 files or 2 GiB in a larger one. A stamp also has the times that a file
system keeps: it is no part of a set, for a copy has others, and only saves reading everything again.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from pipelines.archives import readable
from shards.engines.ray_engine import spread
from shards.machine.files import digest_of_file

SAMPLED_FILES = 16384
SAMPLED_BYTES = 2 << 30
FEWEST_FILES = 256  # however large they are
THREADS = 8
CHUNK = 4096
RANKED_TOGETHER = 1 << 16
TOGETHER = 64  # files; a thread's turn costs as much as a small file
DIGEST_DIGITS = 32
PIECES, PIECE_BYTES = 64, 64 << 10

Read = Callable[[int, str], bytes]  # of the file at this position, of this name; ValueError: not readable
Named = Callable[[str], bytes]  # of the file of this name
Stat = tuple[int, int, int]
Told = TypeVar("Told", bound=tuple)
Result = TypeVar("Result")


def content_sha256(files: Iterable[tuple[str, int]], read: Read, named: Named | None = None) -> str:
    """`files`: (name below the source, bytes) of each, in an order that any copy has, passed through once.

    named  the same bytes as `read`, or ValueError: small, so that nodes of a cluster can be sent it and share the work
    A file that cannot be read counts as what is wrong with it.
    """
    digest = hashlib.sha256()
    chosen = sample(_told(files, "%s\0%d\n", digest))
    if named:
        found = spread(partial(_hashed, named), [name for _, name in chosen], "content of files")
    else:
        found = _hashed(lambda place: read(*place), chosen)
    for place, sha256 in zip(chosen, found, strict=True):  # what a node did not see is not for the node to judge
        digest.update(sha256 or _sha256(read, *place))
    return digest.hexdigest()


def _hashed(read: Callable[[Any], bytes], files: Sequence[Any]) -> list[bytes | None]:
    """sha256 of what `read` gives for each; None: ValueError."""

    def one(file: Any) -> bytes | None:
        try:
            return hashlib.sha256(read(file)).digest()
        except ValueError:
            return None

    return in_threads(one, files, "checking content", "file")


def in_threads(work: Callable[[Any], Result], items: Sequence[Any], what: str, unit: str) -> list[Result]:
    """`work` of each, in order, with a bar. Threads take many at a time: most files are small."""
    slices = [items[start : start + TOGETHER] for start in range(0, len(items), TOGETHER)]
    found: list[Result] = []
    with (
        ThreadPoolExecutor(THREADS) as pool,
        tqdm(desc=what, total=len(items), unit=unit, disable=None, leave=False) as bar,
    ):
        for part in pool.map(lambda part: [work(item) for item in part], slices):
            found += part
            bar.update(len(part))
    return found


def sample(files: Iterable[tuple[str, int]]) -> list[tuple[int, str]]:
    """(position, name) of the files whose bytes are read: those whose names hash lowest, as far as number and bytes
    allow."""
    lowest: list[tuple[int, str, int]] = []  # by rank, of equals in the order of the files
    ranks, before, iterator = np.empty(0, np.uint64), 0, iter(files)
    while chunk := list(itertools.islice(iterator, RANKED_TOGETHER)):
        new = np.frombuffer(b"".join([name_rank(name) for name, _ in chunk]), ">u8")
        lowest += [(position, name, size) for position, (name, size) in enumerate(chunk, before)]
        ranks, before = np.concatenate([ranks, new]), before + len(chunk)
        order = np.argsort(ranks, kind="stable")[:SAMPLED_FILES]
        ranks, lowest = ranks[order], [lowest[i] for i in order.tolist()]
    total = itertools.accumulate(size for *_, size in lowest)
    return [
        (position, name)
        for i, ((position, name, _), size) in enumerate(zip(lowest, total, strict=True))
        if i < FEWEST_FILES or size <= SAMPLED_BYTES
    ]


def name_rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _sha256(read: Read, position: int, name: str) -> bytes:
    try:
        return hashlib.sha256(read(position, name)).digest()
    except ValueError as error:
        return hashlib.sha256(f"unreadable: {error}".encode()).digest()


def file_stats(paths: Iterable[str | Path]) -> Iterator[Stat]:
    """(bytes, time of the last writing, of the last change) of each file, both in ns; −1 for one that is not there."""
    iterator = iter(paths)
    all_chunks = iter(lambda: list(itertools.islice(iterator, CHUNK)), [])
    with ThreadPoolExecutor(THREADS) as pool:  # which a file server answers sooner
        while chunks := list(itertools.islice(all_chunks, THREADS)):
            for found in pool.map(stats_of, chunks):
                yield from found


def stats_of(paths: Sequence[str | Path]) -> list[Stat]:
    """file_stats of a few."""
    found = []
    for path in paths:
        try:
            entry = os.stat(path)
            found.append((entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns))
        except OSError:
            found.append((-1, -1, -1))
    return found


def pieces_of(path: Path) -> bytes:
    """A file's bytes; of a large one 64 pieces of 64 KiB, spread over it. ValueError: unreadable."""
    with readable(), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= PIECES * PIECE_BYTES:
            return file.read()
        starts = ((size - PIECE_BYTES) * i // (PIECES - 1) for i in range(PIECES))
        return b"".join(os.pread(file.fileno(), PIECE_BYTES, start) for start in starts)


def pieces_sha256(root: Path, names: Sequence[str]) -> str:
    """content_sha256 of files below `root`, of large ones of their pieces_of."""
    sizes = (size for size, *_ in file_stats(root / name for name in names))
    return content_sha256(zip(names, sizes, strict=True), lambda _, name: pieces_of(root / name))


def stamp_of(stats: Iterable[Stat]) -> str:
    """A sha256 that differs whenever one of these files may have been written to."""
    digest = hashlib.sha256()
    for _ in stamped(stats, digest):
        pass
    return digest.hexdigest()


def stamped(stats: Iterable[Stat], digest: hashlib._Hash) -> Iterator[Stat]:
    """The same, each told to `digest`, whose hexdigest() is then their stamp_of."""
    return _told(stats, "%d %d %d\n", digest)


def _told(items: Iterable[Told], line: str, digest: hashlib._Hash) -> Iterator[Told]:
    """The same items, each told to `digest` as a line of it; many at a time, which takes a fraction of the time."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        digest.update("".join([line % item for item in chunk]).encode("utf-8", "surrogateescape"))
        yield from chunk


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Of a whole file, in hexadecimal digits, with a bar."""
    with tqdm(total=path.stat().st_size, desc=algorithm, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        return digest_of_file(path, algorithm, bar.update)


def short_digest(*parts: bytes) -> str:
    """128 bits of a sha256, as 32 hexadecimal digits: what one image, or one object's files, hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:DIGEST_DIGITS]
