"""The dry run of `shard manifest`: what was understood, every warning and mistake at once, three sequences drawn."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation
from small_images import encoded, picture
from small_manifest import SIDE, csv_text, make_pictures, reading_of, rows
from typer.testing import CliRunner

import cli
from pipelines.build.check import draw_check, in_words, understood
from pipelines.build.view_warnings import warnings_of
from pipelines.sources.table import ViewTable
from seqjepa.data.actions import actions_between
from shards.describe import describe_set, summarise
from shards.errors import UsageError
from shards.schema import ActionSpec

STEPS = 6
NOTHING_WRONG = {"notes": [], "warnings": [], "mistakes": {"count": 0, "first": []}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "in", [f"{name}/{step}.png" for name in "ab" for step in range(STEPS)])


def table() -> list[dict[str, Any]]:
    return [
        {"file_name": f"{name}/{step}.png", "sequence": name, "step": step, "yaw": 60 * step, "z": step, "split": split}
        for name, split in (("a", "train"), ("b", "val"))
        for step in range(STEPS)
    ]


def check(folder: Path, sheet: Path, *more: str) -> tuple[int, dict[str, Any]]:
    words = ["shard", "manifest", "--source", str(folder), "--check", "--sheet", str(sheet), "--json", *more]
    result = CliRunner().invoke(cli.seqjepa_data_app, words)
    return result.exit_code, json.loads(result.stdout)


def test_what_was_understood(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").write_text(csv_text(table()))
    (folder / "actions.toml").write_text(
        '[units]\nyaw = "deg"\n[[action]]\nop = "angle_difference"\ncolumns = ["yaw"]\n'
    )
    before = sorted(tmp_path.rglob("*"))
    code, found = check(folder, tmp_path / "sheet.png")
    assert code == 0
    assert (found["rows"], found["sequences"], found["ordered"]) == (12, 2, True)
    assert found["splits"] == {split: {"sequences": 1, "frames": 6} for split in ("train", "val")}
    assert [column["name"] for column in found["columns"]] == ["yaw", "z"]
    assert found["columns"][0]["max"] == pytest.approx(np.radians(300))
    assert (found["unused"], found["views_per_sample"], found["padding"]) == (["z"], 6, 0)
    assert (found["warnings"], found["mistakes"]) == ([], {"count": 0, "first": []})
    assert sorted(tmp_path.rglob("*")) == sorted([*before, tmp_path / "sheet.png"])
    with Image.open(tmp_path / "sheet.png") as image:
        drawn = np.asarray(image.convert("RGB")).reshape(-1, 3)
    first = picture(0, SIDE, SIDE).reshape(-1, 3)[0].astype(int)
    assert (np.abs(drawn.astype(int) - first).sum(1) < 30).any()


def test_actions_on_the_sheet_are_those_between_neighbours(folder: Path, tmp_path: Path) -> None:
    found = reading_of(folder, csv_text(table()), units=("yaw=deg",), action="none").checked()
    seen: list[tuple[int, ...]] = []

    def record(params: np.ndarray, names: list[str], action: ActionSpec) -> np.ndarray:
        seen.append(params.shape)
        return np.zeros((1, params.shape[1] - 1, action.size), np.float32)

    draw_check(found, tmp_path / "none.png", "t", record)
    assert seen == []
    (folder / "actions.toml").write_text(
        '[units]\nyaw = "deg"\n[[action]]\nop = "angle_difference"\ncolumns = ["yaw"]\n'
    )
    draw_check(reading_of(folder, csv_text(table())).checked(), tmp_path / "some.png", "t", record)
    assert seen == [(1, STEPS, 2)] * 2
    (tmp_path / "foreign.png").write_bytes(encoded(picture(0)))
    with pytest.raises(UsageError):
        draw_check(found, tmp_path / "foreign.png", "t", record)


def test_warnings_name_what_may_be_wrong(folder: Path, tmp_path: Path) -> None:
    made = table()
    for row in made:
        row |= {"z": 7, "azimuth": 60 * row["step"], "timestamp": row["step"] + 5 * (row["step"] == 5), "label": "c"}
        row["label"] += row["sequence"]
        row["step"] = row["step"] if row["step"] < 4 else row["step"] + 3
    (folder / "b/3.png").write_bytes(encoded(picture(3, 20, 30)))
    (folder / "metadata.csv").write_text(csv_text(made))
    (folder / "actions.toml").write_text(
        '[units]\nyaw = "rad"\n[[action]]\nop = "angle_difference"\ncolumns = ["yaw"]\n'
    )
    _, found = check(folder, tmp_path / "sheet.png", "--context", "6")
    for line in (
        'yaw goes from 0 to 300 rad, more than a turn: if these are degrees, declare yaw = "deg"',
        "azimuth goes from 0 to 300 without a unit",
        "z is constant, 7 in every row",
        "steps have gaps: 6 are missing in 2 of 2 sequences, e.g. between metadata.csv, row 5 and row 6",
        "2 of 2 sequences have fewer than the 7 frames of a context of 6 and its target without a gap (a, b)",
        "timestamp: frames are 1 s apart mostly, and 6 s at most",
        "1 classes of val are not in train: cb",
        "images are of 2 sizes (16×16, 30×20): give --size",
    ):
        assert any(line in warning for warning in found["warnings"]), (line, found["warnings"])
    assert len(found["warnings"]) == 8
    assert not any("sizes" in line for line in check(folder, tmp_path / "s.png", "--size", "16")[1]["warnings"])


def test_the_action_that_columns_imply_is_said(folder: Path) -> None:
    """A set that declares no action is trained with that of its columns' names, where there is one."""
    plain = [{**row, "y": 0} for row in rows()]
    without = "methods that need actions will not train"
    for more, said in (({}, "training takes --action position"), ({"y": "up"}, without)):
        table = reading_of(folder, csv_text([{**row, **more} for row in plain])).checked()
        declared = [line for line in warnings_of(table, 3) if line.startswith("no action is declared")]
        assert [line.rpartition("; ")[2].partition(",")[0] for line in declared] == [said]


