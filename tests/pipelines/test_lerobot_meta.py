"""meta/ of LeRobot sets, in both layouts, and what is said of one that is damaged or means harm."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_lerobot import LENGTHS, TASKS, TOP, WRIST, change_info, make_lerobot, write_table

from pipelines.sources.lerobot.meta import Feature, LeRobotMeta, fill
from shards.errors import FormatError, UsageError


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_both_layouts_say_the_same(tmp_path: Path, version: str) -> None:
    meta = LeRobotMeta(make_lerobot(tmp_path / "set", version, kind="image"))
    if version == "v3.0":
        (meta.root / "meta/episodes/chunk-000/._file-000.parquet").write_bytes(b"\0\5\x16\7")  # as macOS writes them
    assert (meta.fps, meta.robot, meta.splits, meta.tasks()) == (10, "so100", {"train": "0:3"}, dict(enumerate(TASKS)))
    found = meta.episodes(meta.camera(TOP))
    assert (found.numbers.tolist(), found.lengths.tolist(), found.videos) == ([0, 1, 2], list(LENGTHS), [])
    assert found.begins.tolist() == [0, 0, 0]
    two, one = "data/chunk-000/file-{:03d}.parquet", "data/chunk-000/episode_{:06d}.parquet"
    names = [two.format(e // 2) if version == "v3.0" else one.format(e) for e in range(3)]
    assert found.data == names
    assert all((meta.root / name).is_file() for name in names)


def test_components_have_their_names() -> None:
    def components(names: object, shape: list[int]) -> tuple[str, ...]:
        meta = LeRobotMeta.__new__(LeRobotMeta)
        meta.where = Path("info.json")
        return meta._feature("a", {"dtype": "float32", "shape": shape, "names": names}).components

    assert components(["x", "y"], [2]) == ("a.x", "a.y")
    assert components({"motors": ["x", "y"]}, [2]) == ("a.x", "a.y")
    assert components({"dy": 1, "dx": 0}, [2]) == ("a.dx", "a.dy")
    assert components(None, [2]) == ("a.0", "a.1")
    assert components(None, [1]) == ("a",)
    assert components(["grip", "grip"], [2]) == ("a.0", "a.1")  # a name that occurs twice tells nothing apart
    assert components(["height", "width"], [2, 2]) == ("a.0", "a.1", "a.2", "a.3")
    assert components(["x", "\x1b[31m"], [2]) == ("a.0", "a.1")


def test_a_path_stays_below_the_set() -> None:
    assert fill("d/{chunk_index:03d}/{video_key}.mp4", "t", chunk_index=7, video_key="a.b") == "d/007/a.b.mp4"
    hostile = [
        "/etc/passwd",
        "../{chunk_index:03d}.parquet",
        "data/{video_key}/x",
        "data//x",
        "C:\\{chunk_index}",
        "data/{chunk_index.__class__}",
        "data/{chunk_index!r}",
        "data/{chunk_index:>99999999999}",
        "data/{chunk_index:{video_key}}",
        "data/{0}",
        "data/{unknown}",
        "data/{chunk_index",
        "data/{video_key:03d}",
    ]
    for template in hostile:
        with pytest.raises(FormatError, match=r"info\.json: data_path"):
            fill(template, "info.json: data_path", chunk_index=1, video_key="..")


def everything(root: Path) -> None:
    meta = LeRobotMeta(root)
    meta.episodes(meta.camera(TOP))
    assert meta.fps
    assert meta.splits


def test_what_is_wrong_with_meta_is_said(tmp_path: Path) -> None:
    meta = make_lerobot(tmp_path / "set", kind="image")
    with pytest.raises(UsageError, match=f"--camera front: there is no such camera; .* has {TOP}$"):
        LeRobotMeta(meta).camera("front")
    assert LeRobotMeta(meta).camera(None).key == TOP  # the only one
    change_info(meta, **{WRIST: {"dtype": "video", "shape": [8, 8, 3]}})
    with pytest.raises(UsageError, match=f"--camera KEY is needed; .* has {TOP}, {WRIST}$"):
        LeRobotMeta(meta).camera(None)
    with pytest.raises(UsageError, match="no such camera"):
        LeRobotMeta(meta).camera("action")
    before = (meta / "meta/info.json").read_text()
    for changes, said in (
        ({"codebase_version": "v1.6"}, r"codebase_version 'v1\.6' is unknown, there are v3\.0, v2\.1"),
        ({"codebase_version": None}, "codebase_version 'None' is unknown"),
        ({"data_path": "../../{chunk_index}.parquet"}, "which is no path below the set"),
        ({"total_episodes": 9}, "says 9 episodes, and .* lists 3: a file is missing"),
        ({"fps": 0}, "fps must be a positive number"),
        ({"splits": {"train": 3}}, "splits must be ranges"),
        ({"features": []}, "features must be a dict"),
        ({"features": {TOP: {"dtype": "image", "shape": [-1]}}}, f"feature {TOP} has shape"),
        ({"features": {"a": {"dtype": "float32"}}}, "feature a needs a dtype and a shape"),
    ):
        change_info(meta, **changes)
        with pytest.raises(FormatError, match=said):
            everything(meta)
        (meta / "meta/info.json").write_text(before)
    (meta / "meta/info.json").write_text("{")
    with pytest.raises(FormatError, match=r"info\.json is not JSON"):
        LeRobotMeta(meta)
    with pytest.raises(FormatError, match="give the folder of a LeRobot data set"):
        LeRobotMeta(tmp_path)


def test_listings_that_are_damaged(tmp_path: Path) -> None:
    new = make_lerobot(tmp_path / "new", kind="image")
    path = new / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    meta = LeRobotMeta(new)
    write_table(table.drop_columns("data/file_index"), path)
    with pytest.raises(FormatError, match="has no column data/file_index"):
        meta.episodes(meta.camera(TOP))
    write_table(table.take([0, 1, 1]), path)
    with pytest.raises(FormatError, match="episode 1 is listed twice"):
        meta.episodes(meta.camera(TOP))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FormatError, match="cannot be read"):
        meta.episodes(meta.camera(TOP))
    path.unlink()
    with pytest.raises(FormatError, match=re.escape("holds no chunk-*/file-*.parquet")):
        meta.episodes(meta.camera(TOP))
    write_table(pa.table({"task_index": [0, 1, 0], "task": ["a", "b", "c"]}), new / "meta/tasks.parquet")
    with pytest.raises(FormatError, match=r"tasks\.parquet: task_index 0 is 'c' and 'a'"):
        meta.tasks()
    (new / "meta/tasks.parquet").unlink()
    with pytest.raises(FormatError, match="is not there"):
        meta.tasks()
    old = LeRobotMeta(make_lerobot(tmp_path / "old", "v2.1", kind="image"))
    lines = (old.root / "meta/episodes.jsonl").read_text().splitlines()
    (old.root / "meta/episodes.jsonl").write_text(f"{lines[0]}\n{json.dumps({'episode_index': -4, 'length': 2})}\n")
    with pytest.raises(FormatError, match=r"episodes\.jsonl, line 2: episode_index is -4"):
        old.episodes(old.camera(TOP))


def test_a_single_number_is_a_component() -> None:
    assert Feature("reward", "float32", ()).components == ("reward",)
