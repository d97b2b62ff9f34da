"""The images of a manifest's rows: files of the source, or frames of its videos. Letters: R rows, V videos."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.archives import printable
from pipelines.sources.manifest.columns import as_integers, compute, distinct
from pipelines.sources.manifest.locate import list_source, locate
from pipelines.sources.manifest.rows import Rows
from pipelines.sources.table import FilePictures, Pictures
from pipelines.sources.video import SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa


def are_videos(names: pa.ChunkedArray) -> np.ndarray:
    """bool [R]"""
    pc = compute()
    pattern = rf"({'|'.join(suffix.replace('.', '[.]') for suffix in SUFFIXES)})$"
    return np.asarray(pc.fill_null(pc.match_substring_regex(pc.utf8_lower(names), pattern), False).to_numpy(), bool)


def pictures_of(
    rows: Rows, source: Path, names: pa.ChunkedArray, seconds: np.ndarray | None, order: np.ndarray
) -> Pictures | None:
    """Those of the rows `order`. Of videos the column `frame` says which, or else `timestamp`: `seconds` [R].

    None: there are mistakes.
    """
    videos = are_videos(names)
    files = locate(list_source(source), names, rows.raw.where, rows.mistakes)
    if not videos.any():
        return files.at(order)
    others = np.flatnonzero(~videos & np.asarray(compute().is_valid(names).to_numpy(), bool))
    rows.tell(others, lambda row: f"{printable(files.name(row))} is no video, as others are", "videos")
    if not source.is_dir():
        rows.mistakes.add(f"{source.name} is an archive, and names videos: unpack it and give the folder", "videos")
    if "frame" not in rows.roles and seconds is None:
        rows.mistakes.add("names are of videos: add a column frame (0, 1 …) or timestamp (seconds into it)", "videos")
    return None if rows.mistakes.count else _frames(rows, files, names, seconds, order)


def _frames(
    rows: Rows, files: FilePictures, names: pa.ChunkedArray, seconds: np.ndarray | None, order: np.ndarray
) -> Pictures | None:
    from pipelines.sources.video.pictures import VideoError, VideoPictures

    root = files.reader.path / files.reader.root
    of, paths = distinct(names)
    try:
        if (column := rows.column("frame")) is not None:
            found = VideoPictures.by_number(root, paths, of, as_integers(column)[0], rows.raw.where)
        else:
            assert seconds is not None
            found = VideoPictures.by_time(root, paths, of, seconds, rows.raw.where)
    except VideoError as error:
        for line in error.lines:
            rows.mistakes.add(line, "videos")
        rows.mistakes.count += error.count - len(error.lines)
        return None
    return replace(found, of=found.of[order], numbers=found.numbers[order])
