"""NeRF's `transforms.json`: the pictures of a scene with camera-to-world matrices.

The layout of the Blender sets (bmild/nerf: transforms_train.json, transforms_val.json, transforms_test.json, names
without suffixes, camera_angle_x), of instant-ngp and of nerfstudio (transforms.json, fl_x … h for all frames or for
each, lists of the frames of a split). A file is a sequence; a folder may hold many scenes.
"""

from __future__ import annotations

import logging
import posixpath
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pipelines.sources.declared_actions import LARGEST_NUMBER
from pipelines.sources.decode import SUFFIXES
from pipelines.sources.files import FileEntry, FileList
from pipelines.sources.layouts.cameras import (
    INTRINSICS,
    Findings,
    Scene,
    below,
    check_frames,
    scene_name,
    some_frames,
    text_lines,
)
from pipelines.sources.split_folders import split_of
from shards.errors import FormatError
from shards.json_fields import strict_json

NAME = re.compile(r"transforms(?:_([A-Za-z0-9-]+))?\.json")
SPLITS = ("train", "val", "test")
WITHOUT_SUFFIX = tuple(dict.fromkeys((".png", *SUFFIXES)))  # the Blender sets' first

log = logging.getLogger(__name__)


def transforms_files(files: FileList) -> list[FileEntry]:
    """transforms.json and transforms_<split>.json, at any depth; of a folder that has both, the latter."""
    found = [note for note in files.notes if NAME.fullmatch(posixpath.basename(note.name))]
    whole = [note for note in found if posixpath.basename(note.name) == "transforms.json"]
    split_folders = {posixpath.dirname(note.name) for note in found if note not in whole}
    twice = [note for note in whole if posixpath.dirname(note.name) in split_folders]
    for note in twice:
        log.warning("%s is left out: transforms_<split>.json beside it say which frames are of which split", note.name)
    return [note for note in found if note not in twice]


def read_transforms(files: FileList, found: Findings) -> list[Scene]:
    """The scenes of all these files, in the order of their names; what is wrong with frames is added to `found`.

    FormatError: a file that is no JSON, or has no list `frames`.
    """
    names = {entry.name for entry in files.images}
    scenes = [scene for note in transforms_files(files) for scene in _read_file(files, note, names, found)]
    counts = Counter(scene.name for scene in scenes)
    for scene in scenes:
        if counts[scene.name] > 1:  # lego/transforms_train.json and lego/train/transforms.json
            scene.name = f"{scene.file.removesuffix('.json')}/{scene.name}"
    return scenes


def _read_file(files: FileList, note: FileEntry, names: set[str], found: Findings) -> list[Scene]:
    record = _parsed(files, note)
    folder, _, file = note.name.rpartition("/")
    match = NAME.fullmatch(file)
    assert match is not None
    suffix = match[1] or ""
    split = split_of(suffix)
    whole = Scene(scene_name(folder, split or suffix), note.name, [], np.zeros((0, 4, 4)), split=split)
    frames = record["frames"]
    if any("time" in frame for frame in frames):
        log.warning("%s: the times of frames are not kept; what moves in the scene is in no action", note.name)
    whole.rows = [f"frame {i}" for i in range(len(frames))]
    images = [_image(frame, folder, names, whole.where(i), found) for i, frame in enumerate(frames)]
    whole.images = [image or "" for image in images]
    whole.poses = np.stack([_matrix(frame, whole.where(i), found) for i, frame in enumerate(frames)])
    whole.intrinsics = _intrinsics(record, frames, whole, found)
    check_frames(whole, found)
    return _by_lists(whole, record, frames, folder, found)