def test_a_build_without_a_dry_run_says_the_warnings_too(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = [{key: value for key, value in row.items() if key != "step"} | {"time": row["step"]} for row in table()]
    (folder / "metadata.csv").write_text(csv_text(made))
    words = ["shard", "manifest", "--source", str(folder), "--workers", "0", "--out", str(tmp_path / "out")]
    CliRunner().invoke(cli.seqjepa_data_app, words)
    assert "yaw goes from 0 to 300 without a unit: an angle in degrees?" in caplog.text
    said = "nothing orders the frames, which are drawn at random: does time? Then --timestamp time, or --step time"
    assert said in caplog.text


def test_a_matrix_that_turns_about_one_axis_is_no_warning_and_one_name(folder: Path) -> None:
    pose = [[[1.0, 0, 0, step], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] for step in range(STEPS)]
    made = [{**row, "pose": pose[row["step"]]} for row in table()]
    text = "\n".join(map(json.dumps, made))
    spare = reading_of(folder, text, "metadata.jsonl").checked()
    assert any("15 numbers of pose are constant" in line for line in warnings_of(spare, 3))
    assert "  no action uses yaw, z, pose.0 … pose.15" in in_words({**understood(spare, None), **NOTHING_WRONG})
    used = reading_of(folder, text, "metadata.jsonl", action="pose").checked()
    assert not any("constant" in line for line in warnings_of(used, 3))


def test_times_in_nanoseconds_are_not_taken_for_seconds_without_a_word(folder: Path, tmp_path: Path) -> None:
    began = 1_700_000_000_000_000_000  # as ROS has them
    made = [{**row, "timestamp": began + 100_000_000 * row["step"]} for row in table()]
    (folder / "metadata.csv").write_text(csv_text(made))
    said = "timestamp: frames are 1e+08 s apart mostly; --unit timestamp=ms, us or ns if it is not in s"
    assert said in check(folder, tmp_path / "sheet.png")[1]["warnings"]
    told = check(folder, tmp_path / "sheet.png", "--unit", "timestamp=ns")[1]["warnings"]
    assert not any("apart" in line for line in told)


def test_pictures_that_are_not_what_they_look_like(folder: Path, tmp_path: Path) -> None:
    """A telephone's, which its EXIF turns. What has no name is a mistake, and no picture that cannot be read."""
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "b/3.png").write_bytes(encoded(picture(3, SIDE, SIDE), "jpg", exif=exif))
    (folder / "metadata.csv").write_text(csv_text(table()))
    said = "1 of 12 images that were tried may be other than meant, e.g. b/3.png: its EXIF turns it (orientation 6)"
    assert any(said in line for line in check(folder, tmp_path / "sheet.png")[1]["warnings"])
    nameless = [{**row, "file_name": ""} if row["z"] == 1 else row for row in table()]
    (folder / "metadata.csv").write_text(csv_text(nameless))
    _, found = check(folder, tmp_path / "sheet.png")
    assert found["mistakes"]["count"] == 2
    assert not any("unreadable" in line for line in found["warnings"])


