"""Layouts that say which picture belongs to what: NeRF's, COLMAP's, values in file names. Each as a ViewTable.

`find_layout` tells which one a source has. Pictures lie in a folder, a plain tar or a zip. Letters: R rows (pictures),
Q sequences.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.sources.cameras import (
    POSE_ACTION,
    Findings,
    Scene,
    intrinsic_fields,
    note_named,
    pose_fields,
    pose_params,
    without_missing,
)
from pipelines.sources.choose import validation_share
from pipelines.sources.colmap import BINARY, IMAGES, TEXTS, read_models
from pipelines.sources.files import FileEntry, FileList, list_files
from pipelines.sources.nerf import read_transforms, transforms_files
from pipelines.sources.pattern import compile_pattern, read_names
from pipelines.sources.table import FilePictures, ViewTable
from shards.errors import FormatError, UsageError

log = logging.getLogger(__name__)

LAYOUTS = ("nerf", "colmap", "pattern")
NOTES = (".json", *TEXTS)
MISTAKES_SHOWN = 20
WANTED = {
    "nerf": "transforms.json, or transforms_train.json …, beside its pictures",
    "colmap": "cameras.txt and images.txt, in sparse/0 or beside the pictures",
}


def list_layout(path: Path) -> FileList:
    """The pictures of a source, and the texts that a layout may have. FormatError as list_files."""
    return list_files(path, NOTES)


def find_layout(files: FileList) -> str | None:
    """ "nerf" or "colmap" where the files that say so are there; None: neither. NeRF's goes first, being made of
    COLMAP's often."""
    if transforms_files(files):
        return "nerf"
    return "colmap" if note_named(files.notes, IMAGES, *BINARY) else None


def scene_table(files: FileList, layout: str, val_fraction: float | None = None, max_bad: int = 0) -> ViewTable:
    """Scenes as sequences, their poses and intrinsics as parameters, the action `relative_pose`.

    max_bad  frames whose pictures are not there are left out if they are no more
    FormatError: the layout's files are not there, or not what they should be; the first 20 mistakes in them, each with
    its file and frame. UsageError: --val-fraction where the layout has splits.
    """
    found = Findings()
    scenes = read_transforms(files, found) if layout == "nerf" else read_models(files, found)
    if not scenes:
        raise FormatError(f"{files.reader.path} holds no {WANTED[layout]}")
    refuse_mistakes(files.reader.path, found, max_bad)
    scenes = without_missing(scenes)
    scenes.sort(key=lambda scene: scene.name)
    counts = [len(scene.images) for scene in scenes]
    first = np.cumsum([0, *counts])
    fields = intrinsic_fields(scenes)
    names = [image for scene in scenes for image in scene.images]
    _count_unnamed(files, names)
    return ViewTable(
        sequences=[scene.name for scene in scenes],
        of=np.repeat(np.arange(len(scenes), dtype=np.int32), counts),
        steps=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        ordered=False,
        params=np.concatenate([pose_params(scene, fields) for scene in scenes]),
        fields=pose_fields(scenes),
        splits=choose_splits([scene.name for scene in scenes], [None] * len(scenes), _splits(scenes), val_fraction),
        labels=[None] * len(scenes),
        pictures=_pictures(files, names),
        actions=POSE_ACTION,
        settled=_settled(layout, val_fraction),
        where=_where(scenes, first),
    )


def _splits(scenes: Sequence[Scene]) -> list[str | None]:
    return [scene.split for scene in scenes]


def _where(scenes: Sequence[Scene], first: np.ndarray) -> Callable[[int], str]:
    def where(row: int) -> str:
        scene = int(np.searchsorted(first, row, side="right")) - 1
        return scenes[scene].where(row - int(first[scene]))

    return where


def _count_unnamed(files: FileList, names: Sequence[str]) -> None:
    if unnamed := len(files.images) - len(set(names)):
        files.others.notes.append(f"{unnamed} pictures are named by no frame")


