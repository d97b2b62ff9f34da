"""NeRF's transforms.json: whose files there are, what they say, and what is wrong with them, frame by frame."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from small_images import make_folder, make_tar

from pipelines.sources.files import list_files
from pipelines.sources.layouts.cameras import Findings, Scene, pose_fields, pose_params, split_intrinsics
from pipelines.sources.layouts.nerf import read_transforms
from shards.errors import FormatError
from shards.schema import ParamField

TEXTS = (".json",)


def poses(count: int, seed: int = 0) -> np.ndarray:
    """float64 [count, 4, 4] of random rotations and places."""
    rng = np.random.default_rng(seed)
    found = np.tile(np.eye(4), (count, 1, 1))
    found[:, :3, :3] = Rotation.random(count, rng=rng).as_matrix()
    found[:, :3, 3] = rng.normal(0, 3, (count, 3))
    return found


def transforms(paths: list[str], matrices: np.ndarray, **more: Any) -> dict[str, Any]:
    frames = [
        {"file_path": path, "transform_matrix": matrix.tolist()} for path, matrix in zip(paths, matrices, strict=True)
    ]
    return {**more, "frames": frames}


def write(path: Path, record: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), encoding="utf-8")


def read(source: Path) -> tuple[list[Scene], list[str]]:
    found = Findings()
    return read_transforms(list_files(source, TEXTS), found), [*found.mistakes.first, *found.missing.first]


@pytest.fixture
def blender(tmp_path: Path) -> Path:
    """Two scenes in the Blender sets' layout: no suffixes, one angle of view, three files."""
    for number, scene in enumerate(("lego", "ship")):
        for split, count in (("train", 3), ("val", 2), ("test", 2)):
            make_folder(tmp_path / "nerf" / scene / split, [f"r_{i}.png" for i in range(count)])
            paths = [f"./{split}/r_{i}" for i in range(count)]
            record = transforms(paths, poses(count, 10 * number + count), camera_angle_x=0.69)
            write(tmp_path / "nerf" / scene / f"transforms_{split}.json", record)
    return tmp_path / "nerf"


def test_the_blender_sets_are_a_sequence_for_each_file(blender: Path) -> None:
    scenes, mistakes = read(blender)
    assert mistakes == []
    assert [(scene.name, scene.split) for scene in scenes] == [
        (f"{scene}/{split}", split) for scene in ("lego", "ship") for split in ("test", "train", "val")
    ]
    train = scenes[4]
    assert train.images == [f"ship/train/r_{i}.png" for i in range(3)]
    assert np.array_equal(train.poses, poses(3, 13))
    assert train.intrinsics == {"camera_angle_x": pytest.approx([0.69] * 3)}
    assert split_intrinsics(scenes) == ((), {"camera_angle_x": 0.69})
    train.intrinsics["camera_angle_x"][1] = 0.7
    fields, constants = split_intrinsics(scenes)
    assert (fields, constants) == ((ParamField("camera_angle_x", "rad"),), {})
    assert [field.name for field in pose_fields(fields)] == [*(f"pose.{i}" for i in range(12)), "camera_angle_x"]
    params = pose_params(train, fields)
    assert np.array_equal(params[1, :12], poses(3, 13)[1, :3].ravel())
    assert params[:, 12].tolist() == [0.69, 0.7, 0.69]


def test_a_tar_of_them_is_read_as_the_folder(blender: Path, tmp_path: Path) -> None:
    from_tar, mistakes = read(make_tar(blender, tmp_path / "nerf.tar"))
    assert mistakes == []
    for scene, same in zip(from_tar, read(blender)[0], strict=True):
        assert (scene.name, scene.images) == (same.name, same.images)
        assert np.array_equal(scene.poses, same.poses)


def test_intrinsics_are_a_frames_own_or_the_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path / "images", ["a.jpg", "b.jpg"])
    record = transforms(["images/a.jpg", "images/b.jpg"], poses(2), fl_x=30.0, cx=16, w=32, h=24, aabb_scale=4)
    record["frames"][1] |= {"fl_x": 31.5, "k1": 0.1, "time": 0.5}  # a time as D-NeRF's scenes have, which move
    write(tmp_path / "transforms.json", record)
    (scene,), mistakes = read(tmp_path)
    assert mistakes == []
    assert (scene.name, scene.split) == ("scene", None)
    assert {name: values.tolist() for name, values in scene.intrinsics.items()} == {
        "w": [32, 32],
        "h": [24, 24],
        "fl_x": [30.0, 31.5],
        "cx": [16, 16],
    }
    assert "transforms.json: the times of frames are not kept" in caplog.text


