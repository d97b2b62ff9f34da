"""A scene that was never photographed: coloured discs at known places, seen by known cameras, in NeRF's or COLMAP's
files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation

SIDE, FOCAL = 64, 70.0
PLACES = np.array([[0.0, 0, 0], [0.9, 0.1, -0.2], [-0.7, 0.5, 0.3], [0.1, -0.8, 0.4], [-0.4, -0.3, -0.9]])
COLOURS = np.array([[250, 250, 250], [250, 0, 0], [0, 250, 0], [0, 0, 250], [250, 250, 0]], np.uint8)
GL_TO_CV = np.diag([1.0, -1.0, -1.0, 1.0])
"""A camera's axes: OpenGL's (x right, y up, z back) in those of OpenCV (x right, y down, z ahead)."""


def cameras(count: int, seed: int = 0) -> np.ndarray:
    """Camera-to-world, OpenGL's axes, float64 [count, 4, 4]: all about 4 away, looking at the middle, held askew."""
    rng = np.random.default_rng(seed)
    found = np.tile(np.eye(4), (count, 1, 1))
    for pose in found:
        back = rng.normal(size=3)
        back /= np.linalg.norm(back)
        right = np.cross(rng.normal(size=3), back)
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(back, right), back], axis=1)
        pose[:3, 3] = 4 * back + rng.normal(0, 0.05, 3)
    return found


def pixels_of(points: np.ndarray) -> np.ndarray:
    """Points in a camera's own frame (OpenGL's axes) [n, 3] → (column, row) [n, 2]."""
    return SIDE / 2 + FOCAL * points[:, :2] * [1, -1] / -points[:, 2:]


def in_frame(pose: np.ndarray, points: np.ndarray = PLACES) -> np.ndarray:
    """World points [n, 3] → the frame of a camera [n, 3]."""
    return (points - pose[:3, 3]) @ pose[:3, :3]


def photograph(pose: np.ndarray) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (40, 40, 40))
    draw = ImageDraw.Draw(picture)
    points = in_frame(pose)
    for i in np.argsort(points[:, 2]):  # the farthest first
        column, row = pixels_of(points[i : i + 1])[0]
        draw.ellipse((column - 3, row - 3, column + 3, row + 3), tuple(COLOURS[i].tolist()))
    return picture


def write_nerf(root: Path, poses: np.ndarray, file: str = "transforms.json", folder: str = "images") -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    frames = []
    for i, pose in enumerate(poses):
        photograph(pose).save(root / folder / f"{i:03}.png")
        frames.append({"file_path": f"{folder}/{i:03}.png", "transform_matrix": pose.tolist()})
    record = {"fl_x": FOCAL, "fl_y": FOCAL, "cx": SIDE / 2, "cy": SIDE / 2, "w": SIDE, "h": SIDE, "frames": frames}
    (root / file).write_text(json.dumps(record))


def write_colmap(root: Path, poses: np.ndarray) -> None:
    (root / "images").mkdir(parents=True)
    (root / "sparse/0").mkdir(parents=True)
    lines = []
    for i, pose in enumerate(poses):
        photograph(pose).save(root / f"images/{i:03}.png")
        seen_from = np.linalg.inv(pose @ GL_TO_CV)
        x, y, z, w = Rotation.from_matrix(seen_from[:3, :3]).as_quat()
        numbers = " ".join(repr(float(v)) for v in (w, x, y, z, *seen_from[:3, 3]))
        lines += [f"{len(poses) - i} {numbers} 1 {i:03}.png", ""]
    (root / "sparse/0/images.txt").write_text("\n".join(lines) + "\n")
    (root / "sparse/0/cameras.txt").write_text(f"1 SIMPLE_PINHOLE {SIDE} {SIDE} {FOCAL} {SIDE / 2} {SIDE / 2}\n")
