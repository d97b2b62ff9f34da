"""Where the images are that a table names: in a folder, a plain tar or a zip. Names and places stay columns of numbers.

A name is a path below the source, with "/". Names that leave the source are refused, and those that are not there are
told with what may be meant instead. Names of videos stand for frames of them. Letter: R rows.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from pipelines.archives import LeftOut, is_utf8, printable
from pipelines.archives.tree import ArchiveTree, DiskTree, Place, walk_tree
from pipelines.archives.zip import is_zip
from pipelines.sources.decode import SUFFIXES
from pipelines.sources.files import HIDDEN, FileReader, archive_members, lone_root
from pipelines.sources.manifest.columns import as_integers, distinct, pc
from pipelines.sources.manifest.rows import Rows, whole_numbers
from pipelines.sources.mistakes import SHOWN, Mistakes
from pipelines.sources.table import FilePictures, Pictures
from pipelines.sources.video import SUFFIXES as VIDEO_SUFFIXES
from shards.errors import FormatError

BLOCK = 50_000  # names
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
DRIVE = re.compile(r"[A-Za-z]:[\\/]")
IMAGE = rf"({'|'.join(map(re.escape, SUFFIXES))})$"
NOT_READ = (".gif", ".tif", ".tiff", ".exr", ".heic", ".heif", ".avif", ".svg", ".pdf", ".ppm", ".pgm", ".npy", ".npz")


@dataclass(frozen=True)
class Listed:
    """All files of a source: names, and offset and length of each as in FileEntry. odd: what else has a name, and why.

    root: the lone folder around everything, "a/", or "".
    """

    reader: FileReader
    names: pa.ChunkedArray
    offsets: np.ndarray
    lengths: np.ndarray
    odd: dict[str, str]
    root: str


def list_source(path: Path) -> Listed:
    """Raises FormatError as list_files, but not where there is no image."""
    zipped = path.is_file() and is_zip(path)
    tree = DiskTree(path) if path.is_dir() else ArchiveTree(path, archive_members(path, zipped, LeftOut()))
    names, offsets, lengths, odd = [], [], [], {}
    found = _files(walk_tree(tree, path, []), odd)
    while block := list(itertools.islice(found, BLOCK)):
        names.append(pa.array([name for name, _ in block], pa.large_string()))
        offsets.append(np.array([place.offset for _, place in block], np.int64))
        lengths.append(np.array([place.length for _, place in block], np.int64))
    if not names:
        raise FormatError(f"{path} holds no file")
    all_names = pa.chunked_array(names)
    ends = pc.min_max(all_names).as_py()
    root = lone_root([ends["min"], ends["max"]])
    reader = FileReader(path, "", zipped)
    return Listed(reader, all_names, np.concatenate(offsets), np.concatenate(lengths), odd, root)


def _files(found: Iterator[tuple[str, Place | str]], odd: dict[str, str]) -> Iterator[tuple[str, Place]]:
    for name, place in tqdm(found, desc="listing", unit="file", disable=None, leave=False):
        if isinstance(place, str):
            odd[name] = place
        elif is_utf8(name):  # any other cannot be named by a table
            yield name, place


def plain_names(
    texts: pa.ChunkedArray, where: Callable[[int], str], mistakes: Mistakes, notes: list[str]
) -> pa.ChunkedArray:
    r"""Names as they are looked for: "\" as "/", without "./" in front. `mistakes`: empty, absolute, leaving ones."""
    drive = pc.match_substring_regex(texts, f"^({DRIVE.pattern})")
    if pc.any(pc.match_substring(texts, "\\")).as_py():
        notes.append(r"\ in names of images is read as /")
        texts = pc.replace_substring(texts, "\\", "/")
    texts = pc.replace_substring_regex(texts, r"^(\./+)+", "")
    tests = {
        "has no image's name": pc.is_null(texts),
        "{} is an address; fetch the image, and name its file": pc.match_substring_regex(texts, f"(?i)^{URL.pattern}"),
        "{} is an absolute path; names are relative to the source": pc.or_(pc.starts_with(texts, "/"), drive),
        "{} leaves the source": pc.match_substring_regex(texts, r"(^|/)\.\.(/|$)"),
        "{} has a kind that is not read: JPEG, PNG, WebP and BMP are": pc.match_substring_regex(
            pc.utf8_lower(texts), rf"({'|'.join(map(re.escape, NOT_READ))})$"
        ),
    }
    bad = np.zeros(len(texts), bool)
    for what, test in tests.items():
        rows = np.flatnonzero(pc.fill_null(test, False).to_numpy() & ~bad)
        mistakes.add_each(
            rows.tolist(),
            lambda row, w=what: f"{where(row)}: {w.format(printable(texts[row].as_py() or ''))}",
            f"missing: {what}",
        )
        bad[rows] = True
    return pc.if_else(pa.chunked_array([pa.array(bad)]), None, texts)