def test_mistakes_and_warnings_come_together(folder: Path, tmp_path: Path) -> None:
    made = [{**row, "z": 1} for row in table()]
    made[2]["yaw"], made[4]["file_name"] = "", "a/none.png"
    (folder / "metadata.csv").write_text(csv_text(made))
    code, found = check(folder, tmp_path / "sheet.png")
    assert code == 2
    assert found["mistakes"]["count"] == 2
    assert "row 4: yaw is empty or NaN" in found["mistakes"]["first"]
    assert any("z is constant" in line for line in found["warnings"])
    assert any("no action is declared" in line for line in found["warnings"])
    assert "sheet" not in found
    assert not (tmp_path / "sheet.png").exists()
    words = ["shard", "manifest", "--source", str(folder), "--check", "--sheet", str(tmp_path / "sheet.png")]
    result = CliRunner().invoke(cli.seqjepa_data_app, words)
    assert result.exit_code == 2
    assert "mistake: row 4: yaw is empty or NaN" in result.stdout
    assert result.stdout.rstrip().endswith("warnings; nothing was written")


def test_an_angle_whose_difference_does_not_wrap(folder: Path) -> None:
    (folder / "actions.toml").write_text(
        '[units]\nyaw = "deg"\n[[action]]\nop = "difference"\ncolumns = ["yaw", "z"]\n'
    )
    found = reading_of(folder, csv_text(table())).checked()
    lines = [line for line in warnings_of(found, 3) if "angle_difference" in line]
    assert lines == ["difference of yaw takes 359° to 1° as −358°: angle_difference takes it as 2°"]


def test_quaternions_that_are_not_of_length_one(folder: Path) -> None:
    term = '[[action]]\nop = "relative_rotation"\nfrom = "quaternion_xyzw"\ncolumns = ["q.0", "q.1", "q.2", "q.3"]\n'
    (folder / "actions.toml").write_text(term)
    for scale, warned in ((1.0, 0), (1.001, 0), (3.0, 1)):
        values = [0.6 * scale, 0.0, 0.0, 0.8 * scale]
        lines = [{**row, "q": [value if row["z"] else -value for value in values]} for row in table()]
        found = reading_of(folder, "\n".join(map(json.dumps, lines)), "m.jsonl").checked()
        said = [line for line in warnings_of(found, 3) if "have lengths from 3 to 3, a rotation 1" in line]
        assert len(said) == warned


@pytest.mark.parametrize("name", ["yaw (deg)", "theta1", "cameraYaw", "joint_3.angle", "azim"])
def test_angles_are_known_by_names_of_many_spellings(folder: Path, name: str) -> None:
    turned = reading_of(folder, csv_text(table()).replace("yaw", name, 1)).checked()
    key = json.dumps(name) if " " in name else name
    assert f'{name} goes from 0 to 300 without a unit: an angle in degrees? Then declare {key} = "deg"' in warnings_of(
        turned, 3
    )


@pytest.mark.parametrize("name", ["Time (s)", "header.stamp", "frameIndex", "secs"])
def test_times_are_known_by_names_of_many_spellings(folder: Path, name: str) -> None:
    text = csv_text(table()).replace("step", name, 1)
    lines = warnings_of(reading_of(folder, text).checked(), 3)
    assert any(f"does {name}? Then --timestamp {shlex.quote(name)}, or" in line for line in lines)


def test_an_angle_in_radians_without_a_unit_that_goes_round(folder: Path) -> None:
    (folder / "actions.toml").write_text('[[action]]\nop = "difference"\ncolumns = ["yaw"]\n')
    for scale, said in ((0.5, 0), (1.0, 1)):
        turned = [{**row, "yaw": scale * ((1.5 * row["step"] + np.pi) % (2 * np.pi) - np.pi)} for row in table()]
        lines = warnings_of(reading_of(folder, csv_text(turned)).checked(), 3)
        assert sum("yaw changes by more than π from row to row" in line for line in lines) == said


def test_yaw_pitch_and_roll_are_taken_in_the_order_of_the_axes(folder: Path) -> None:
    made = csv_text([{**row, "roll": 1, "pitch": row["z"]} for row in table()])
    for columns, said in ((["roll", "pitch", "yaw"], 0), (["yaw", "pitch", "roll"], 1)):
        (folder / "actions.toml").write_text(
            f'[units]\nyaw = "deg"\npitch = "deg"\nroll = "deg"\n'
            f'[[action]]\nop = "relative_rotation"\nresult = "6d"\ncolumns = {columns}\n'
        )
        lines = warnings_of(reading_of(folder, made).checked(), 3)
        assert sum(line.startswith("yaw, pitch, roll are taken for turns about") for line in lines) == said


