"""Layouts that say which picture belongs to what: NeRF's, COLMAP's, values in file names. Each as a ViewTable.

`read_views` chooses among them and tables (manifest/). Pictures lie in a folder, a plain tar or a zip. Letters: R
rows (pictures), Q sequences, P parameters.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import printable, read_content
from pipelines.sources.declared_actions import (
    FILE,
    Declared,
    action_of,
    coarse,
    fields_of,
    in_stored,
    read_declared,
    refuse_values,
    scale_of,
)
from pipelines.sources.decode import decode_image
from pipelines.sources.files import FileEntry, FileList, list_files
from pipelines.sources.layouts.cameras import (
    POSE_ACTION,
    Findings,
    Scene,
    note_named,
    pose_fields,
    pose_params,
    split_intrinsics,
    without_missing,
)
from pipelines.sources.layouts.colmap import BINARY, IMAGES, TEXTS, read_models
from pipelines.sources.layouts.nerf import read_transforms, transforms_files
from pipelines.sources.layouts.pattern import compile_pattern, read_names
from pipelines.sources.leaks import refuse_leaks
from pipelines.sources.manifest import ManifestOptions, ReadViews, has_manifest, read_manifest
from pipelines.sources.mistakes import Mistakes
from pipelines.sources.split_folders import split_of
from pipelines.sources.subset import train_or_val
from pipelines.sources.table import FilePictures, ViewTable, divided_steps
from shards.errors import FormatError, UsageError, few

log = logging.getLogger(__name__)

SIZES_TRIED = 16  # pictures
LAYOUTS = ("nerf", "colmap", "pattern")
NOTES = (".json", *TEXTS)
WANTED = {
    "nerf": "transforms.json, or transforms_train.json …, beside its pictures",
    "colmap": "cameras.txt and images.txt, in sparse/0 or beside the pictures",
}


@dataclass(frozen=True)
class LayoutOptions:
    """layout     "manifest" or one of LAYOUTS; None: pattern where one is given, else what the source has
    pattern       of the names, "{object}/{name}_{azimuth:deg}.png"
    max_bad       frames whose pictures are not there are left out if they are no more
    """

    layout: str | None = None
    pattern: str | None = None
    max_bad: int = 0

    def to_json(self) -> dict[str, Any]:
        """Of the command line, beside what ManifestOptions have."""
        return {"layout": self.layout, "pattern": self.pattern, "max_bad": self.max_bad or None}


def read_views(source: Path, table: ManifestOptions, asked: LayoutOptions) -> ReadViews:
    """A table of images, or one of LAYOUTS: what is asked for, else a table that is there, else the layout that is.

    UsageError: options that do not go together. Otherwise as read_manifest and read_layout.
    """
    known = ("manifest", *LAYOUTS)
    if asked.layout not in (None, *known):
        raise UsageError(f"--layout {asked.layout!r:.40} is not known; allowed are {', '.join(known)}")
    if asked.pattern is not None and (asked.layout not in (None, "pattern") or table.manifest is not None):
        other = "--manifest" if table.manifest is not None else asked.layout
        raise UsageError(f"--pattern is for --layout pattern, not for {other}; leave out one")
    if asked.layout == "pattern" and asked.pattern is None:
        raise UsageError("--layout pattern needs --pattern '{object}/{name}_{azimuth:deg}.png', with your names")
    layout = asked.layout or ("pattern" if asked.pattern is not None else None)
    if layout is None and (table.manifest is not None or has_manifest(source)):
        layout = "manifest"
    if layout == "manifest":
        return read_manifest(source, table)
    files = _listed(source, layout)
    layout = layout or (find_layout(files) if files else None)
    if layout is None or files is None:
        return read_manifest(source, table)  # which says what is missing
    if given := [f"--{name}" for name in table.columns]:
        raise UsageError(f"{', '.join(given)}: columns are a table's, and {source} is read as {layout}; leave it out")
    return read_layout(files, layout, table, asked)


def _listed(source: Path, layout: str | None) -> FileList | None:
    try:
        return list_files(source, NOTES)
    except FormatError:
        if layout is not None:
            raise
        return None


def find_layout(files: FileList) -> str | None:
    """ "nerf" or "colmap" where the files that say so are there; None: neither. NeRF's goes first: it is often made of
    COLMAP's."""
    if transforms_files(files):
        return "nerf"
    return "colmap" if note_named(files.notes, IMAGES, *BINARY) else None


