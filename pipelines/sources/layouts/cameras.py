"""Photographs with known cameras: what nerf.py and colmap.py find, whichever wrote it down.

A pose is camera-to-world, [R | t] row by row: the columns of R are the camera's axes and t is where it stands, both in
the scene's own frame and unit of length. Which way the axes point is the layout's: OpenGL's (x right, y up, looking
along −z) in NeRF's files, OpenCV's (x right, y down, looking along z) in COLMAP's. Actions of `relative_pose` are in
the frame of the first view's camera. Letters: F frames of a scene.
"""

from __future__ import annotations

import logging
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipelines.sources.declared_actions import LARGEST_NUMBER, no_rotation
from pipelines.sources.files import FileEntry, FileList
from pipelines.sources.mistakes import Mistakes
from shards.errors import FormatError
from shards.machine.environment import system_errors_as
from shards.schema import ActionSpec, ActionTerm, ParamField

POSE = tuple(f"pose.{i}" for i in range(12))
POSE_ACTION = ActionSpec((ActionTerm("relative_pose", POSE, form="matrix"),))
INTRINSICS = {
    **dict.fromkeys(("w", "h", "fl_x", "fl_y", "cx", "cy"), "px"),
    **dict.fromkeys(("camera_angle_x", "camera_angle_y"), "rad"),
    **dict.fromkeys(("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2"), "1"),
}
"""Of the image as it lies there, by the names that NeRF's files have, with their units. Resizing leaves them alone."""
LARGEST_TEXT = 1 << 30  # bytes; a frame takes some 300 in JSON, an image of COLMAP's a few 100 thousand

log = logging.getLogger(__name__)


@dataclass
class Scene:
    """One sequence of photographs: frame i is `images[i]`, taken from `poses[i]`.

    name        of the sequence; file: what says so, below the source, for messages
    images      names below the source's root; "" for one that is not there
    poses       float64 [F, 4, 4], camera-to-world
    intrinsics  float64 [F] each, by a name of INTRINSICS: those that every frame has
    split       train, val or test where the layout says so; None: to be chosen
    rows        where in `file` each frame stands, for messages ("frame 3")
    """

    name: str
    file: str
    images: list[str]
    poses: np.ndarray
    intrinsics: dict[str, np.ndarray] = field(default_factory=dict)
    split: str | None = None
    rows: Sequence[str] = ()

    def where(self, frame: int) -> str:
        return f"{self.file}, {self.rows[frame]}"


@dataclass(frozen=True)
class Findings:
    """What is wrong with frames. missing: that their pictures are not there, which may be allowed for."""

    mistakes: Mistakes = field(default_factory=Mistakes)
    missing: Mistakes = field(default_factory=Mistakes)


def without_missing(scenes: Sequence[Scene]) -> list[Scene]:
    """The scenes without frames that have no picture, and without those that have no frame then."""
    kept = [some_frames(scene, [i for i, image in enumerate(scene.images) if image]) for scene in scenes]
    return [scene for scene in kept if scene.images]


def some_frames(scene: Scene, frames: Sequence[int]) -> Scene:
    """The same scene with these frames only."""
    return replace(
        scene,
        images=[scene.images[i] for i in frames],
        poses=scene.poses[list(frames)],
        intrinsics={name: values[list(frames)] for name, values in scene.intrinsics.items()},
        rows=[scene.rows[i] for i in frames],
    )


def split_intrinsics(scenes: Sequence[Scene]) -> tuple[tuple[ParamField, ...], dict[str, float]]:
    """(those that differ between frames, as parameters; those that are the same in all frames of all scenes).

    In the order of INTRINSICS; a line is logged about those that only some scenes have.
    """
    every = set.intersection(*(set(scene.intrinsics) for scene in scenes)) if scenes else set()
    some = {name for scene in scenes for name in scene.intrinsics} - every
    if some:
        log.warning("left out, for not all scenes have them: %s", ", ".join(sorted(some)))
    values = {
        name: np.unique(np.concatenate([scene.intrinsics[name] for scene in scenes]))
        for name in INTRINSICS
        if name in every
    }
    fields = tuple(ParamField(name, INTRINSICS[name]) for name, found in values.items() if len(found) > 1)
    return fields, {name: float(found[0]) for name, found in values.items() if len(found) == 1}


def pose_params(scene: Scene, fields: Sequence[ParamField]) -> np.ndarray:
    """float64 [F, 12 + intrinsics]: the pose's first three rows, then the intrinsics of `fields`."""
    columns = [scene.poses[:, :3].reshape(-1, 12), *(scene.intrinsics[name.name][:, None] for name in fields)]
    return np.concatenate(columns, axis=1)


def pose_fields(intrinsics: Sequence[ParamField]) -> tuple[ParamField, ...]:
    return (*(ParamField(name, "1") for name in POSE), *intrinsics)


def not_rigid(poses: np.ndarray) -> np.ndarray:
    """bool [F]: which of float64 [F, 4, 4] are no rotation and translation: scaled, mirrored, NaN …"""
    flat = poses.reshape(-1, 16)
    bounded = np.all(np.abs(flat) < LARGEST_NUMBER, axis=1)  # NaN is not
    return ~bounded | no_rotation(np.where(bounded[:, None], flat, 0))


def check_frames(scene: Scene, found: Findings) -> None:
    """Finds what is wrong with single frames: poses that are none, a picture that occurs twice."""
    for frame in np.flatnonzero(not_rigid(scene.poses)).tolist():
        found.mistakes.add(
            f"{scene.where(frame)}: its pose is no rotation and translation (RᵀR must be 1, det R positive, the last "
            "row 0 0 0 1, all finite)",
            "pose",
        )
    first: dict[str, int] = {}
    for frame, name in enumerate(scene.images):
        if name and first.setdefault(name, frame) != frame:
            found.mistakes.add(f"{scene.where(frame)}: {name} occurs twice, first as {scene.rows[first[name]]}")


def below(folder: str, path: str) -> str | None:
    """`path`, as a file in `folder` names it, relative to the source's root; None if it is absolute or leaves it."""
    path = path.replace("\\", "/")
    if path.startswith("/") or path[1:2] == ":" or "\0" in path:
        return None
    name = posixpath.normpath(posixpath.join(folder, path))
    return None if name.startswith("../") or name in ("..", ".") else name


def text_lines(files: FileList, note: FileEntry) -> Iterator[str]:
    """Lines of a text file of the source, without their ends. FormatError: unreadable, too large, or not UTF-8."""
    reader = files.reader
    path = reader.path / f"{reader.root}{note.name}"
    try:
        if not reader.path.is_dir():
            data = files.read_note(note, f"{reader.path}: {note.name}", "unpack the archive and give the folder")
            yield from data.decode().splitlines()
            return
        with system_errors_as(lambda why: FormatError(f"{path} cannot be read ({why})")):
            if path.stat().st_size > LARGEST_TEXT:
                raise FormatError(f"{path} is larger than {LARGEST_TEXT >> 20} MiB; split the scene")
            with path.open(encoding="utf-8-sig") as file:
                yield from (line.rstrip("\r\n") for line in file)
    except UnicodeError as error:
        raise FormatError(f"{path} is not UTF-8 text ({error}); export it again") from error


def scene_name(*parts: str) -> str:
    """Folders, and what tells scenes of one folder apart, as one name: "lego/train"; "scene" where there is nothing."""
    return "/".join(part for part in parts if part) or "scene"


def note_named(notes: Sequence[FileEntry], *names: str) -> list[FileEntry]:
    """Those whose file names are among `names`."""
    return [note for note in notes if note.name.rpartition("/")[2] in names]