@pytest.mark.parametrize("form", ["quaternion_xyzw", "matrix", "euler_xyz"])
def test_rotations_that_come_with_either_sign_are_said(folder: Path, form: str) -> None:
    """60° about z from row to row, in each form; the quaternions as a log may have them, all with w ≥ 0."""
    turns = Rotation.from_euler("z", [[60 * step] for step in range(STEPS)], degrees=True)
    told = {
        "quaternion_xyzw": turns.as_quat(canonical=True),
        "matrix": turns.as_matrix().reshape(-1, 9),
        "euler_xyz": turns.as_euler("xyz"),
    }[form]
    columns = [f"r.{i}" for i in range(told.shape[1])]
    units = "".join(f'"{name}" = "rad"\n' for name in columns)
    lines = "\n".join(json.dumps({**row, "r": told[row["z"]].tolist()}) for row in table())
    for result, said in (("quaternion", 1), ("canonical", 0), ("6d", 0)):
        term = f'[[action]]\nop = "relative_rotation"\nfrom = "{form}"\ncolumns = ["r"]\nresult = "{result}"\n'
        (folder / "actions.toml").write_text(f"[units]\n{units}{term}")
        found = reading_of(folder, lines, "metadata.jsonl").checked()
        assert found.actions is not None
        names = [field.name for field in found.fields]
        made = actions_between(found.params[None, :STEPS], names, found.actions)[0]
        negative = 2 * int((made[:, 3] < 0).sum())  # of both sequences
        warned = [line for line in warnings_of(found, 3) if "q and −q are one rotation" in line]
        assert len(warned) == said
        if said:
            assert negative
            assert f"{negative} of 10 rotations from row to row" in warned[0]


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (
            [0.1, -9999, 0.3, -9999, 0.5, 0.6],
            "x is -9999 in 2 rows (e.g. metadata.csv, row 3), and mostly from 0.1 to 0.5",
        ),
        ([691000, 691002, 691005, 0, 0, 691001], "x is 0 in 2 rows (e.g. metadata.csv, row 5), and mostly from"),
        ([0.1, -9999, 0.3, 0.4, 0.5, 0.6], None),  # once: it may be so
        ([0, 1, 2, 3, 7, 7], None),
        ([0, 1, 0, 1, 9, 9], None),  # kinds
    ],
)
def test_a_value_that_stands_for_none(folder: Path, x: list[float], said: str | None) -> None:
    made = [{**row, "x": value} for row, value in zip(rows(), x, strict=True)]
    found = [line for line in warnings_of(reading_of(folder, csv_text(made)).checked(), 1) if line.startswith("x is")]
    assert [str(said) in line for line in found] == ([True] if said else [])


def test_quaternions_whose_w_may_be_the_first(folder: Path) -> None:
    """Vectors have no names that would tell, and w, x, y, z are a rotation too, but another one."""
    turns = Rotation.from_euler("zyx", np.random.default_rng(0).normal(0, 0.5, (6, 3))).as_quat(canonical=True)
    (folder / "actions.toml").write_text(
        '[[action]]\nop = "relative_rotation"\nfrom = "quaternion_xyzw"\nresult = "6d"\ncolumns = ["q"]\n'
    )
    cars = Rotation.from_euler("z", np.linspace(0, 5, 6)[:, None]).as_quat()
    for q, order, said in (
        (turns, [0, 1, 2, 3], 0),
        (turns, [3, 0, 1, 2], 1),
        (cars, [0, 1, 2, 3], 0),
        (cars, [3, 0, 1, 2], 1),
    ):
        made = [{**row, "q": q.tolist()} for row, q in zip(rows(), q[:, order], strict=True)]
        lines = warnings_of(reading_of(folder, "\n".join(map(json.dumps, made)), "m.jsonl").checked(), 1)
        assert sum("are taken for x, y, z, w and look like w, x, y, z" in line for line in lines) == said
    (folder / "actions.toml").write_text((folder / "actions.toml").read_text().replace('"q"', '"qx", "qy", "qz", "qw"'))
    made = [
        {**row, **dict(zip(("qx", "qy", "qz", "qw"), q, strict=True))}
        for row, q in zip(rows(), cars[:, [3, 0, 1, 2]], strict=True)
    ]
    assert not any("look like" in line for line in warnings_of(reading_of(folder, csv_text(made)).checked(), 1))


