"""Captures with camera matrices, and values in file names, made into shards: pixels, poses, actions between views."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from small_capture import COLOURS, GL_TO_CV, SIDE, cameras, in_frame, photograph, pixels_of, write_colmap, write_nerf
from small_images import make_folder, make_tar, picture
from typer.testing import CliRunner, Result

import cli
from pipelines.build.views import shard_views
from pipelines.sources.layouts import LayoutOptions, read_views
from pipelines.sources.layouts.cameras import POSE, POSE_ACTION
from pipelines.sources.manifest import ManifestOptions
from pipelines.sources.table import TableSource, ViewTable
from seqjepa.data.actions import actions_between
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.reading.split_index import SplitIndex
from shards.schema import ActionSpec, ActionTerm
from shards.verify import verify


def table_of(source: Path, **asked: Any) -> ViewTable:
    layout = {name: asked.pop(name) for name in ("layout", "pattern", "max_bad") if name in asked}
    return read_views(source, ManifestOptions(**asked), LayoutOptions(**layout)).checked()


def shards_of(source: Path, out: Path, **asked: Any) -> ShardSet:
    table = table_of(source, **asked)
    shard_views(TableSource(source, table, name="manifest"), out, workers=0, encoding="raw", size=None)
    assert verify(out).ok
    return ShardSet.open(out)


def by_hand(poses: np.ndarray) -> np.ndarray:
    """M₁⁻¹M₂ of neighbours, float64 [F − 1, 4, 4]."""
    return np.linalg.inv(poses[:-1]) @ poses[1:]


def as_matrices(actions: np.ndarray) -> np.ndarray:
    """relative_pose, quaternion and translation [n, 7] → [n, 4, 4]."""
    found = np.tile(np.eye(4), (len(actions), 1, 1))
    found[:, :3, :3] = Rotation.from_quat(actions[:, :4]).as_matrix()
    found[:, :3, 3] = actions[:, 4:]
    return found


def actions_of(split: SplitIndex) -> np.ndarray:
    assert split.actions is not None
    return actions_between(split.params, split.param_names, split.actions)


def test_actions_of_a_capture_are_its_matrices_multiplied_by_hand(tmp_path: Path) -> None:
    poses = cameras(7)
    write_nerf(tmp_path / "scene", poses)
    found = shards_of(tmp_path / "scene", tmp_path / "out")
    train = found.split("train")
    assert (train.n_views.tolist(), train.ordered) == ([7], False)
    actions = actions_of(train)[0]
    np.testing.assert_allclose(as_matrices(actions), by_hand(poses), atol=1e-6)
    assert train.param_names == POSE
    sizes = {"w": SIDE, "h": SIDE, "fl_x": 70, "fl_y": 70, "cx": SIDE / 2, "cy": SIDE / 2}
    assert found.info.fingerprint["intrinsics"] == sizes


@pytest.mark.parametrize("write", [write_nerf, write_colmap])
def test_places_too_far_from_the_origin_for_float32_are_said(tmp_path: Path, write: Any) -> None:
    """Models in the earth's own frame, whose origin is 6,000 km away."""
    poses = cameras(7)
    poses[:, 0, 3] += 6_378_137
    write(tmp_path / "scene", poses)
    notes = read_views(tmp_path / "scene", ManifestOptions(), LayoutOptions()).notes
    assert [note.partition(",")[0] for note in notes] == ["pose.3 is stored in float32"]


