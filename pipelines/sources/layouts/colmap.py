"""COLMAP's text models: cameras.txt and images.txt, as `colmap model_converter --output_type TXT` writes them.

images.txt has world-to-camera rotations, quaternions (w, x, y, z), and translations (https://colmap.github.io/format.html);
they are inverted to camera-to-world poses. A model is a sequence, its pictures in the order of their names. The model
may lie in SCENE/sparse/0, SCENE/sparse or SCENE, the pictures in SCENE/images or SCENE; points3D.txt is not read.
"""

from __future__ import annotations

import logging
import math
import posixpath
from collections.abc import Iterator, Sequence

import numpy as np

from pipelines.sources.declared_actions import LARGEST_NUMBER
from pipelines.sources.files import FileEntry, FileList
from pipelines.sources.layouts.cameras import (
    INTRINSICS,
    Findings,
    Scene,
    below,
    check_frames,
    note_named,
    scene_name,
    text_lines,
)
from shards.errors import FormatError

IMAGES, CAMERAS = "images.txt", "cameras.txt"
BINARY = ("images.bin", "cameras.bin")
BESIDE = tuple(f"{name}.{kind}" for name in ("points3D", "rigs", "frames") for kind in ("txt", "bin"))
TEXTS = (IMAGES, CAMERAS, *BINARY, *BESIDE)
"""Files of a model, of which the first two are read."""
UNTOLD = ("sparse", "colmap", "text", "0")  # folders that tell no scene from another
MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fl_x fl_y cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fl_x fl_y cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fl_x fl_y cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fl_x fl_y cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fl_x fl_y cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k1",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fl_x fl_y cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
}
"""What the parameters of a camera are, by its model (colmap/src/colmap/sensor/models.h)."""

log = logging.getLogger(__name__)


def model_folders(files: FileList) -> list[str]:
    """Folders below the root that hold a text model, in ascending order. A line says which hold a binary one alone.

    FormatError: there are only such; the line has the command that converts one.
    """
    text = {posixpath.dirname(note.name) for note in note_named(files.notes, IMAGES)}
    binary = {posixpath.dirname(note.name) for note in note_named(files.notes, *BINARY)} - text
    if binary:
        folder = files.reader.path / f"{files.reader.root}{min(binary)}"
        command = f"colmap model_converter --input_path {folder} --output_path {folder} --output_type TXT"
        if not text:
            raise FormatError(f"{folder} is a binary COLMAP model; write it as text: {command}")
        log.warning("%d binary COLMAP models are left out; they are read as text: %s", len(binary), command)
    return sorted(text)


def read_models(files: FileList, found: Findings) -> list[Scene]:
    """The scenes of all text models; what is wrong with single images is added to `found`.

    FormatError: a model without cameras.txt, without images, or whose lines are not COLMAP's.
    """
    names = {entry.name for entry in files.images}
    notes = {note.name: note for note in files.notes}
    folders = model_folders(files)
    scenes = [_read_model(files, notes, folder, names, found) for folder in folders]
    if len({scene.name for scene in scenes}) < len(scenes):
        for scene, folder in zip(scenes, folders, strict=True):
            scene.name = scene_name(folder)
    return scenes


def _read_model(files: FileList, notes: dict[str, FileEntry], folder: str, names: set[str], found: Findings) -> Scene:
    file, cameras_file = posixpath.join(folder, IMAGES), posixpath.join(folder, CAMERAS)
    if cameras_file not in notes:
        raise FormatError(f"{file} has no {CAMERAS} beside it; export the whole model as text")
    cameras: dict[str, dict[str, float]] = {}
    for where, identity, camera in _cameras(files, notes[cameras_file]):
        if cameras.setdefault(identity, camera) is not camera:
            raise FormatError(f"{where}: camera {identity:.40} occurs twice; remove one of the two")
    rows = list(_images(files, notes[file]))
    if not rows:
        raise FormatError(f"{file} holds no images; nothing was registered, or it is not COLMAP's")
    rows.sort(key=lambda row: row[2])
    numbers = np.array([row[1] for row in rows], np.float64)
    scene = Scene(
        scene_name(*(part for part in folder.split("/") if part not in UNTOLD)),
        file,
        [row[2] for row in rows],
        camera_to_world(numbers[:, :4], numbers[:, 4:]),
        rows=[f"line {row[0]}" for row in rows],
    )
    scene.intrinsics = _intrinsics(cameras, [row[3] for row in rows], scene, found)
    scene.images = _placed(scene, folder, names, found)
    check_frames(scene, found)
    return scene