@pytest.mark.parametrize(
    ("term", "said"),
    [
        ('op = "difference"\ncolumns = ["x", "size"]', "difference of size is 0 throughout"),
        (
            'op = "relative_rotation"\nfrom = "euler_xyz"\ncolumns = ["r", "r1", "r2"]',
            "relative_rotation of r, r1, r2 is 0 throughout",
        ),
        ('op = "relative_rotation"\nfrom = "euler_xyz"\ncolumns = ["x", "r1", "r2"]', ""),
    ],
)
def test_an_action_of_what_never_changes(folder: Path, term: str, said: str) -> None:
    made = [{**row, **dict.fromkeys(("size", "r", "r1", "r2"), ord(row["sequence"]) / 100)} for row in rows()]
    (folder / "actions.toml").write_text(f'[units]\nx = "rad"\nr = "rad"\nr1 = "rad"\nr2 = "rad"\n[[action]]\n{term}\n')
    lines = [line for line in warnings_of(reading_of(folder, csv_text(made)).checked(), 1) if "throughout" in line]
    assert [line.partition(":")[0] for line in lines] == ([said] if said else [])


@pytest.mark.parametrize(
    ("op", "kinds", "said"),
    [
        ("categorical", "012", "categorical of action is that of the second view: is it what was done at the first?"),
        ("command", "012", "command of action is one of 3 whole numbers: are they kinds of commands?"),
        ("command", "013", None),
        ("command", "01", None),
    ],
)
def test_commands_that_are_kinds(folder: Path, op: str, kinds: str, said: str | None) -> None:
    """Gym's Discrete, Atari's buttons: no function of the second view, and no numbers to be subtracted."""
    more = f"values = {list(map(int, kinds))}\n" if op == "categorical" else ""
    (folder / "actions.toml").write_text(f'[[action]]\nop = "{op}"\ncolumns = ["action"]\n{more}')
    made = csv_text([{**row, "action": kinds[row["step"] % len(kinds)]} for row in rows()])
    lines = [line for line in warnings_of(reading_of(folder, made).checked(), 1) if "of action" in line]
    assert [str(said) in line for line in lines] == ([True] if said else [])


def test_values_of_a_term_that_training_lacks(folder: Path) -> None:
    (folder / "actions.toml").write_text('[[action]]\nop = "categorical"\ncolumns = ["lamp"]\nvalues = [0, 1, 2]\n')
    made = [
        {**row, "lamp": row["sequence"] == "b", "split": {"a": "train", "b": "val"}[row["sequence"]]} for row in rows()
    ]
    assert "no training row has lamp 1, 2, a value of its term" in warnings_of(
        reading_of(folder, csv_text(made)).checked(), 1
    )


def test_times_that_are_taken_for_steps(folder: Path) -> None:
    """Milliseconds, never quite as many from frame to frame: all are gaps, and there is no window."""
    made = [{**row, "step": 33 * row["step"] + row["step"] // 3} for row in table()]
    lines = warnings_of(reading_of(folder, csv_text(made)).checked(), 3)
    assert any("Times? A table has --timestamp for them" in line for line in lines)
    assert any("2 of 2 sequences have fewer than the 4 frames" in line for line in lines)


def test_a_short_sequence_without_steps(folder: Path) -> None:
    found: ViewTable = reading_of(folder, csv_text(rows())).checked()
    assert any("fewer than the 4 frames" in line for line in warnings_of(found, 3))
    assert not any("fewer than" in line for line in warnings_of(found, 2))


def test_info_names_the_action_the_ranges_and_what_no_action_uses(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").write_text(csv_text(table()))
    (folder / "actions.toml").write_text(
        '[units]\nyaw = "deg"\n[[action]]\nop = "angle_difference"\ncolumns = ["yaw"]\n'
    )
    words = ["shard", "manifest", "--source", str(folder), "--out", str(tmp_path / "out"), "--encoding", "raw"]
    words += ["--image", "file_name", "--sequence", "sequence", "--step", "step", "--split", "split"]
    result = CliRunner().invoke(cli.seqjepa_data_app, [*words, "--views-per-sample", "4"])
    assert result.exit_code == 0, result.output
    found = describe_set(tmp_path / "out")
    assert found["columns"][1] == {"name": "z", "unit": "1", "min": 0.0, "max": 5.0, "mean": 2.5}
    assert found["unused"] == ["z"]
    text = summarise(found)
    assert len(found["provenance"]["command"]) > 140
    assert found["provenance"]["command"] in text  # whole, to be given again
    for line in (
        "yaw              [rad] 0 … 5.23599",
        "action  angle_difference of yaw: 1 number\n",
        "no action uses z",
    ):
        assert line in text
    assert "in 1 shard," in text
    assert [word for word in ("sha256", "bad_views", "versions", "{", "[]") if word in text] == []
    assert result.stdout.strip() == text[: text.index("\n  command: ")]  # a build does not repeat what was typed
