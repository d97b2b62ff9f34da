"""What a source's files hold, as a sha256 that every copy shares; and, cheaper, whether they may have changed here.

The content is that of all names and sizes and of the bytes of a sample that is spread over the files by a hash of their
names: of all files in a small source, of 16,384 files or 2 GiB in a larger one. A stamp also has the times that a file
system keeps: it is no part of a set, for a copy has others, and only saves reading everything again.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from shards.files import sha256_of_file

SAMPLED_FILES = 16384
SAMPLED_BYTES = 2 << 30
FEWEST_FILES = 256  # however large they are
THREADS = 8
CHUNK = 4096
DIGEST_DIGITS = 32

Read = Callable[[int], bytes]  # of the file at this position; ValueError: not readable


def content_sha256(names: Sequence[str], sizes: Sequence[int], read: Read) -> str:
    """Of files with these names (below the source) and sizes in bytes; `read` gives the bytes of the i-th.

    The order of the files does not matter. A file that cannot be read counts as what is wrong with it.
    """
    digest = hashlib.sha256()
    for name, size in sorted(zip(names, sizes, strict=True)):
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    chosen = sample(names, sizes)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda position: _sha256(read, position), chosen)
        for sha256 in tqdm(found, "checking content", len(chosen), unit="file", disable=None, leave=False):
            digest.update(sha256)
    return digest.hexdigest()


def sample(names: Sequence[str], sizes: Sequence[int]) -> list[int]:
    """Positions of the files whose bytes are read: those whose names hash lowest, as far as number and bytes allow."""
    ranked = heapq.nsmallest(SAMPLED_FILES, range(len(names)), key=lambda position: _rank(names[position]))
    total = list(itertools.accumulate(sizes[position] for position in ranked))
    return [position for i, position in enumerate(ranked) if i < FEWEST_FILES or total[i] <= SAMPLED_BYTES]


def _rank(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()


def _sha256(read: Read, position: int) -> bytes:
    try:
        return hashlib.sha256(read(position)).digest()
    except ValueError as error:
        return hashlib.sha256(f"unreadable: {error}".encode()).digest()


def file_stats(paths: Iterable[str | Path]) -> list[tuple[int, int, int]]:
    """(bytes, time of the last writing, of the last change) of each file, both in ns; −1 for one that is not there."""
    iterator, chunks = iter(paths), []
    while chunk := list(itertools.islice(iterator, CHUNK)):
        chunks.append(chunk)
    with ThreadPoolExecutor(THREADS) as pool:  # which a file server answers sooner
        return [found for chunk in pool.map(_stats, chunks) for found in chunk]


def _stats(paths: Sequence[str | Path]) -> list[tuple[int, int, int]]:
    found = []
    for path in paths:
        try:
            entry = os.stat(path)
            found.append((entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns))
        except OSError:
            found.append((-1, -1, -1))
    return found


def stamp_of(stats: Iterable[tuple[int, int, int]]) -> str:
    """A sha256 that differs whenever one of these files may have been written to."""
    digest = hashlib.sha256()
    for size, written, changed in stats:
        digest.update(f"{size} {written} {changed}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Of a whole file, with a bar."""
    with tqdm(total=path.stat().st_size, desc="sha256", unit="B", unit_scale=True, disable=None, leave=False) as bar:
        return sha256_of_file(path, bar.update)


def short_digest(*parts: bytes) -> str:
    """128 bits of a sha256, as 32 hexadecimal digits: what one image, or one object's files, hold."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:DIGEST_DIGITS]