def locate(listed: Listed, names: pa.ChunkedArray, where: Callable[[int], str], mistakes: Mistakes) -> FilePictures:
    """Names of R rows, null where they are known to be wrong. `mistakes` gets those that are not there."""
    found = _positions(listed, names)
    root = ""
    if listed.root and (found < 0).any():
        root_text, nothing = (pa.scalar(text, pa.large_string()) for text in (listed.root, ""))
        below = _positions(listed, pc.binary_join_element_wise(root_text, names, nothing))
        if (below >= 0).sum() > (found >= 0).sum():
            found, root = below, listed.root
    missing = np.flatnonzero((found < 0) & np.asarray(pc.is_valid(names).to_numpy(), bool))
    if len(missing):
        hints = _alike(listed, {names[row].as_py() for row in missing[:SHOWN].tolist()}, root)
        mistakes.add_each(
            missing.tolist(),
            lambda row: f"{where(row)}: {_why_missing(listed, names[row].as_py(), root, hints)}",
            "missing",
        )
    at = np.maximum(found, 0)
    reader = FileReader(listed.reader.path, root, listed.reader.zipped)
    flat = names.combine_chunks()
    return FilePictures(reader, flat, listed.offsets[at], listed.lengths[at])


def _positions(listed: Listed, names: pa.ChunkedArray) -> np.ndarray:
    """int64 [R]: which file each is, −1 for none."""
    found = pc.index_in(names, value_set=listed.names.combine_chunks(), skip_nulls=True)
    return np.array(pc.fill_null(found, -1).to_numpy(), np.int64)


def _why_missing(listed: Listed, name: str, root: str, hints: dict[str, str]) -> str:
    there = hints.get(name, "")
    same = unicodedata.normalize("NFC", there) == unicodedata.normalize("NFC", name)
    otherwise = ", whose accents are spelled otherwise (Unicode NFC and NFD); rename it" if same else ""
    hint = f" (there is {printable(there)}{otherwise})" if there else ""
    odd = listed.odd.get(root + name)
    return f"{printable(name)} {f'is no file: {odd}' if odd else 'is not there'}{hint}"


def _alike(listed: Listed, wanted: set[str], root: str) -> dict[str, str]:
    """Files whose names differ from those that are wanted in case, spelling of accents, suffix or folder alone."""
    by_spelling = {_spelling(name): name for name in wanted}
    by_stem = {_spelling(_stem(name)): name for name in wanted}
    by_last = {_spelling(name.rpartition("/")[2]): name for name in wanted}
    best: dict[str, tuple[int, str]] = {}
    for chunk in listed.names.chunks:
        for full in chunk.to_pylist():
            name = full.removeprefix(root)
            spelled = _spelling(name)
            keys = (by_spelling.get(spelled), by_stem.get(_stem(spelled)), by_last.get(spelled.rpartition("/")[2]))
            for rank, want in enumerate(keys):
                if want is not None and rank < best.get(want, (len(keys), ""))[0]:
                    best[want] = (rank, name)
    return {want: name for want, (_, name) in best.items()}


def _spelling(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return re.sub(r"\.[^./]*$", "", name)


def are_videos(names: pa.ChunkedArray) -> np.ndarray:
    """bool [R]"""
    pattern = rf"({'|'.join(suffix.replace('.', '[.]') for suffix in VIDEO_SUFFIXES)})$"
    return np.asarray(pc.fill_null(pc.match_substring_regex(pc.utf8_lower(names), pattern), False).to_numpy(), bool)


def pictures_of(
    rows: Rows, source: Path, names: pa.ChunkedArray, seconds: np.ndarray | None, order: np.ndarray
) -> Pictures | None:
    """Those of the rows `order`. Of videos the column `frame` says which, or else `timestamp`: `seconds` [R].

    None: there are mistakes.
    """
    videos = are_videos(names)
    listed = list_source(source)
    files = locate(listed, names, rows.raw.where, rows.mistakes)
    is_image, hidden = (
        pc.match_substring_regex(listed.names, pattern, ignore_case=True) for pattern in (IMAGE, HIDDEN.pattern)
    )
    images = pc.sum(pc.and_not(is_image, hidden)).as_py()
    if not videos.any() and (spare := images - pc.count_distinct(names, mode="only_valid").as_py()) > 0:
        rows.notes.append(f"{spare} pictures are named by no row")
    if not videos.any():
        return files.at(order)
    others = np.flatnonzero(~videos & np.asarray(pc.is_valid(names).to_numpy(), bool))
    rows.tell(others, lambda row: f"{printable(files.name(row))} is no video, as others are", "videos")
    if not source.is_dir():
        rows.mistakes.add(f"{source.name} is an archive, and names videos: unpack it and give the folder", "videos")
    if "frame" not in rows.roles and seconds is None:
        rows.mistakes.add(
            "names are of videos: add a column frame (0, 1 …) or timestamp (seconds into it, no dates)", "videos"
        )
    numbers = None
    if "frame" in rows.roles:  # of which a mistake was told already where they are the steps
        numbers = (
            whole_numbers(rows, "frame")[0]
            if "step" in rows.roles
            else as_integers(rows.raw.columns[rows.roles["frame"]])[0]
        )
    return None if rows.mistakes.count else _frames(rows, files, names, numbers, seconds, order)


def _frames(
    rows: Rows,
    files: FilePictures,
    names: pa.ChunkedArray,
    numbers: np.ndarray | None,
    seconds: np.ndarray | None,
    order: np.ndarray,
) -> Pictures | None:
    from pipelines.sources.video.pictures import VideoPictures

    root = files.reader.path / files.reader.root
    of, paths = distinct(names)
    if numbers is not None:
        found = VideoPictures.by_number(root, paths, of, numbers, rows.raw.where, rows.mistakes)
    else:
        assert seconds is not None
        found = VideoPictures.by_time(root, paths, of, seconds, rows.raw.where, rows.mistakes)
    return found and replace(found, of=found.of[order], numbers=found.numbers[order])