@pytest.mark.parametrize("write", [write_nerf, write_colmap])
def test_pictures_of_another_size_than_their_cameras_are_said(
    tmp_path: Path, write: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Made smaller since, or turned as EXIF says: fl_x and cx are not those of the pictures."""
    write(tmp_path / "scene", cameras(7))
    table_of(tmp_path / "scene")
    assert "another size" not in caplog.text
    first = tmp_path / "scene/images/000.png"
    Image.open(first).resize((SIDE, SIDE // 2)).save(first)
    table_of(tmp_path / "scene")
    assert "(pixels): images/000.png has 64×32, its camera 64×64" in caplog.text


def test_no_action_is_what_is_asked_for(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(4))
    assert table_of(tmp_path / "scene", action="none").actions == ActionSpec()
    (tmp_path / "scene/actions.toml").write_text('[units]\n"pose.3" = "m"\n')
    found = table_of(tmp_path / "scene")
    assert (found.actions, found.fields[3].unit) == (POSE_ACTION, "m")


def test_every_fifth_frame_by_its_name_is_no_gap(tmp_path: Path) -> None:
    names = [f"{walk}/{step:04d}.png" for walk in "ab" for step in range(3, 43, 5)]
    make_folder(tmp_path / "walks", names)
    found = table_of(tmp_path / "walks", pattern="{object}/{step}.png")
    assert (found.ordered, found.steps.tolist()) == (True, [*range(8)] * 2)
    assert found.settled["step_divisor"] == 5
    (tmp_path / "walks/a/0013.png").unlink()
    assert table_of(tmp_path / "walks", pattern="{object}/{step}.png").steps.tolist()[:3] == [0, 1, 3]


def test_an_action_says_where_the_next_view_sees_what_this_one_saw(tmp_path: Path) -> None:
    """The oracle is the pictures: discs move in them as the actions say."""
    poses = cameras(6, seed=3)
    write_nerf(tmp_path / "scene", poses)
    train = shards_of(tmp_path / "scene", tmp_path / "out").split("train")
    found = 0
    for i, motion in enumerate(as_matrices(actions_of(train)[0])):
        seen = in_frame(poses[i])  # in the frame of view i
        then = (seen - motion[:3, 3]) @ motion[:3, :3]  # in that of view i + 1
        view = train.read_view(0, i + 1)
        for (column, row), colour in zip(pixels_of(then), COLOURS, strict=True):
            found += view[int(row), int(column)].tolist() == colour.tolist()
    assert found >= 0.8 * 5 * len(COLOURS)  # some are hidden by others


def test_both_layouts_of_one_capture_are_one_motion(tmp_path: Path) -> None:
    """COLMAP's cameras look along z and NeRF's along −z: the motions differ by that turn of the axes, and no more."""
    poses = cameras(5, seed=1)
    write_nerf(tmp_path / "nerf", poses)
    write_colmap(tmp_path / "colmap", poses)
    sets = {name: shards_of(tmp_path / name, tmp_path / f"{name}-out") for name in ("nerf", "colmap")}
    nerf, colmap = (sets[name].split("train") for name in sets)
    for i in range(5):
        assert np.array_equal(nerf.read_view(0, i), colmap.read_view(0, i))
        assert np.array_equal(nerf.read_view(0, i), np.asarray(photograph(poses[i])))
    np.testing.assert_allclose(as_matrices(actions_of(colmap)[0]), by_hand(poses @ GL_TO_CV), atol=1e-6)
    turned = GL_TO_CV @ as_matrices(actions_of(nerf)[0]) @ GL_TO_CV
    np.testing.assert_allclose(as_matrices(actions_of(colmap)[0]), turned, atol=2e-6)
    assert nerf.param_names == colmap.param_names


def test_a_tar_of_a_capture_makes_the_same_shards(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(3))
    make_tar(tmp_path / "scene", tmp_path / "scene.tar")
    folder = shards_of(tmp_path / "scene", tmp_path / "one")
    tar = shards_of(tmp_path / "scene.tar", tmp_path / "two")
    assert [shard.sha256 for shard in folder.info.splits["train"].shards] == [
        shard.sha256 for shard in tar.info.splits["train"].shards
    ]


def test_splits_are_the_files_or_a_share_of_the_scenes(tmp_path: Path) -> None:
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        write_nerf(tmp_path / "lego", cameras(count, seed=count), f"transforms_{split}.json", split)
    found = shards_of(tmp_path / "lego", tmp_path / "one")
    assert {name: found.split(name).n_views.tolist() for name in found.info.splits} == {
        "train": [4],
        "val": [2],
        "test": [3],
    }
    with pytest.raises(UsageError, match="has splits of its own"):
        table_of(tmp_path / "lego", val_fraction=0.5)
    write_nerf(tmp_path / "lego", cameras(3, seed=4), "transforms_test.json", "test")
    with pytest.raises(FormatError, match=r"frame 0 \(train/000\.png, train\): the same pixels in two splits"):
        table_of(tmp_path / "lego")
    for scene in range(4):
        write_nerf(tmp_path / "scenes" / f"s{scene}", cameras(3, seed=scene))
    found = shards_of(tmp_path / "scenes", tmp_path / "two", val_fraction=0.25)
    assert {name: len(found.split(name).keys) for name in found.info.splits} == {"train": 3, "val": 1}


@pytest.mark.parametrize("names", [("Train", "Validation"), ("training", "dev")])
@pytest.mark.parametrize("write", [write_nerf, write_colmap])
def test_folders_of_scenes_may_be_splits(
    tmp_path: Path, write: Any, names: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    for seed, name in enumerate(names):
        write(tmp_path / "in" / name / "hall", cameras(3, seed))
    found = table_of(tmp_path / "in")
    assert dict(zip(found.sequences, found.splits, strict=True)) == {
        f"{names[0]}/hall": "train",
        f"{names[1]}/hall": "val",
    }
    write(tmp_path / "in/more", cameras(3, 2))
    assert set(table_of(tmp_path / "in").splits) == {"train"}
    assert "folders called as splits are scenes, for more lies beside them" in caplog.text


@pytest.mark.parametrize("names", [("train", "validation"), ("Training", "Val")])
def test_splits_of_files_have_several_spellings(tmp_path: Path, names: tuple[str, str]) -> None:
    for seed, name in enumerate(names):
        write_nerf(tmp_path, cameras(3, seed), f"transforms_{name}.json", name)
    found = table_of(tmp_path)
    assert list(zip(found.sequences, found.splits, strict=True)) == [("train", "train"), ("val", "val")]


def test_scenes_that_would_have_one_name(tmp_path: Path) -> None:
    write_nerf(tmp_path, cameras(3), "transforms_train.json", "pictures")
    write_nerf(tmp_path / "train", cameras(3, 1))
    found = shards_of(tmp_path, tmp_path / "out").split("train")
    assert sorted(meta for meta in found.meta["sequence"]) == ["train/transforms/train", "transforms_train/train"]


def test_mistakes_are_named_all_at_once(tmp_path: Path) -> None:
    poses = cameras(30)
    poses[3:, :3, 0] *= 2
    write_nerf(tmp_path / "scene", poses)
    with pytest.raises(FormatError) as caught:
        table_of(tmp_path / "scene")
    said = str(caught.value)
    assert ": 27 mistakes: transforms.json, frame 3: its pose is no rotation" in said
    assert said.count("no rotation and translation") == 20
    assert said.endswith("; and 7 more")


def test_missing_pictures_may_be_left_out(tmp_path: Path) -> None:
    """Captures that are handed around list pictures that were too blurred to keep."""
    poses = cameras(6)
    write_nerf(tmp_path / "scene", poses)
    for i in (0, 4):
        (tmp_path / f"scene/images/{i:03}.png").unlink()
    with pytest.raises(FormatError, match=r"2 mistakes: .*frame 0: .*frame 4: .*--max-bad 2 leaves out what is not"):
        table_of(tmp_path / "scene", max_bad=1)
    train = shards_of(tmp_path / "scene", tmp_path / "out", max_bad=2).split("train")
    np.testing.assert_allclose(as_matrices(actions_of(train)[0]), by_hand(poses[[1, 2, 3, 5]]), atol=1e-6)


def test_a_turntable_in_file_names(tmp_path: Path) -> None:
    """COIL-100's and the like: objects by angle, classes by folder."""
    names = [f"{kind}/{kind}{k}__{angle}.png" for kind in ("cup", "toy") for k in (1, 2) for angle in (0, 5, 350, 100)]
    make_folder(tmp_path / "coil", names, 16, 16)
    make_folder(tmp_path / "coil", ["cup/readme.png"], 16, 16)
    found = shards_of(
        tmp_path / "coil", tmp_path / "out", pattern="{label}/{object}__{azimuth:deg}.png", val_fraction=0.5
    )
    assert found.info.classes == ("cup", "toy")
    assert found.info.spec.actions == ActionSpec((ActionTerm("angle_difference", ("azimuth",)),))
    assert {name: sorted(found.split(name).labels.tolist()) for name in found.info.splits} == {
        "train": [0, 1],
        "val": [0, 1],
    }
    for split in (found.split(name) for name in found.info.splits):
        assert split.ordered is False
        for row, key in enumerate(split.keys):
            np.testing.assert_allclose(np.rad2deg(split.params[row, :, 0]), [0, 5, 100, 350], rtol=1e-6)
            np.testing.assert_allclose(np.rad2deg(actions_of(split)[row, :, 0]), [5, 95, -110], rtol=1e-5)
            seed = next(i for i, name in enumerate(names) if key.startswith(name[:8].replace("/", "-")))
            assert np.array_equal(split.read_view(row, 0), picture(seed, 16, 16))


def test_what_a_pattern_does_not_name_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_folder(tmp_path, [f"{split}/{split}cup_{angle}.png" for split in ("train", "Test") for angle in (0, 90)])
    assert set(table_of(tmp_path, pattern="{split}/{object}_{azimuth:deg}.png").splits) == {"train", "test"}
    assert "does not call {split}" not in caplog.text
    assert set(table_of(tmp_path, pattern="{of}/{object}_{azimuth:deg}.png").splits) == {"train"}
    assert "pictures lie in Test, train, which the pattern does not call {split}" in caplog.text
    assert "keep" not in caplog.text
    assert not table_of(tmp_path, pattern="{split}/{object}_{azimuth}.png").fields
    assert "the pattern does not keep azimuth, for {azimuth:deg} (:rad, :float, :int) is a number" in caplog.text


def test_steps_in_file_names_are_an_order(tmp_path: Path) -> None:
    make_folder(tmp_path / "film", [f"take{k}/frame_{step:04}_{x}.png" for k in (1, 2) for step, x in enumerate("305")])
    found = shards_of(tmp_path / "film", tmp_path / "out", pattern="{object}/frame_{step}_{x:float}.png")
    train = found.split("train")
    assert train.ordered
    assert train.params[..., 0].tolist() == [[3, 0, 5]] * 2
    assert found.info.spec.actions == ActionSpec((ActionTerm("difference", ("x",)),))


def test_what_the_user_declares_goes_before(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(4))
    (tmp_path / "scene/actions.toml").write_text(
        '[units]\n"pose.3" = "m"\n[[action]]\nop = "difference"\ncolumns = ["pose.3", "pose.7", "pose.11"]\n'
    )
    table = table_of(tmp_path / "scene")
    assert table.actions == ActionSpec((ActionTerm("difference", ("pose.3", "pose.7", "pose.11")),))
    assert {field.unit for field in table.fields if field.name == "pose.3"} == {"m"}
    np.testing.assert_array_equal(table.params[:, 3], cameras(4)[:, 0, 3].astype(np.float32))
    assert table_of(tmp_path / "scene", action="pose").actions != table.actions
    assert read_views(tmp_path / "scene", ManifestOptions(), LayoutOptions()).notes == []  # the file is not left out
    (tmp_path / "scene/other.toml").touch()
    said = read_views(tmp_path / "scene", ManifestOptions(), LayoutOptions()).notes
    assert said == ["1 file was left out: 1 that is no image (1 .toml)"]
    make_folder(tmp_path / "turn", [f"cup_{angle}.png" for angle in (0, 90)], 16, 16)
    named = table_of(tmp_path / "turn", pattern="{object}_{a:float}.png", units=("a=deg",))
    np.testing.assert_allclose(named.params[:, 0], [0, np.pi / 2], rtol=1e-6)
    with pytest.raises(FormatError, match="a is in rad already"):
        table_of(tmp_path / "turn", pattern="{object}_{a:deg}.png", units=("a=deg",))
    with pytest.raises(FormatError, match="the columns of numbers are a"):
        table_of(tmp_path / "turn", pattern="{object}_{a:deg}.png", action="rotation")


def test_what_is_asked_for_and_cannot_be(tmp_path: Path) -> None:
    make_folder(tmp_path / "plain", ["a.png"])
    for layout, said in [
        ({"layout": "nerv"}, "--layout 'nerv' is not known; allowed are manifest, nerf, colmap, pattern"),
        ({"layout": "pattern"}, "--layout pattern needs --pattern"),
        ({"layout": "nerf", "pattern": "{object}.png"}, "--pattern is for --layout pattern, not for nerf"),
        ({"layout": "nerf"}, "holds no transforms.json"),
        ({"layout": "colmap"}, "holds no cameras.txt and images.txt"),
        ({"layout": "manifest"}, "holds no metadata.csv"),
        ({}, "holds no metadata.csv, .jsonl or .parquet; give the table of its images with --manifest FILE (docs/lay"),
    ]:
        with pytest.raises((UsageError, FormatError)) as caught:
            table_of(tmp_path / "plain", **layout)
        assert said in str(caught.value)


def test_columns_may_be_left_out(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(4))
    record = json.loads((tmp_path / "scene/transforms.json").read_text())
    for i, frame in enumerate(record["frames"]):
        frame |= {"fl_x": 70.0 + i, "fl_y": 71.0 + i}
    (tmp_path / "scene/transforms.json").write_text(json.dumps(record))
    command = ["--source", tmp_path / "scene", "--out", tmp_path / "out", "--workers", 0]
    done = run(*command, "--ignore", "fl_y")
    assert done.exit_code == 0, done.output
    train = ShardSet.open(tmp_path / "out").split("train")
    assert train.param_names == (*POSE, "fl_x")
    assert train.params[0, :, 12].tolist() == [70, 71, 72, 73]
    done = run(*command, "--ignore", "width")
    assert done.exit_code == 2
    assert "--ignore width: there is no such column; there are pose.0" in done.stderr


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.seqjepa_data_app, ["shard", "manifest", *map(str, words)])