def read_layout(files: FileList, layout: str, meaning: ManifestOptions, asked: LayoutOptions) -> ReadViews:
    """All that is wrong with it is in `mistakes`. FormatError or UsageError: nothing can be made of it at all.

    meaning: splits, actions, units and columns that are left out, as of a table
    """
    path, found = files.reader.path, Findings()
    folder, share = path if path.is_dir() else path.parent, meaning.val_fraction
    declared = read_declared(meaning.actions, meaning.action, meaning.units, found.mistakes, folder)
    if layout == "pattern":
        assert asked.pattern is not None
        table = _pattern_table(files, asked.pattern, share, found)
    else:
        table = _scene_table(files, layout, share, found)
    reading = ReadViews(path, found.mistakes, [])
    _count_missing(found, asked.max_bad, reading.notes)
    if table is not None:
        table = _without(table, meaning.ignore, found.mistakes)
        reading.notes.extend(coarse(table.names, table.params, table.of))
        table = _with_declared(table, declared, found.mistakes)
    if table is not None and not found.mistakes.count:
        refuse_leaks(table, found.mistakes, reading.notes, allow_repeats=meaning.allow_repeats)
    if not found.mistakes.count:
        reading.table = table
    told = (meaning.actions or folder / FILE).resolve()
    if told.is_file() and told.is_relative_to(path.resolve()):  # it is read, though it is no image
        files.others.suffixes -= Counter([told.suffix.lower()])
    if left_out := str(files.others):
        reading.notes.append(left_out)
    return reading


def _count_missing(found: Findings, max_bad: int, notes: list[str]) -> None:
    """Pictures that are not there are mistakes, or left out."""
    count, lines = found.missing.count, found.missing.first
    if not count:
        return
    if count <= max_bad:
        notes.append(f"{count} frames are left out, e.g. {lines[0]}")
        return
    for line in lines:
        advice = f" (--max-bad {count} leaves out what is not there)" if line == lines[-1] else ""
        found.mistakes.add(line + advice, "missing")
    found.mistakes.count += count - len(lines)


def _scene_table(files: FileList, layout: str, val_fraction: float | None, found: Findings) -> ViewTable | None:
    """Scenes as sequences, poses and intrinsics as parameters (float64), `relative_pose`. None: no frame is left.

    FormatError: the layout's files are not there, or not what they should be.
    """
    scenes = read_transforms(files, found) if layout == "nerf" else read_models(files, found)
    if not scenes:
        raise FormatError(f"{files.reader.path} holds no {WANTED[layout]}")
    scenes = sorted(without_missing(scenes), key=lambda scene: scene.name)
    if not scenes:
        return None
    counts = [len(scene.images) for scene in scenes]
    fields, constants = split_intrinsics(scenes)
    names = [image for scene in scenes for image in scene.images]
    if unnamed := len(files.images) - len(set(names)):
        files.others.notes.append(f"{unnamed} pictures are named by no frame")
    sequences, given = [scene.name for scene in scenes], _given_splits(scenes)
    entries = {entry.name: entry for entry in files.images}
    pictures = _pictures(files, [entries[name] for name in names])
    _say_sizes(scenes, pictures)
    return ViewTable(
        sequences=sequences,
        of=np.repeat(np.arange(len(scenes), dtype=np.int32), counts),
        steps=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
        ordered=False,
        params=np.concatenate([pose_params(scene, fields) for scene in scenes]),
        fields=pose_fields(fields),
        splits=_choose_splits(sequences, [None] * len(scenes), given, val_fraction),
        labels=[None] * len(scenes),
        pictures=pictures,
        actions=POSE_ACTION,
        settled={"layout": layout} | ({"intrinsics": constants} if constants else {}),
        where=partial(_where, scenes, np.cumsum([0, *counts])),
    )


def _given_splits(scenes: Sequence[Scene]) -> list[str | None]:
    """Of each scene, as its file says; or its folder, where all lie below two or more of train/, val/ …."""
    given, folders = [scene.split for scene in scenes], [scene.file.partition("/")[0] for scene in scenes]
    tops = [split_of(folder) for folder in folders]
    if any(given) or len({*tops} - {None}) < 2:
        return given
    if None in tops:
        other = folders[tops.index(None)]
        log.warning(
            "folders called as splits are scenes, for %s lies beside them; give --val-fraction", printable(other)
        )
        return given
    return tops


def _say_sizes(scenes: Sequence[Scene], pictures: FilePictures) -> None:
    """A line where some pictures, spread over all, have other sizes than their cameras: intrinsics are not theirs."""
    none = [np.full(len(scene.images), np.nan) for scene in scenes]
    sides = [[scene.intrinsics.get(side, nan) for scene, nan in zip(scenes, none, strict=True)] for side in "hw"]
    said, odd = np.stack([np.concatenate(side) for side in sides], axis=1), []
    rows = np.unique(np.linspace(0, len(said) - 1, SIZES_TRIED).astype(int))
    for row in rows[np.isfinite(said[rows]).all(1)].tolist():
        with contextlib.suppress(ValueError):  # the build names what is damaged
            height, width = decode_image(read_content(pictures.contents(np.array([row]))[0])).shape[:2]
            if [height, width] != said[row].tolist():
                odd.append(f"{pictures.name(row)} has {width}×{height}, its camera {said[row, 1]:g}×{said[row, 0]:g}")
    if odd:
        log.warning("intrinsics are of pictures of another size (pixels): %s", few(odd))


