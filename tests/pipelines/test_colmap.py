"""COLMAP's text models against SciPy's rotations: camera-to-world poses, cameras, pictures, and what is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_images import make_folder

from pipelines.sources.files import list_files
from pipelines.sources.layouts.cameras import Findings, Scene
from pipelines.sources.layouts.colmap import TEXTS, camera_to_world, read_models
from shards.errors import FormatError

CAMERAS = """# Camera list with one line of data per camera:
#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]
1 PINHOLE 32 24 30.5 31 16 12
7 SIMPLE_RADIAL 32 24 29 15 11 0.05
"""


def random_cameras(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """World-to-camera (w, x, y, z) [count, 4] and t [count, 3]."""
    rng = np.random.default_rng(seed)
    return Rotation.random(count, rng=rng).as_quat()[:, [3, 0, 1, 2]], rng.normal(0, 2, (count, 3))


def write_model(folder: Path, names: list[str], cameras: list[int], seed: int = 0, text: str = CAMERAS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(text)
    lines = ["# Image list with two lines of data per image:"]
    quaternions, translations = random_cameras(len(names), seed)
    for i, (name, camera) in enumerate(zip(names, cameras, strict=True)):
        numbers = " ".join(map(repr, [*quaternions[i].tolist(), *translations[i].tolist()]))
        points = "" if i % 2 else "1.5 2.5 -1 3.0 4.0 17"
        lines += [f"{i + 1} {numbers} {camera} {name}", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    (folder / "points3D.txt").write_text("# nothing that is read\n")


def read(source: Path) -> tuple[list[Scene], list[str]]:
    found = Findings()
    return read_models(list_files(source, TEXTS), found), [*found.mistakes.first, *found.missing.first]


def test_world_to_camera_is_inverted() -> None:
    quaternions, translations = random_cameras(20)
    poses = camera_to_world(3 * quaternions, translations)  # their length does not matter
    for pose, (w, x, y, z), t in zip(poses, quaternions, translations, strict=True):
        world_to_camera = np.eye(4)
        world_to_camera[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
        world_to_camera[:3, 3] = t
        np.testing.assert_allclose(pose, np.linalg.inv(world_to_camera), atol=1e-12)


def test_a_camera_by_hand() -> None:
    """Turned by 90° about z and moved: x_c = R x_w + t, so that the camera stands at −Rᵀt = (−2, 1, −3)."""
    half = np.sqrt(0.5)
    (pose,) = camera_to_world(np.array([[half, 0, 0, half]]), np.array([[1.0, 2.0, 3.0]]))
    expected = [[0, 1, 0, -2], [-1, 0, 0, 1], [0, 0, 1, -3], [0, 0, 0, 1]]
    np.testing.assert_allclose(pose, expected, atol=1e-12)


@pytest.mark.parametrize("model", ["sparse/0", "sparse", "", "colmap/sparse/0"])
@pytest.mark.parametrize("pictures", ["images", ""])
def test_where_models_and_pictures_may_lie(tmp_path: Path, model: str, pictures: str) -> None:
    names = ["b 2.png", "a/1.png", "c.png"]
    make_folder(tmp_path / "scene" / pictures, names)
    write_model(tmp_path / "scene" / model, names, [1, 7, 1])
    (tmp_path / "scene" / "more").mkdir()
    make_folder(tmp_path / "scene" / "more", ["beside.png"])
    (scene,), mistakes = read(tmp_path / "scene")
    assert mistakes == []
    assert (scene.name, scene.split) == ("scene", None)
    prefix = f"{pictures}/" if pictures else ""
    assert scene.images == [f"{prefix}a/1.png", f"{prefix}b 2.png", f"{prefix}c.png"]  # by name
    assert np.array_equal(scene.poses, camera_to_world(*random_cameras(3))[[1, 0, 2]])
    assert {name: values.tolist() for name, values in scene.intrinsics.items()} == {
        "w": [32, 32, 32],
        "h": [24, 24, 24],
        "fl_x": [29, 30.5, 30.5],
        "fl_y": [29, 31, 31],
        "cx": [15, 16, 16],
        "cy": [11, 12, 12],
    }


def test_scenes_and_models_of_one_scene_are_sequences(tmp_path: Path) -> None:
    make_folder(tmp_path, ["hall/images/1.png", "hall/images/2.png", "yard/images/1.png"])
    write_model(tmp_path / "hall/sparse/0", ["1.png"], [1])
    write_model(tmp_path / "hall/sparse/1", ["2.png"], [1], seed=1)
    write_model(tmp_path / "yard/sparse/0", ["1.png"], [1], seed=2)
    scenes, mistakes = read(tmp_path)
    assert mistakes == []
    assert [(scene.name, scene.images) for scene in scenes] == [
        ("hall", ["hall/images/1.png"]),
        ("hall/1", ["hall/images/2.png"]),
        ("yard", ["yard/images/1.png"]),
    ]


def test_a_binary_model_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_folder(tmp_path / "images", ["1.png"])
    (tmp_path / "sparse/0").mkdir(parents=True)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        (tmp_path / "sparse/0" / name).write_bytes(b"\0" * 8)
    folder = tmp_path / "sparse/0"
    with pytest.raises(
        FormatError, match=f"colmap model_converter --input_path {folder} --output_path {folder} --output_type TXT"
    ):
        read(tmp_path)
    write_model(tmp_path / "other/sparse/0", ["1.png"], [1])  # the pictures are found in the folder above
    assert [scene.name for scene in read(tmp_path)[0]] == ["other"]
    assert (
        f"1 binary COLMAP models are left out; they are read as text: colmap model_converter --input_path {folder}"
        in (caplog.text)
    )
    write_model(folder, ["1.png"], [1])
    assert read(tmp_path)[1] == []


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    make_folder(tmp_path / "images", ["1.png", "2.png", "4.png"])
    write_model(tmp_path, ["1.png", "2.png", "3.png", "../../x.png", "4.png"], [1, 9, 1, 1, 1])
    file = tmp_path / "images.txt"
    lines = file.read_text().splitlines()
    lines[9] = "5 0 0 0 0 1 2 3 1 4.png"
    file.write_text("\n".join(lines))
    _, mistakes = read(tmp_path)
    assert sorted(mistakes) == [
        "images.txt, line 10: its pose is no rotation and translation (RᵀR must be 1, det R positive, the last row "
        "0 0 0 1, all finite)",
        "images.txt, line 4: camera '9' is not in cameras.txt",
        "images.txt, line 6: images/3.png is not there",
        "images.txt, line 8: '../../x.png' leaves the source",
    ]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("images.txt", "1 1 0 0 0 0 0 0 1\n\n", "images.txt, line 1: needs IMAGE_ID"),
        ("images.txt", "1 1 0 0 zero 0 0 0 1 1.png\n\n", "images.txt, line 1: 'zero' is no finite number"),
        ("images.txt", "1 1 0 0 nan 0 0 0 1 1.png\n\n", "'nan' is no finite number"),
        ("images.txt", "# none\n", "holds no images"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 lost.png\n\n", "'lost.png' first, are in none of images, ."),
        ("images.txt", 2 * "1 1 0 0 0 0 0 0 1 1.png\n", "images.txt, line 2: needs the points of images.txt, line 1"),
        ("images.txt", "1 1 0 0 0 0 0 0 1 1.png\n2 1 0 0 0 0 0 0 1 a b 2.png\n", "were empty lines taken out"),
        ("cameras.txt", "1 PINHOLE 32 24 30 30 16 12\n1 PINHOLE 64 48 60 60 32 24\n", "line 2: camera 1 occurs twice"),
        ("cameras.txt", "1 PINHOLE 32\n", "cameras.txt, line 1: needs CAMERA_ID"),
        ("cameras.txt", "1 PINHOLE 32 24 30\n", "PINHOLE has 4 parameters"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, file: str, text: str, said: str) -> None:
    make_folder(tmp_path / "images", ["1.png"])
    write_model(tmp_path, ["1.png"], [1])
    (tmp_path / file).write_text(text)
    with pytest.raises(FormatError, match=said):
        read(tmp_path)
    (tmp_path / "cameras.txt").unlink()
    with pytest.raises(FormatError, match=r"has no cameras\.txt beside it"):
        read(tmp_path)


def test_of_an_unknown_camera_the_size_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path / "images", ["1.png"])
    write_model(tmp_path, ["1.png"], [1], text="1 DIVISION_BY_RABBITS 32 24 1 2 3\n")
    with caplog.at_level(logging.WARNING):
        (scene,), mistakes = read(tmp_path)
    assert mistakes == []
    assert sorted(scene.intrinsics) == ["h", "w"]
    assert "DIVISION_BY_RABBITS" in caplog.text
