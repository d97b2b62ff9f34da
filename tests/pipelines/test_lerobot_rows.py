"""Values of LeRobot sets: commands over a stride against a plain loop, states by name, and rows that are damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_lerobot import LENGTHS, TOP, action_of, change_info, make_lerobot, state_of, write_table

from pipelines.sources.lerobot.meta import LeRobotMeta
from pipelines.sources.lerobot.rows import EpisodeRows, FeatureChoice, choose, read_rows
from pipelines.sources.mistakes import SHOWN
from shards.errors import FormatError, UsageError
from shards.schema import ActionSpec, ActionTerm, ParamField

FILE = "data/chunk-000/file-000.parquet"


def rows_of(
    root: Path, kept: tuple[bool, ...] = (True, True, True), stride: int = 1, **options: Any
) -> tuple[EpisodeRows, FeatureChoice]:
    meta = LeRobotMeta(root)
    given = {"states": None, "commands": None, "over": "last", "units": {}, **options}
    choice = choose(meta, **given)
    return read_rows(root, meta.episodes(meta.camera(TOP)), np.array(kept), choice, stride), choice


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
@pytest.mark.parametrize("over", ["last", "sum", "mean"])
@pytest.mark.parametrize("stride", [1, 3])
def test_commands_lie_between_the_kept_frames(tmp_path: Path, version: str, over: str, stride: int) -> None:
    rows, choice = rows_of(make_lerobot(tmp_path / "set", version, kind="image"), stride=stride, over=over)
    combine = {"last": lambda a: a[-1], "sum": lambda a: np.sum(a, 0), "mean": lambda a: np.mean(a, 0)}[over]
    expected = []
    for e, length in enumerate(LENGTHS):
        for number, t in enumerate(range(0, length, stride)):
            between = np.array([action_of(e, k) for k in range(t, min(t + stride, length))])
            expected.append((e, number, t / 10, *state_of(e, t), *combine(between)))
    expected = np.array(expected)
    assert rows.of.tolist() == expected[:, 0].tolist()
    assert rows.steps.tolist() == expected[:, 1].tolist()
    np.testing.assert_allclose(rows.times, expected[:, 2], atol=1e-7)
    assert np.array_equal(rows.params, expected[:, 3:].astype(np.float32))
    assert rows.tasks.tolist() == [0, 1, 0]
    names = ("observation.state.x", "observation.state.y", "observation.state.grip", "action.0", "action.1")
    assert choice.fields == tuple(ParamField(name, "1") for name in names)
    assert choice.actions == ActionSpec((ActionTerm("command", names[3:], over=over),))  # pyright: ignore


def test_changes_that_a_float32_loses_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    table = pq.read_table(root / FILE)
    far = pa.array([[4649776.22 + 0.1 * i, 1.0 + i, 2.0] for i in range(len(table))], pa.list_(pa.float64()))
    write_table(table.set_column(0, "observation.state", far), root / FILE)
    rows_of(root)
    assert caplog.text.count("is stored in float32") == caplog.text.count("observation.state.x is stored in") == 1


def test_only_the_episodes_that_are_asked_for(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    (root / "data/chunk-000/file-000.parquet").unlink()  # of the other two
    rows, _ = rows_of(root, (False, False, True))
    assert np.array_equal(rows.params[:, :3], [state_of(2, t) for t in range(6)])
    assert (rows.of.tolist(), rows.places.tolist(), rows.tasks.tolist()) == ([0] * 6, list(range(6)), [0])
    with pytest.raises(FormatError, match=r"file-000\.parquet is not there: the set is not complete"):
        rows_of(root)


def test_columns_are_chosen(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    rows, choice = rows_of(root, states="next.done", commands="none")
    assert choice.actions == ActionSpec()
    assert rows.params[:, 0].tolist() == [t == n - 1 for n in LENGTHS for t in range(n)]
    units = {"action": "deg", "observation.state.x": "m"}
    turned, choice = rows_of(root, units=units)
    assert [field.unit for field in choice.fields] == ["m", "1", "1", "rad", "rad"]
    assert np.array_equal(
        turned.params[:, 3:], np.deg2rad(rows_of(root)[0].params[:, 3:], dtype=np.float64).astype("f4")
    )
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"states": "observation.images.top"}, "it is image, not numbers"),
        ({"states": "nothing"}, "it is no feature of .*; there are observation.state, action, next.done"),
        ({"states": "action"}, "--state and --command both name action"),
        ({"units": {"observation.pose": "m"}}, r"a unit for observation\.pose: nothing of that name is taken"),
    ]
    for options, said in mistakes:
        with pytest.raises(UsageError, match=said):
            rows_of(root, **options)


def test_too_many_columns(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    change_info(root, torque={"dtype": "float32", "shape": [60]})
    said = (
        r"65 columns, at most 64 are allowed: observation\.state \(3\), torque \(60\), action \(2\); leave some out, "
        r"e\.g\. --state observation\.state$"
    )
    with pytest.raises(UsageError, match=said):
        rows_of(root)
    assert rows_of(root, states="observation.state")[0].params.shape == (sum(LENGTHS), 5)


def change(root: Path, name: str, values: list, rows: slice = slice(None)) -> None:
    table = pq.read_table(root / FILE).slice(rows.start or 0, (rows.stop or 10**6) - (rows.start or 0))
    if name:
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    write_table(table, root / FILE)


def test_rows_that_are_damaged(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    before = (root / FILE).read_bytes()
    n = 12
    for name, values, rows, said in (
        ("", [], slice(0, 11), "has 4 rows of episode 1, and meta/ says 5: the set is not complete"),
        ("episode_index", [0] * 7 + [4] * 5, slice(None), "has rows of episode 4, and meta/ says nothing of it"),
        ("episode_index", [0] * 6 + [1, 1, 1, 1, 1, 0], slice(None), "rows of episode 0, in two places"),
        ("frame_index", list(range(12)), slice(None), "frame_index of episode 1 is not 0, 1, 2"),
        ("timestamp", [np.nan] * n, slice(None), "episode 0 has a timestamp that is not finite"),
        ("action", [[0.0, 1.0]] * 11 + [None], slice(None), "action has 1 missing values"),
        ("action", [[0.0, 1.0]] * 11 + [[0.0]], slice(None), "action has 1 to 2 numbers a row, 2 are needed"),
        ("action", [[0.0, 1.0, 2.0]] * 12, slice(None), "action has 3 numbers a row, 2 are needed"),
        ("action", [["a", "b"]] * 12, slice(None), "action is of string, numbers are needed"),
    ):
        change(root, name, values, rows)
        with pytest.raises(FormatError, match=said):
            rows_of(root)
        (root / FILE).write_bytes(before)
    (root / FILE).write_bytes(before[:-9])
    with pytest.raises(FormatError, match=r"file-000\.parquet cannot be read"):
        rows_of(root)


def test_values_that_are_not_finite_are_named_all_at_once(tmp_path: Path) -> None:
    root = make_lerobot(tmp_path / "set", kind="image")
    actions = [action_of(e, t).tolist() for e in range(2) for t in range(LENGTHS[e])]
    actions[3][1], actions[8][0] = np.nan, 1e39
    change(root, "action", actions)
    with pytest.raises(
        FormatError, match=r"episode 0, frame 3: action\.1 is nan; episode 1, frame 1: action\.0 is 1e\+39"
    ):
        rows_of(root)
    change(root, "action", [[np.inf, np.inf]] * 12)
    with pytest.raises(FormatError) as raised:
        rows_of(root)
    assert str(raised.value).count("is inf") == SHOWN
