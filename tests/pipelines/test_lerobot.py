"""LeRobot sets as shards: frames by their times, values, splits and labels, in both layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, REPO, serving
from small_lerobot import (
    LENGTHS,
    TASKS,
    TOP,
    WRIST,
    action_of,
    change_info,
    frame_pixels,
    level,
    make_lerobot,
    state_of,
    write_table,
)
from typer.testing import CliRunner

import cli
from pipelines.build.views import shard_views
from pipelines.sources.lerobot import LeRobotOptions, LeRobotSource, within
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm, ViewSpec
from shards.verify import verify


def build(root: Path, out: Path, workers: int = 0, **options: Any) -> ShardSet:
    given = {name: options.pop(name) for name in ("encoding", "size", "samples_per_shard") if name in options}
    source = LeRobotSource(root, LeRobotOptions(TOP, **options))
    shard_views(source, out, workers=workers, **{"encoding": "raw", "size": None, **given})
    assert verify(out).ok
    return ShardSet.open(out)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_images_beside_the_rows(tmp_path: Path, version: str) -> None:
    found = build(make_lerobot(tmp_path / "set", version, kind="image"), tmp_path / "out", stride=2, over="sum")
    split = found.split("train")
    assert isinstance(found.info.spec, ViewSpec)
    assert found.info.spec.actions == ActionSpec((ActionTerm("command", ("action.0", "action.1"), over="sum"),))
    assert found.info.spec.ordered
    assert found.info.classes == tuple(sorted(TASKS))
    assert [found.info.classes[i] for i in split.labels] == [TASKS[e % 2] for e in range(3)]
    for i, length in enumerate(LENGTHS):
        kept = range(0, length, 2)
        assert split.n_views[i] == len(kept)
        for slot, t in enumerate(kept):
            assert np.array_equal(split.read_view(i, slot), frame_pixels(i, t))
            command = np.sum([action_of(i, k) for k in range(t, min(t + 2, length))], axis=0)
            assert split.params[i, slot].tolist() == [*state_of(i, t), *command]


@pytest.mark.parametrize(("version", "codec"), [("v3.0", "libx264"), ("v3.0", "libsvtav1"), ("v2.1", "libx264")])
def test_frames_of_videos_by_their_times(tmp_path: Path, version: str, codec: str) -> None:
    root = make_lerobot(tmp_path / "set", version, codec=codec)
    split = build(root, tmp_path / "out").split("train")
    for i, length in enumerate(LENGTHS):
        assert split.n_views[i] == length
        for t in range(length):
            pixels = split.read_view(i, t)
            assert pixels.shape == (32, 32, 3)
            assert abs(float(pixels.mean()) - level(i, t)) < 4, (i, t)  # levels are 11 apart
            assert split.params[i, t].tolist() == [*state_of(i, t), *action_of(i, t)]
    strided = build(root, tmp_path / "strided", stride=3, workers=2 if version == "v2.1" else 0).split("train")
    for i, length in enumerate(LENGTHS):
        for slot, t in enumerate(range(0, length, 3)):
            assert np.array_equal(strided.read_view(i, slot), split.read_view(i, t))


def test_a_frame_that_no_time_leads_to(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set")
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    times = table["timestamp"].to_numpy().copy()
    times[9] += np.float32(0.02)  # frame 2 of episode 1
    place = table.column_names.index("timestamp")
    write_table(table.set_column(place, "timestamp", pa.array(times)), path)
    with pytest.raises(FormatError, match=r"--tolerance.*file-000\.mp4.*0\.92"):
        build(root, tmp_path / "out")
    split = build(root, tmp_path / "out", tolerance=0.03).split("train")
    assert abs(float(split.read_view(1, 2).mean()) - level(1, 2)) < 4


def test_videos_that_are_damaged(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set")
    path = root / f"videos/{TOP}/chunk-000/file-001.mp4"
    before = path.read_bytes()
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(FormatError, match=r"file-001\.mp4"):
        build(root, tmp_path / "out")
    path.unlink()
    with pytest.raises(FormatError, match=r"file-001\.mp4: unreadable \(No such file"):
        build(root, tmp_path / "out")
    build(root, tmp_path / "out", episodes="0:2")  # which it is not needed for


def test_frames_of_another_episode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A from_timestamp that is wrong gave an episode another one's pictures; a longer video may be another one's."""
    root = make_lerobot(tmp_path / "new")
    file = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    begins = f"videos/{TOP}/from_timestamp"
    write_table(table.set_column(table.column_names.index(begins), begins, pa.array([0.0, 0.0, 0.0])), file)
    with pytest.raises(
        FormatError, match=r"row 7: videos/.*/file-000\.mp4, frame 0 is of another episode too \(5 such"
    ):
        LeRobotSource(root, LeRobotOptions())
    root = make_lerobot(tmp_path / "old", "v2.1")
    LeRobotSource(root, LeRobotOptions(stride=3))
    assert "beyond the rows" not in caplog.text
    videos = root / f"videos/chunk-000/{TOP}"
    (videos / "episode_000001.mp4").write_bytes((videos / "episode_000000.mp4").read_bytes())
    LeRobotSource(root, LeRobotOptions(episodes="1:3"))
    said = "1 videos have frames beyond the rows of their episodes, which are left out; are they of other episodes? "
    assert f"{said}videos/chunk-000/{TOP}/episode_000001.mp4 has 7, 5 rows" in caplog.text