def camera_to_world(quaternions: np.ndarray, translations: np.ndarray) -> np.ndarray:
    """COLMAP's world-to-camera: (w, x, y, z) [F, 4] of any length and t [F, 3] → its inverse, float64 [F, 4, 4].

    R_wc = Rᵀ and the camera stands at −Rᵀt. A quaternion of zeros gives NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        w, x, y, z = (quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).T
    R = np.empty((len(quaternions), 3, 3))
    R[:, 0] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=1)
    R[:, 1] = np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=1)
    R[:, 2] = np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1)
    poses = np.tile(np.eye(4), (len(R), 1, 1))
    poses[:, :3, :3] = R.swapaxes(1, 2)
    poses[:, :3, 3] = -np.einsum("fji,fj->fi", R, translations)
    return poses


def _images(files: FileList, note: FileEntry) -> Iterator[tuple[int, list[float], str, str]]:
    """(line, qw qx qy qz tx ty tz, name, camera) of each; the line after it has its points, and may be empty."""
    lines = enumerate(text_lines(files, note), 1)
    for number, line in lines:
        words, where = line.split(maxsplit=9), f"{note.name}, line {number}"
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 10:
            raise FormatError(f"{where}: needs IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, found {line!r:.80}")
        yield number, [_number(word, where) for word in words[1:8]], words[9].strip(), words[8]
        number, line = next(lines, (number, ""))
        words = line.split()
        if words and (len(words) % 3 or not words[-1].lstrip("-").isdecimal()):
            raise FormatError(
                f"{note.name}, line {number}: needs the points of {where}, X Y POINT3D_ID … or nothing, found "
                f"{line!r:.80}; were empty lines taken out? export the model again"
            )


def _cameras(files: FileList, note: FileEntry) -> Iterator[tuple[str, str, dict[str, float]]]:
    """(where it stands, CAMERA_ID, its intrinsics by the names of INTRINSICS)"""
    for number, line in enumerate(text_lines(files, note), 1):
        words, where = line.split(), f"{note.name}, line {number}"
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 4:
            raise FormatError(f"{where}: needs CAMERA_ID MODEL WIDTH HEIGHT PARAMS[], found {line!r:.80}")
        identity, model, *values = words
        numbers = [_number(word, where) for word in values]
        known = MODELS.get(model, "").split()
        if model not in MODELS:
            log.warning("%s: of cameras of model %.40s only the size is kept", where, model)
        elif (count := len(numbers) - 2) != len(known):
            raise FormatError(f"{where}: {model} has {len(known)} parameters ({' '.join(known)}), found {count}")
        camera = dict(zip(("w", "h", *known), numbers, strict=False))
        if "f" in camera:
            camera["fl_x"] = camera["fl_y"] = camera.pop("f")
        yield where, identity, {name: value for name, value in camera.items() if name in INTRINSICS}


def _number(word: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not abs(value) < LARGEST_NUMBER:
        raise FormatError(f"{where}: {word!r:.40} is no finite number")
    return value


def _intrinsics(
    cameras: dict[str, dict[str, float]], of: Sequence[str], scene: Scene, found: Findings
) -> dict[str, np.ndarray]:
    """float64 [F] of each that all cameras in use have."""
    for frame, camera in enumerate(of):
        if camera not in cameras:
            found.mistakes.add(f"{scene.where(frame)}: camera {camera!r:.40} is not in {CAMERAS}", "camera")
    used = [cameras[camera] for camera in of if camera in cameras]
    every = set.intersection(*map(set, used)) if len(used) == len(of) else set()
    return {name: np.array([camera[name] for camera in used]) for name in INTRINSICS if name in every}


def _placed(scene: Scene, folder: str, names: set[str], found: Findings) -> list[str]:
    """Where the pictures lie: in `images` or beside, of the nearest folder above the model that has any of them."""
    above = [folder]
    while above[-1]:
        above.append(posixpath.dirname(above[-1]))
    bases = list(dict.fromkeys(posixpath.join(base, inner) for base in above for inner in ("images", "")))
    places = {base: [below(base, image) for image in scene.images] for base in bases}
    base = next((base for base in bases if any(name in names for name in places[base])), None)
    if base is None:
        looked = ", ".join(base or "." for base in bases)
        raise FormatError(f"{scene.file}: its pictures, {scene.images[0]!r:.80} first, are in none of {looked}")
    for frame, name in enumerate(places[base]):
        if name is None:
            found.mistakes.add(f"{scene.where(frame)}: {scene.images[frame]!r:.200} leaves the source", "outside")
        elif name not in names:
            found.missing.add(f"{scene.where(frame)}: {name} is not there")
    return [name if name is not None and name in names else "" for name in places[base]]