def pattern_table(files: FileList, text: str, val_fraction: float | None = None) -> ViewTable:
    """Pictures whose names match the pattern `text`; the others are counted in `files.others`.

    FormatError: the first 20 mistakes, each with its file. UsageError: as compile_pattern and read_names.
    """
    pattern, found = compile_pattern(text), Findings()
    root = files.reader.root
    rows = read_names(pattern, [root + entry.name for entry in files.images], files.others, found.mistakes)
    refuse_mistakes(files.reader.path, found)
    entries = [files.images[i] for i in rows.entries.tolist()]
    return ViewTable(
        sequences=rows.sequences,
        of=rows.of,
        steps=rows.steps.astype(np.int32),
        ordered=pattern.has("step"),
        params=rows.params.astype(np.float32),
        fields=pattern.fields,
        splits=choose_splits(rows.sequences, rows.labels, rows.splits, val_fraction),
        labels=rows.labels,
        pictures=_of_entries(files, entries),
        actions=pattern.actions,
        settled={"layout": "pattern", "pattern": text}
        | ({} if val_fraction is None else {"val_fraction": val_fraction}),
        where=lambda row: root + entries[row].name,
    )


def _settled(layout: str, val_fraction: float | None) -> dict[str, Any]:
    return {"layout": layout} | ({} if val_fraction is None else {"val_fraction": val_fraction})


def choose_splits(
    names: Sequence[str], labels: Sequence[str | None], given: Sequence[str | None], val_fraction: float | None
) -> list[str]:
    """[Q]: what the layout says; or a share of the sequences of each class for val; or all of it for train."""
    if any(given):
        if val_fraction is not None:
            raise UsageError(f"--val-fraction {val_fraction}: the source has splits of its own; leave it out")
        return [split or "train" for split in given]
    if val_fraction is None:
        return ["train"] * len(names)
    chosen = validation_share(names, [label or "" for label in labels], val_fraction)
    return ["val" if is_val else "train" for is_val in chosen]


def refuse_mistakes(path: Path, found: Findings, max_bad: int = 0) -> None:
    """FormatError with the first 20, if there are any; at most `max_bad` missing pictures are only logged."""
    lines = [*found.mistakes, *(found.missing if len(found.missing) > max_bad else ())]
    if lines:
        more = f"; and {len(lines) - MISTAKES_SHOWN} more" if len(lines) > MISTAKES_SHOWN else ""
        advice = "" if found.mistakes else f"; --max-bad {len(found.missing)} leaves out what is not there"
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise FormatError(f"{path}: {count}: {'; '.join(lines[:MISTAKES_SHOWN])}{more}{advice}")
    if found.missing:
        log.warning("%s: %d frames are left out, e.g. %s", path, len(found.missing), found.missing[0])


def _pictures(files: FileList, names: Sequence[str]) -> FilePictures:
    entries = {entry.name: entry for entry in files.images}
    return _of_entries(files, [entries[name] for name in names])


def _of_entries(files: FileList, entries: Sequence[FileEntry]) -> FilePictures:
    return FilePictures(
        files.reader,
        [entry.name for entry in entries],
        np.array([entry.offset for entry in entries], np.int64),
        np.array([entry.length for entry in entries], np.int64),
    )


def layout_table(
    path: Path,
    layout: str | None = None,
    *,
    pattern: str | None = None,
    val_fraction: float | None = None,
    max_bad: int = 0,
) -> ViewTable:
    """The table of a source in one of LAYOUTS; None: the one that it has, which a pattern says itself.

    FormatError, UsageError: as above; there is none of these layouts; a layout that is not known.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UsageError(f"--layout {layout!r:.40} is not known; there are {', '.join(LAYOUTS)}")
    if pattern is not None and layout not in (None, "pattern"):
        raise UsageError(f"--pattern is for --layout pattern, not for {layout}; leave out one")
    if layout == "pattern" and pattern is None:
        raise UsageError("--layout pattern needs --pattern '{object}/{name}_{azimuth:deg}.png', with your names")
    files = list_layout(path)
    if pattern is not None:
        table = pattern_table(files, pattern, val_fraction)
    elif layout := layout or find_layout(files):
        table = scene_table(files, layout, val_fraction, max_bad)
    else:
        raise FormatError(f"{path} holds neither {WANTED['nerf']}, nor {WANTED['colmap']}")
    files.others.warn(path)
    return table