def _where(scenes: Sequence[Scene], first: np.ndarray, row: int) -> str:
    scene = int(np.searchsorted(first, row, side="right")) - 1
    return scenes[scene].where(row - int(first[scene]))


def _pattern_table(files: FileList, text: str, val_fraction: float | None, found: Findings) -> ViewTable | None:
    """Pictures whose names match (params in float64); the others count in `files.others`. None: there are mistakes.

    UsageError: as compile_pattern and read_names.
    """
    pattern, root = compile_pattern(text), files.reader.root
    rows = read_names(pattern, [root + entry.name for entry in files.images], files.others, found.mistakes)
    if found.mistakes.count:
        return None
    entries = [files.images[i] for i in rows.entries.tolist()]
    if spare := pattern.numbers_left_out(root + entries[0].name):
        log.warning("the pattern does not keep %s, for {%s:deg} (:rad, :float, :int) is a number", few(spare), spare[0])
    steps, divisor = divided_steps(rows.steps, rows.of) if pattern.has("step") else (rows.steps, 1)
    tops = {entry.name.partition("/")[0] for entry in entries}
    if not pattern.has("split") and len(tops) > 1 and all(map(split_of, tops)):
        log.warning("pictures lie in %s, which the pattern does not call {split}", few(sorted(tops)))
    return ViewTable(
        sequences=rows.sequences,
        of=rows.of,
        steps=steps.astype(np.int32),
        ordered=pattern.has("step"),
        params=rows.params,
        fields=pattern.fields,
        splits=_choose_splits(rows.sequences, rows.labels, rows.splits, val_fraction),
        labels=rows.labels,
        pictures=_pictures(files, entries),
        actions=pattern.actions,
        settled={"layout": "pattern"} | ({} if divisor == 1 else {"step_divisor": divisor}),
        where=lambda row: root + entries[row].name,
    )


def _without(table: ViewTable, ignored: Sequence[str], mistakes: Mistakes) -> ViewTable:
    """The table without these columns. Its own action goes with those that it is made of."""
    for name in ignored:
        if name not in table.names:
            mistakes.add(f"--ignore {name}: there is no such column; there are {', '.join(table.names)}", "roles")
    kept = [i for i, name in enumerate(table.names) if name not in ignored]
    action = None if table.actions and set(table.actions.columns) & set(ignored) else table.actions
    return replace(table, fields=tuple(table.fields[i] for i in kept), params=table.params[:, kept], actions=action)


def _with_declared(table: ViewTable, declared: Declared, mistakes: Mistakes) -> ViewTable:
    """The table in float32, with the action and units that the user declares in the place of the layout's own."""
    names, said = table.names, fields_of(table.names, declared, mistakes)
    named = {name for name in names if name in declared.units or name.rpartition(".")[0] in declared.units}
    for field in table.fields:
        if field.name in named and field.unit == "rad" and in_stored(declared.units.get(field.name, "rad"))[1] != 1:
            mistakes.add(f"{declared.where or '--unit'}: {field.name} is in rad already", "unit")
    fields = tuple(new if new.name in named else old for new, old in zip(said, table.fields, strict=True))
    params = (table.params * scale_of(names, declared)).astype(np.float32)
    action = table.actions if declared.terms is None else action_of(declared, fields, mistakes)
    if declared.terms is not None:
        refuse_values(action, names, params, mistakes, table.where)
    return replace(table, fields=fields, params=params, actions=action)


def _choose_splits(
    names: Sequence[str], labels: Sequence[str | None], given: Sequence[str | None], val_fraction: float | None
) -> list[str]:
    """[Q]: what the layout says; or a share of the sequences of each class for val; or all of it for train."""
    if any(given):
        if val_fraction is not None:
            raise UsageError(f"--val-fraction {val_fraction}: the source has splits of its own; leave it out")
        return [split or "train" for split in given]
    return train_or_val(names, labels, val_fraction)


def _pictures(files: FileList, entries: Sequence[FileEntry]) -> FilePictures:
    return FilePictures(
        files.reader,
        [entry.name for entry in entries],
        np.array([entry.offset for entry in entries], np.int64),
        np.array([entry.length for entry in entries], np.int64),
    )