def _parsed(files: FileList, note: FileEntry) -> dict[str, Any]:
    try:
        record = strict_json("\n".join(text_lines(files, note)), nan=True)
    except ValueError as error:
        raise FormatError(f"{note.name} is not JSON ({error}); export it again") from error
    frames = record.get("frames") if isinstance(record, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise FormatError(f'{note.name} has no list "frames" of objects with file_path and transform_matrix')
    return record


def _image(frame: dict[str, Any], folder: str, names: set[str], where: str, found: Findings) -> str | None:
    """The picture's name below the root. Blender's file_path has no suffix."""
    path = frame.get("file_path")
    if not isinstance(path, str) or not path:
        found.mistakes.add(f"{where}: file_path must be a text, found {path!r:.40}", "file_path")
        return None
    name = below(folder, path)
    if name is None:
        found.mistakes.add(f"{where}: {path!r:.200} leaves the source; paths must lie below it", "outside")
        return None
    if name in names:
        return name
    complete = next((name + suffix for suffix in WITHOUT_SUFFIX if name + suffix in names), None)
    if complete is None:
        tried = "" if name.lower().endswith(SUFFIXES) else " (nor with .png, .jpg …)"
        found.missing.add(f"{where}: {name} is not there{tried}")
    return complete


def _matrix(frame: dict[str, Any], where: str, found: Findings) -> np.ndarray:
    """float64 [4, 4]; the identity for what is none, which is a mistake already."""
    value = frame.get("transform_matrix")
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.zeros(())
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0.0, 0.0, 0.0, 1.0]]])
    if matrix.shape != (4, 4):
        found.mistakes.add(f"{where}: transform_matrix must be 4×4 or 3×4 numbers, found {value!r:.60}", "matrix")
        return np.eye(4)
    return matrix


def _intrinsics(record: dict[str, Any], frames: list[Any], scene: Scene, found: Findings) -> dict[str, np.ndarray]:
    """float64 [F] of each that all frames have, their own or the file's."""
    kept = {}
    for key in INTRINSICS:
        values = [frame.get(key, record.get(key)) for frame in frames]
        if any(value is None for value in values):
            if any(value is not None for value in values):
                log.warning("%s: %s is left out, for only some frames have it", scene.file, key)
            continue
        good = [type(value) in (int, float) and abs(value) < LARGEST_NUMBER for value in values]
        wrong = [i for i, is_number in enumerate(good) if not is_number]
        for i in wrong:
            found.mistakes.add(f"{scene.where(i)}: {key} must be a finite number, found {values[i]!r:.40}", key)
        if not wrong:
            kept[key] = np.array(values, np.float64)
    return kept


def _by_lists(
    scene: Scene, record: dict[str, Any], frames: Sequence[dict[str, Any]], folder: str, found: Findings
) -> list[Scene]:
    """nerfstudio's train_filenames, val_filenames and test_filenames: a sequence for each. Without them, the scene."""
    named = {split: record.get(f"{split}_filenames") for split in SPLITS}
    lists = {split: paths for split, paths in named.items() if isinstance(paths, list)}
    if scene.split or not lists:
        return [scene]
    split_of: dict[str | None, str] = {}
    for split, paths in lists.items():
        for path in paths:
            name = below(folder, path) if isinstance(path, str) else None
            if (first := split_of.setdefault(name, split)) != split:
                found.mistakes.add(f"{scene.file}: {path!r:.200} is in {first}_filenames and {split}_filenames")
    of = [split_of.get(below(folder, str(frame.get("file_path")))) for frame in frames]
    unlisted = sum(split is None for split in of)
    spare = len(split_of) - len({below(folder, str(frame.get("file_path"))) for frame in frames} & set(split_of))
    if unlisted == len(frames):
        listed = next((path for paths in lists.values() for path in paths), "")
        raise FormatError(
            f"{scene.file}: none of its frames ({frames[0].get('file_path')!r:.80} …) is in its lists of file names "
            f"({listed!r:.80} …), which have to spell them alike"
        )
    if unlisted or spare:
        words = (
            "%s: %d frames are left out, for none of its lists of file names has them; %d names there are of no frame"
        )
        log.warning(words, scene.file, unlisted, spare)
    name = "" if scene.name == "scene" else scene.name
    parts = {split: some_frames(scene, [i for i, s in enumerate(of) if s == split]) for split in lists if split in of}
    return [replace(part, name=scene_name(name, split), split=split) for split, part in parts.items()]