def test_the_command_finds_the_layout(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(4))
    done = run("--source", tmp_path / "scene", "--size", 32, "--out", tmp_path / "one", "--workers", 0)
    assert done.exit_code == 0, done.output
    assert ShardSet.open(tmp_path / "one").info.spec.actions == POSE_ACTION
    make_folder(tmp_path / "turn", [f"cup_{angle}.png" for angle in (0, 90)] + ["notes.png"], 16, 16)
    pattern = "{object}_{a:deg}.png"
    done = run("--source", tmp_path / "turn", "--pattern", pattern, "--out", tmp_path / "two", "--workers", 0)
    assert done.exit_code == 0, done.output
    assert "turn: 1 file was left out: 1 picture whose name does not match the pattern (notes.png)" in done.stderr
    command = ShardSet.open(tmp_path / "two").info.provenance["command"]
    assert "--pattern '{object}_{a:deg}.png'" in command
    (tmp_path / "turn/metadata.csv").write_text("file_name,sequence,a\ncup_0.png,cup,1\ncup_90.png,cup,2\n")
    done = run("--source", tmp_path / "turn", "--out", tmp_path / "three", "--workers", 0)  # a table goes first
    assert done.exit_code == 0, done.output
    assert ShardSet.open(tmp_path / "three").split("train").param_names == ("a",)


def test_the_command_tells_mistakes_in_one_line(tmp_path: Path) -> None:
    write_nerf(tmp_path / "scene", cameras(4))
    (tmp_path / "scene/images/001.png").unlink()
    for words, said in [
        ([], "error: scene: 1 mistake: transforms.json, frame 1: images/001.png is not there (--max-bad 1 leaves out"),
        (["--sequence", "x"], "--sequence: columns are a table's, and"),
        (["--pattern", "{object}.gif"], "matches none of 3 pictures"),
    ]:
        done = run("--source", tmp_path / "scene", "--out", tmp_path / "out", *words)
        assert done.exit_code == 2
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
