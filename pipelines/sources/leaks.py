"""Images that two splits have in common: the same file, or files with the same pixels. Training on one is knowing both.

Files are told apart by their last bytes, which is where images differ; only those that agree there are decoded. A file
whose text alone was changed has the same end. What was compressed anew is found in small sources, which are decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipelines.archives import Content, read_content, readable
from pipelines.sources.content import in_threads
from pipelines.sources.decode import decode_image
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.table import Pictures, PlacedFile, ViewTable

TAIL = 2048  # bytes
SMALL = 2000  # images without loss that are decoded anyway
LOSSLESS = (".png", ".bmp", ".webp")


def refuse_leaks(table: ViewTable, mistakes: Mistakes, notes: list[str], *, allow_repeats: bool) -> None:
    """`mistakes` gets images that two splits share; with `allow_repeats`, `notes` gets those of equal pixels."""
    ranks = {split: rank for rank, split in enumerate(sorted({s for s in table.splits if s is not None}))}
    if len(ranks) < 2:
        return
    of_split = np.array([-1 if s is None else ranks[s] for s in table.splits])[table.of]
    pictures = table.pictures
    # Of names: they agree where rows name the same file, or the same frame of a video.
    names = (pictures.name(row).encode("utf-8", "surrogateescape") for row in range(len(of_split)))
    files = np.fromiter(map(_short, names), np.uint64, len(of_split))
    same_file = _shared(files, of_split)
    mistakes.add_each(same_file, lambda pair: f"{_words(table, *pair)}: the same file in two splits", "the same file")
    if not isinstance(pictures.contents(np.arange(1)), Sequence):  # frames of a video
        return
    tails = _digests(pictures, np.arange(len(files)), _tail, "comparing splits")
    doubtful = {row for pair in _shared(tails, of_split, every=True) for row in pair}
    if len(files) <= SMALL:
        doubtful |= {row for row in range(len(files)) if pictures.name(row).lower().endswith(LOSSLESS)}
    chosen = np.array(sorted(doubtful), np.int64)
    pixels = _digests(pictures, chosen, _pixels, "comparing pixels")
    known = set(same_file)
    pairs = [(int(chosen[a]), int(chosen[b])) for a, b in _shared(pixels, of_split[chosen])]
    pairs = [pair for pair in pairs if pair not in known and files[pair[0]] != files[pair[1]]]
    if allow_repeats and pairs:
        notes.append(f"{len(pairs)} images have the same pixels as one of another split: {_words(table, *pairs[0])}")
    else:
        advice = "--allow-repeats if they may be"
        mistakes.add_each(
            pairs, lambda pair: f"{_words(table, *pair)}: the same pixels in two splits; {advice}", "the same pixels"
        )


def _words(table: ViewTable, a: int, b: int) -> str:
    first, second = (
        f"{table.where(row)} ({table.pictures.name(row)}, {table.splits[table.of[row]]})" for row in (a, b)
    )
    return f"{first} and {second}"


def _shared(digests: np.ndarray, of_split: np.ndarray, *, every: bool = False) -> list[tuple[int, int]]:
    """Pairs of rows with the same digest in two splits: each row of a later split with the first of them; `every`: all
    rows of such groups. 0 is no digest.
    """
    if not len(digests):
        return []
    order = np.lexsort((of_split, digests))
    digests, splits = digests[order], of_split[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(digests) != 0]))
    ends = np.append(starts[1:], len(digests))
    pairs = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end - start > 1 and digests[start] and splits[start] != splits[end - 1]:
            first = int(order[start])
            rest = [i for i in range(start + 1, end) if every or splits[i] != splits[start]]
            pairs += [(first, int(order[i])) for i in rest]
    return sorted(pairs, key=lambda pair: pair[1])


def _digests(pictures: Pictures, rows: np.ndarray, make: Callable[[Content], bytes], what: str) -> np.ndarray:
    """uint64 [n] of the images of these rows; 0 for one that cannot be read, which a build will name."""

    def one(row: int) -> int:
        try:
            contents = pictures.contents(np.array([row]))
            assert isinstance(contents, Sequence), "frames of a video are not compared"
            return _short(make(contents[0]))
        except ValueError:
            return 0

    return np.array(in_threads(one, rows.tolist(), what, "img"), np.uint64)


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") or 1


def _tail(content: Content) -> bytes:
    """The last bytes. Raises ValueError as read_content."""
    if isinstance(content, PlacedFile):
        return content.read_end(TAIL)
    if not isinstance(content, Path):
        return read_content(content)[-TAIL:]
    with readable(), content.open("rb", buffering=0) as file:
        size = file.seek(0, 2)
        file.seek(max(size - TAIL, 0))
        return file.read(TAIL)


def _pixels(content: Content) -> bytes:
    pixels = decode_image(read_content(content))
    return repr(pixels.shape).encode() + pixels.tobytes()