def test_times_that_do_not_go_on(tmp_path: Path) -> None:
    """Zeros throughout: every row had the first frame."""
    root = make_lerobot(tmp_path / "set", "v2.1")
    file = root / "data/chunk-000/episode_000001.parquet"
    table = pq.read_table(file)
    zeros = pa.array(np.zeros(len(table), np.float32))
    write_table(table.set_column(table.column_names.index("timestamp"), "timestamp", zeros), file)
    with pytest.raises(
        FormatError, match=r"episode_000001\.parquet, row 1: timestamp 0 is not after 0, of the row before"
    ):
        LeRobotSource(root, LeRobotOptions())


def test_images_that_the_rows_only_name(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    for file in (root / "data/chunk-000").iterdir():
        table = pq.read_table(file)
        named = pa.array([{"bytes": None, "path": cell["path"]} for cell in table[TOP].to_pylist()], table[TOP].type)
        write_table(table.set_column(table.column_names.index(TOP), TOP, named), file)
    with pytest.raises(FormatError, match=r"row 0: its image is not in the file, which only names 'frame-000000\.png'"):
        build(root, tmp_path / "out")


def test_tasks_without_words_are_no_class(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    write_table(pa.table({"task_index": [0, 1], "task": [" ", "pull it"]}), root / "meta/tasks.parquet")
    found = build(root, tmp_path / "out")
    assert (found.info.classes, found.split("train").labels.tolist()) == (("pull it",), [-1, 0, -1])


def test_splits_are_those_of_the_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_lerobot(tmp_path / "set", kind="image", splits={"train": "0:1", "validation": "1:2"})
    found = build(root, tmp_path / "out")
    assert "views-per-sample" not in found.info.provenance["command"]
    assert {name: found.split(name).keys for name in found.info.splits} == {
        "train": ["episode_000000"],
        "val": ["episode_000001"],
    }
    with pytest.raises(UsageError, match=r"--val-fraction: .* has splits of its own, train and val"):
        LeRobotSource(root, LeRobotOptions(TOP, val_fraction=0.5))
    change_info(root, splits={"train": "0:3", "test": "3:3"})  # an empty one is none
    assert set(LeRobotSource(root, LeRobotOptions(TOP)).table.splits) == {"train"}
    with pytest.raises(
        UsageError, match=r"--episodes 7:8: no episode of .* is left; those with frames are among 0 to 2"
    ):
        LeRobotSource(root, LeRobotOptions(TOP, episodes="7:8"))
    with pytest.raises(UsageError, match="--episodes 0,73: there is no episode 73 in"):
        LeRobotSource(root, LeRobotOptions(TOP, episodes="0,73"))
    change_info(root, splits={"train": "0:2", "heldout": "2:3"})
    assert set(LeRobotSource(root, LeRobotOptions(TOP)).table.splits) == {"train", "heldout"}
    assert "split heldout keeps its name" in caplog.text
    change_info(root, splits={"train": "0:2", "test": "1:3"})
    with pytest.raises(FormatError, match="episode 1 is in train and in test"):
        LeRobotSource(root, LeRobotOptions(TOP))
    change_info(root, splits={"../x": "0:2"})
    with pytest.raises(FormatError, match="needs a name of a-z, 0-9"):
        LeRobotSource(root, LeRobotOptions(TOP))


def test_a_set_without_actions_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    assert LeRobotSource(root, LeRobotOptions(command="none")).actions == ActionSpec()
    assert not caplog.messages
    features = json.loads((root / "meta/info.json").read_text())["features"]
    del features["action"]
    change_info(root, features=features)
    assert LeRobotSource(root, LeRobotOptions()).actions == ActionSpec()
    assert "has no feature `action`, so its views have no actions; --command KEYS" in caplog.text


def test_a_share_of_the_episodes_of_each_task(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image", lengths=(2,) * 8)
    table = LeRobotSource(root, LeRobotOptions(TOP, val_fraction=0.25, episodes="0:8")).table
    assert sorted(str(label) for label, split in zip(table.labels, table.splits, strict=True) if split == "val") == [
        "pull it",
        "push it",
    ]
    table = LeRobotSource(root, LeRobotOptions(TOP, episodes="1,5:7")).table
    assert table.sequences == ["episode_000001", "episode_000005", "episode_000006"]
    assert table.where(3) == "data/chunk-000/file-002.parquet, row 3"


def test_ranges_of_episodes() -> None:
    numbers = np.array([0, 1, 2, 5, 9])
    for text, expected in (("0:2", [0, 1]), ("5", [5]), (":1, 5:", [0, 5, 9]), ("2,9", [2, 9]), (":", [0, 1, 2, 5, 9])):
        assert numbers[within(text, numbers, "--episodes")].tolist() == expected
    for text in ("", "a", "1-3", "3:4:5", "-1", "1:2,", "1000000000000"):
        with pytest.raises(UsageError, match="--episodes"):
            within(text, numbers, "--episodes")


def test_options_out_of_range() -> None:
    with pytest.raises(UsageError, match="--stride 0: 1 or more"):
        LeRobotOptions(TOP, stride=0)
    with pytest.raises(UsageError, match=r"--tolerance 0\.0: more than 0"):
        LeRobotOptions(TOP, tolerance=0.0)
    with pytest.raises(UsageError, match="--over 'max' is not known; allowed are last, sum, mean"):
        LeRobotOptions(TOP, over="max")  # pyright: ignore[reportArgumentType]


def test_values_are_in_the_unit_of_a_feature_and_units_alone_leave_the_commands(tmp_path: Path) -> None:
    root, file = make_lerobot(tmp_path / "set", kind="image"), tmp_path / "actions.toml"
    values = [100 * (episode + 1) + frame for episode in range(3) for frame in range(9)]
    file.write_text(f'[[action]]\nop = "categorical"\ncolumns = ["observation.state.grip"]\nvalues = {values}\n')
    found = LeRobotSource(root, LeRobotOptions(TOP, actions=file, unit=("observation.state=deg",))).actions
    assert found is not None
    assert found.terms[0].values == pytest.approx(np.deg2rad(values))
    commands = LeRobotSource(root, LeRobotOptions(TOP)).actions
    file.write_text('[units]\n"observation.state" = "deg"\n')
    assert LeRobotSource(root, LeRobotOptions(TOP, actions=file)).actions == commands


def test_an_action_of_states(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    file = tmp_path / "actions.toml"
    file.write_text(
        """
        [units]
        "observation.state.grip" = "deg"
        "action" = "m"
        [[action]]
        op = "difference"
        columns = ["observation.state.x", "observation.state.y"]
        [[action]]
        op = "angle_difference"
        columns = ["observation.state.grip"]
        [[action]]
        op = "command"
        over = "sum"
        columns = ["action"]
        """
    )
    source = LeRobotSource(root, LeRobotOptions(TOP, actions=file, over="sum", stride=2, unit=("action.1=cm",)))
    names = [f"observation.state.{name}" for name in ("x", "y", "grip")]
    assert source.actions == ActionSpec(
        (
            ActionTerm("difference", tuple(names[:2])),
            ActionTerm("angle_difference", (names[2],)),
            ActionTerm("command", ("action.0", "action.1"), over="sum"),
        )
    )
    assert [field.unit for field in source.params] == ["1", "1", "rad", "m", "cm"]
    assert source.table.params[1, 2] == np.float32(np.deg2rad(102.0))
    with pytest.raises(FormatError, match=r"commands are over sum, and --over is mean; give the same"):
        LeRobotSource(root, LeRobotOptions(TOP, actions=file, over="mean", stride=2))
    file.write_text(
        '[[action]]\nop = "difference"\ncolumns = ["pose"]\n[[action]]\nop = "leap"\ncolumns = ["action"]\n'
    )
    with pytest.raises(
        FormatError, match=r"2 mistakes: actions\.toml, action 1 needs pose; .*; actions\.toml, action 2: op"
    ):
        LeRobotSource(root, LeRobotOptions(TOP, actions=file))
    file.write_text(
        '[[action]]\nop = "categorical"\ncolumns = ["observation.state.x"]\nvalues = [1, 2, 3, 4, 5, 6, 7, 8]\n'
    )
    with pytest.raises(FormatError, match=r"episode 2, frame 6: observation\.state\.x is none of 1, 2"):
        LeRobotSource(
            make_lerobot(tmp_path / "more", kind="image", lengths=(7, 5, 7)), LeRobotOptions(TOP, actions=file)
        )


def test_a_set_on_the_hub_is_the_set_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which only meta/, the rows and this camera's videos of the chosen episodes are loaded."""
    pytest.importorskip("huggingface_hub")
    root = make_lerobot(tmp_path / "robots")
    (root / f"videos/{WRIST}").mkdir()
    (root / f"videos/{WRIST}/a.mp4").write_text("another camera's")
    (root / "README.md").write_text("what it is")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    asked = LeRobotOptions(TOP, episodes="0:2")  # of 7 and 5 frames
    with serving(root) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        found = LeRobotSource(f"hf://{REPO}", asked, views_per_sample=4)
        assert sorted(hub.loaded) == sorted(
            [
                *(name for name in hub.names() if name.startswith("meta/")),
                "data/chunk-000/file-000.parquet",
                f"videos/{TOP}/chunk-000/file-000.mp4",
            ]
        )
    assert found.identity == LeRobotSource(root, asked, views_per_sample=4).identity
    assert found.options["source"] == f"hf://datasets/{REPO}@{COMMIT}"
    assert [(record.key, len(record.view_ids)) for record in found.records()] == [
        ("episode_000000-0", 4),
        ("episode_000000-1", 3),
        ("episode_000001-0", 4),
        ("episode_000001-1", 1),
    ]
    command = shard_views(found, tmp_path / "out", workers=0, size=16).provenance["command"]
    assert command.startswith(
        f"seqjepa-data shard lerobot --source hf://datasets/{REPO}@{COMMIT} --camera {TOP} --episodes 0:2 "
        "--views-per-sample 4 --size 16"
    )


def run(*words: str | Path) -> str:
    """What the command prints, its exit code first."""
    done = CliRunner().invoke(cli.seqjepa_data_app, ["shard", "lerobot", *map(str, words)])
    return f"{done.exit_code} {done.output}"


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = make_lerobot(tmp_path / "set"), tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    said = run("--source", root, "--check", "--unit", "observation.state.x=m", "--over", "sum", "--stride", "2")
    assert said.startswith("0 10 rows, 3 sequences of 3 to 4 frames, in the order of their steps")
    assert "observation.state.x [m] 1 … 7" in said
    assert "no action uses observation.state.x, observation.state.y, observation.state.grip" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["check.png", "set"]
    assert run("--source", root) == "2 error: --out DIR is needed: the folder to write\n"
    assert "2 error: --over 'all' is not known" in run("--source", root, "--out", out, "--over", "all")
    words = ("--over", "mean", "--state", "none", "--val-fraction", "0.5", "--size", "16", "--workers", "0")
    assert run("--source", root, "--out", out, *words).startswith("0 ")
    assert ShardSet.open(out).info.provenance["command"] == (
        f"seqjepa-data shard lerobot --source set --camera {TOP} --state none --over mean --val-fraction 0.5 --size 16 "
        "--fit squash --encoding jpeg --jpeg-quality auto --samples-per-shard 256"
    )