def test_rows_of_three_do_for_a_matrix(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a.png"])
    write(tmp_path / "transforms.json", transforms(["a.png"], poses(1)[:, :3]))
    (scene,), mistakes = read(tmp_path)
    assert mistakes == []
    assert np.array_equal(scene.poses, poses(1))


def test_lists_of_file_names_are_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """nerfstudio's: frames of no list are left out, and said."""
    names = [f"images/{i}.png" for i in range(5)]
    make_folder(tmp_path / "one", names)
    lists = {"train_filenames": ["images/3.png", "./images/0.png"], "val_filenames": ["images/1.png", "images/9.png"]}
    write(tmp_path / "one/transforms.json", transforms(names, poses(5), fl_x=3.0, **lists))
    make_folder(tmp_path / "two", ["a.png"])
    with caplog.at_level(logging.WARNING):
        scenes, mistakes = read(tmp_path)
    assert mistakes == []
    assert [(scene.split, scene.images) for scene in scenes] == [
        ("train", ["one/images/0.png", "one/images/3.png"]),
        ("val", ["one/images/1.png"]),
    ]
    assert np.array_equal(scenes[0].poses, poses(5)[[0, 3]])
    assert scenes[0].where(1).endswith("transforms.json, frame 3")
    assert "2 frames are left out" in caplog.text
    assert "1 names there are of no frame" in caplog.text
    lists["val_filenames"].append("images/0.png")
    write(tmp_path / "one/transforms.json", transforms(names, poses(5), **lists))
    assert "is in train_filenames and val_filenames" in read(tmp_path)[1][0]
    write(tmp_path / "one/transforms.json", transforms(names, poses(5), train_filenames=["one/images/0.png"]))
    with pytest.raises(FormatError, match=r"none of its frames \('images/0\.png' …\) is in its lists .*'one/images/0"):
        read(tmp_path)


def test_the_file_of_all_frames_gives_way_to_those_of_splits(blender: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(blender / "lego/transforms.json", transforms(["train/r_0"], poses(1)))
    with caplog.at_level(logging.WARNING):
        scenes, _ = read(blender)
    assert len(scenes) == 6
    assert "lego/transforms.json is left out" in caplog.text


def test_every_mistake_is_named_with_its_frame(tmp_path: Path) -> None:
    make_folder(tmp_path / "s", ["a.png", "b.png", "c.png", "d.png", "e.png"])
    paths = ["a.png", "a", "gone.png", "gone", "../../etc/passwd", "/etc/passwd", "b.png", "c.png", "d.png", "e.png"]
    matrices = poses(10)
    matrices[6, :3, :3] *= 2  # scaled
    matrices[7, :3, 0] *= -1  # mirrored
    matrices[8, 0, 3] = np.nan
    record = transforms(paths, matrices)
    record["frames"][9]["transform_matrix"] = [[1, 0], [0, "x"]]
    record["frames"].append({"file_path": 7, "transform_matrix": poses(1)[0].tolist(), "fl_x": "wide"})
    record["fl_x"] = 20
    write(tmp_path / "s/transforms.json", record)
    make_folder(tmp_path, ["other.png"])
    scenes, mistakes = read(tmp_path)
    assert len(scenes) == 1
    said = {f"frame {i}": [] for i in range(11)}
    for mistake in mistakes:
        file, _, rest = mistake.partition(", ")
        assert file == "s/transforms.json"
        frame, _, what = rest.partition(": ")
        said[frame].append(what)
    assert said["frame 0"] == []
    assert said["frame 1"] == ["s/a.png occurs twice, first as frame 0"]
    assert said["frame 2"] == ["s/gone.png is not there"]
    assert said["frame 3"] == ["s/gone is not there (nor with .png, .jpg …)"]
    assert "leaves the source" in said["frame 4"][0]
    assert "leaves the source" in said["frame 5"][0]
    for frame in ("frame 6", "frame 7", "frame 8"):
        assert len(said[frame]) == 1, said[frame]
        assert "no rotation and translation" in said[frame][0]
    assert "4×4 or 3×4 numbers" in said["frame 9"][0]
    assert [what.split(",")[0] for what in said["frame 10"]] == [
        "file_path must be a text",
        "fl_x must be a finite number",
    ]


@pytest.mark.parametrize(
    ("matrix", "said"),
    [
        (10**400, "frame 0: transform_matrix must be 4×4 or 3×4 numbers"),
        ([[0] * 4] * 4, "frame 0: its pose is no rotation and translation"),
        ([[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "frame 0: its pose is no rotation"),
        (None, "frame 0: transform_matrix must be 4×4 or 3×4 numbers, found None"),
    ],
)
def test_matrices_that_are_none(tmp_path: Path, matrix: Any, said: str) -> None:
    make_folder(tmp_path, ["a.png"])
    write(tmp_path / "transforms.json", {"frames": [{"file_path": "a.png", "transform_matrix": matrix}]})
    assert said in read(tmp_path)[1][0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[" * 100000, "is not JSON"),
        ("[]", 'no list "frames"'),
        ('{"frames": []}', 'no list "frames"'),
        ('{"frames": [3]}', 'no list "frames"'),
        ('{"frames": [{"x": 1}], "frames": [{"x": 2}]}', "the key 'frames' occurs twice in one object"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    make_folder(tmp_path, ["a.png"])
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(FormatError, match=said) as caught:
        read(tmp_path)
    assert len(str(caught.value)) < 300


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    make_folder(tmp_path, ["a.png"])
    (tmp_path / "transforms.json").write_bytes(b'{"frames": "\xff\xfe"}')
    with pytest.raises(FormatError, match="not UTF-8"):
        read(tmp_path)
