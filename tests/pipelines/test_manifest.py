"""What a manifest means: sequences, order, units, vectors, actions, splits; images in archives and videos."""

from __future__ import annotations

import json
import tarfile
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import encoded, picture
from small_manifest import SIDE, csv_text, make_pictures, mistakes_of, reading_of, rows
from typer.testing import CliRunner

import cli
from pipelines.sources.manifest import ManifestOptions, find_manifest, read_manifest
from seqjepa.data.actions import actions_between
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm, ViewSpec
from shards.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "in")


def without(name: str) -> list[dict]:
    return [{key: value for key, value in row.items() if key != name} for row in rows()]


def test_the_command_writes_a_set_with_its_action(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").write_text(csv_text([{**row, "yaw": 90 * row["step"]} for row in rows()]))
    (folder / "actions.toml").write_text(
        '[units]\nx = "m"\nyaw = "deg"\n[[action]]\nop = "difference"\ncolumns = ["x"]\n'
        '[[action]]\nop = "angle_difference"\ncolumns = ["yaw"]\n'
    )
    words = ["shard", "manifest", "--source", str(folder), "--out", str(tmp_path / "out"), "--encoding", "raw"]
    result = CliRunner().invoke(cli.seqjepa_data_app, words)
    assert result.exit_code == 0, result.output
    assert verify(tmp_path / "out").ok
    shards = ShardSet.open(tmp_path / "out")
    spec, found = shards.info.spec, shards.split("train")
    assert isinstance(spec, ViewSpec)
    assert [(field.name, field.unit) for field in spec.params] == [("x", "m"), ("yaw", "rad")]
    terms = (ActionTerm("difference", ("x",)), ActionTerm("angle_difference", ("yaw",)))
    assert (spec.actions, spec.ordered, spec.chunked) == (ActionSpec(terms), True, False)
    assert found.params[1, :, 1] == pytest.approx([0, np.pi / 2, np.pi])
    assert shards.info.classes == ("cat a", "cat b")
    assert np.array_equal(found.read_view(1, 2), picture(5, SIDE, SIDE))
    assert "actions" not in shards.info.provenance["command"]
    assert CliRunner().invoke(cli.seqjepa_data_app, words).exit_code == 0  # finished already


def test_columns_may_be_called_otherwise(folder: Path) -> None:
    names = {"file_name": "Bild", "sequence": "Objekt", "step": "Nr", "label": "Klasse"}
    table = [{names.get(key, key): value for key, value in row.items()} for row in rows()]
    given = {"image": "Bild", "sequence": "Objekt", "step": "nr", "label": "Klasse"}
    found = reading_of(folder, csv_text(table), columns=given).checked()
    assert (list(found.sequences), found.ordered) == (["a", "b"], True)
    assert [field.name for field in found.fields] == ["x"]
    said = mistakes_of(reading_of(folder, csv_text(table), columns={"image": "Bild", "sequence": "Ding"}))
    assert "--sequence Ding: there is no such column; there are Bild, Objekt, Nr, x, Klasse" in said


def test_without_a_sequence_folders_say_so_or_nothing_does(folder: Path) -> None:
    reading = reading_of(folder, csv_text(without("sequence")))
    assert list(reading.checked().sequences) == ["a", "b"]
    assert "there is no column sequence: each of 2 folders of images is one" in reading.notes
    flat = make_pictures(folder / "flat", [f"{i}.png" for i in range(6)])
    table = [{**row, "file_name": f"{i}.png"} for i, row in enumerate(without("sequence"))]
    assert "add a column sequence, or name one with --sequence COLUMN" in mistakes_of(reading_of(flat, csv_text(table)))


def test_without_a_step_views_are_not_ordered_and_commands_refused(folder: Path) -> None:
    table = without("step")
    found = reading_of(folder, csv_text(table)).checked()
    assert (found.ordered, found.steps.tolist()) == (False, [0, 1, 2, 0, 1, 2])
    (folder / "actions.toml").write_text('[[action]]\nop = "command"\ncolumns = ["x"]\n')
    assert "a command leads from a row to the next: add a column step" in mistakes_of(
        reading_of(folder, csv_text(table))
    )


def test_steps_are_divided_by_what_they_have_in_common(folder: Path) -> None:
    table = [{**row, "step": 10 + 5 * row["step"] * (1 + (row["step"] > 1))} for row in rows()]
    found = reading_of(folder, csv_text(table)).checked()
    assert found.steps.tolist() == [0, 1, 4, 0, 1, 4]
    assert found.settled["step_divisor"] == 5


def test_timestamps_order_and_are_kept_in_seconds_of_the_sequence(folder: Path) -> None:
    start = datetime(2024, 5, 1, 12)
    epoch = 1714564800.0
    for write in (
        lambda s: f"{epoch + s:.3f}",
        lambda s: (start + timedelta(seconds=s)).isoformat(),
        lambda s: (start + timedelta(seconds=s)).isoformat() + "Z",
        lambda s: (start + timedelta(seconds=s)).isoformat() + "+02:00",
    ):
        times = [write(100 - 0.04 * row["step"]) for row in rows()]
        table = [{**row, "timestamp": time} for row, time in zip(without("step"), times, strict=True)]
        found = reading_of(folder, csv_text(table)).checked()
        assert [found.pictures.name(row) for row in range(3)] == ["a/2.png", "a/1.png", "a/0.png"]
        assert found.params[:3, -1] == pytest.approx([0, 0.04, 0.08], abs=1e-5)
        assert (found.fields[-1].unit, found.ordered) == ("s", True)
    table = [{**row, "timestamp": 40 * (i % 3)} for i, row in enumerate(without("step"))]
    found = reading_of(folder, csv_text(table), units=("timestamp=ms",)).checked()
    assert found.params[:3, -1] == pytest.approx([0, 0.04, 0.08])
    table[1]["timestamp"] = 0
    assert "row 3: repeats row 2: the same sequence and timestamp '0'" in mistakes_of(
        reading_of(folder, csv_text(table))
    )


def test_timestamps_of_parquet(folder: Path) -> None:
    table = [{**row, "timestamp": datetime(2024, 5, 1) + timedelta(seconds=row["step"] / 10)} for row in rows()]
    pq.write_table(pa.Table.from_pylist(table), folder / "metadata.parquet")
    found = read_manifest(folder, ManifestOptions()).checked()
    assert found.params[:3, -1] == pytest.approx([0, 0.1, 0.2])


def poses(count: int) -> np.ndarray:
    """float64 [count, 4, 4]: turned about z by 0.3 rad a step, moved along x."""
    turn = 0.3 * np.arange(count)
    found = np.tile(np.eye(4), (count, 1, 1))
    found[:, 0, 0] = found[:, 1, 1] = np.cos(turn)
    found[:, 1, 0], found[:, 0, 1] = np.sin(turn), -np.sin(turn)
    found[:, 0, 3] = turn
    return found


@pytest.mark.parametrize("kind", ["parquet", "nested parquet", "fixed parquet", "jsonl", "csv"])
def test_vectors_and_matrices(folder: Path, kind: str) -> None:
    matrices = poses(6)
    table = [
        {**row, "pose": matrix.tolist() if "nested" in kind or kind == "jsonl" else matrix.ravel().tolist()}
        for row, matrix in zip(rows(), matrices, strict=True)
    ]
    if kind.endswith("parquet"):
        made = pa.Table.from_pylist(table)
        if kind.startswith("fixed"):
            made = made.set_column(
                made.schema.get_field_index("pose"), "pose", made["pose"].cast(pa.list_(pa.float64(), 16))
            )
        pq.write_table(made, folder / "metadata.parquet")
        reading = read_manifest(folder, ManifestOptions(action="pose"))
    elif kind == "jsonl":
        reading = reading_of(folder, "\n".join(map(json.dumps, table)), "m.jsonl", action="pose")
    else:
        spread = [
            {**row, **{f"pose.{i}": value for i, value in enumerate(matrix.ravel())}}
            for row, matrix in zip(rows(), matrices, strict=True)
        ]
        reading = reading_of(folder, csv_text(spread), action="pose")
    found = reading.checked()
    names = [field.name for field in found.fields]
    assert names == ["x", *(f"pose.{i}" for i in range(16))]
    assert np.array_equal(found.params[:, 1:], matrices.reshape(6, 16).astype(np.float32))
    assert found.actions == ActionSpec((ActionTerm("relative_pose", tuple(names[1:]), form="matrix"),))


def test_vectors_of_other_lengths_and_matrices_that_are_none(folder: Path) -> None:
    table = [{**row, "pose": matrix.tolist()} for row, matrix in zip(rows(), poses(6), strict=True)]
    table[1]["pose"] = [[1, 2], [3, 4]]
    table[2]["pose"][1][1] = None
    table[4]["pose"] = np.diag([1, 1, -1, 1]).tolist()
    said = mistakes_of(reading_of(folder, "\n".join(map(json.dumps, table)), "m.jsonl", action="pose"))
    assert "line 2: pose is [[1.0, 2.0], [3.0, 4.0]]; 4×4 numbers are needed" in said
    assert "line 3: pose is empty or NaN" in said
    assert "line 5: pose.0 … pose.15 is no rotation" in said
    assert said.count("\n") == 2


def test_the_last_command_of_a_sequence_may_be_empty(folder: Path) -> None:
    table = [{**row, "action.0": "" if row["step"] == 2 else row["step"], "action.1": row["step"]} for row in rows()]
    found = reading_of(folder, csv_text(table), action="command").checked()
    assert found.actions == ActionSpec((ActionTerm("command", ("action.0", "action.1")),))
    assert found.params[:, 1].tolist() == [0, 1, 0, 0, 1, 0]
    table[1]["action.0"] = ""
    said = mistakes_of(reading_of(folder, csv_text(table), action="command"))
    assert said == "row 3: action.0 is empty or NaN; only the last row of a sequence may have none"
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert said.count("action.0 is empty") == 3


def test_all_that_is_wrong_with_an_action_is_told(folder: Path) -> None:
    (folder / "actions.toml").write_text(
        'extra = 1\n[units]\nzz = "m"\n[[action]]\nop = "angle_difference"\ncolumns = ["x"]\n'
        '[[action]]\nop = "difference"\ncolumns = ["y"]\n[[action]]\nop = "turn"\ncolumns = ["x"]\n'
        '[[action]]\nop = "categorical"\ncolumns = ["x"]\nvalues = [0, 0.5]\n'
        '[[action]]\nop = "categorical"\ncolumns = ["label"]\nvalues = ["cat a"]\n'
    )
    said = mistakes_of(reading_of(folder, csv_text(rows())))
    for line in (
        "actions.toml has extra; [units] and [[action]] are allowed",
        "a unit for zz, which is no column of numbers; there are x",
        "action 1: angle_difference needs angles in rad, and x is in '1'; declare it",
        "action 2 needs y; the columns of numbers are x",
        "action 3: op 'turn' is unknown",
        "row 4: x is none of 0, 0.5",
        "action 5 needs label; the columns of numbers are x; number the values of a text (0, 1 …)",
    ):
        assert line in said, said


def test_a_preset_says_what_its_angles_are(folder: Path) -> None:
    table = [{**row, "rot_x": 0, "rot_y": 90, "rot_z": 0} for row in rows()]
    found = reading_of(folder, csv_text(table), action="rotation", units=("rot_y=deg",)).checked()
    assert [field.unit for field in found.fields] == ["1", "rad", "rad", "rad"]
    assert found.params[0, 2] == pytest.approx(np.pi / 2)
    with pytest.raises(UsageError, match="--action 'spin' is not known"):
        reading_of(folder, csv_text(table), action="spin")
    with pytest.raises(UsageError, match="COLUMN=UNIT"):
        reading_of(folder, csv_text(table), units=("deg",))


def test_units_alone_are_no_action_of_zero_numbers(folder: Path) -> None:
    """actions.toml without [[action]] says as little of the action as --unit; `action = []` says that there is none."""
    (folder / "actions.toml").write_text('[units]\nx = "m"\n')
    assert reading_of(folder, csv_text(rows())).checked().actions is None
    (folder / "actions.toml").write_text('action = []\n[units]\nx = "m"\n')
    assert reading_of(folder, csv_text(rows())).checked().actions == ActionSpec()


def test_numbers_of_a_term_are_in_the_units_of_its_columns(folder: Path) -> None:
    table = [{**row, "turn": 90 * row["step"]} for row in rows()]
    (folder / "actions.toml").write_text(
        '[units]\nturn = "deg"\n[[action]]\nop = "categorical"\ncolumns = ["turn"]\nvalues = [0, 90, 180]\n'
        '[[action]]\nop = "difference"\ncolumns = ["x", "turn"]\nnormalise = "zscore"\nmean = [0, 90]\nstd = [2, 45]\n'
    )
    found = reading_of(folder, csv_text(table)).checked()
    assert found.actions is not None
    names = [field.name for field in found.fields]
    made = actions_between(found.params[None, :3], names, found.actions)[0]
    np.testing.assert_allclose(made, [[0, 1, 0, 0.25, 2], [0, 0, 1, 0.25, 2]], atol=1e-6)


def test_splits_are_of_sequences(folder: Path) -> None:
    table = [{**row, "split": {"a": "Training", "b": "valid"}[row["sequence"]]} for row in rows()]
    assert list(reading_of(folder, csv_text(table)).checked().splits) == ["train", "val"]
    reading = reading_of(
        folder, csv_text([{**row, "split": {"a": "Prueba", "b": "valid"}[row["sequence"]]} for row in rows()])
    )
    assert list(reading.checked().splits) == ["prueba", "val"]
    assert reading.notes == [
        "there is no training split, only prueba, val",
        "split prueba keeps its name: training takes train, evaluation val or test, unless they are told otherwise "
        "(--val-split)",
    ]
    table[1]["split"], table[4]["split"], table[5]["split"] = "val", "", "my split"
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert "row 3: split 'val', but row 2 of the same sequence a has 'train'; a sequence has one split" in said
    assert "row 6: split is empty" in said
    assert "row 7: 'my split' is no split" in said
    with pytest.raises(UsageError, match="the table has splits"):
        reading_of(folder, csv_text(table), val_fraction=0.5)


def test_a_share_of_each_class_is_validation(tmp_path: Path) -> None:
    names = [f"s{i}/{step}.png" for i in range(10) for step in range(2)]
    table = [{"file_name": n, "label": "ab"[int(n[1]) % 2], "step": n[3]} for n in names]
    found = reading_of(make_pictures(tmp_path / "in", names), csv_text(table), val_fraction=0.2).checked()
    chosen = [label for label, split in zip(found.labels, found.splits, strict=True) if split == "val"]
    assert sorted(map(str, chosen)) == ["a", "b"]


def test_labels_that_are_numbers_keep_their_order(tmp_path: Path) -> None:
    from pipelines.sources.table import TableSource

    names = [f"s{i}/0.png" for i in range(11)]
    table = [{"file_name": name, "label": i} for i, name in enumerate(names)]
    found = reading_of(make_pictures(tmp_path / "in", names), csv_text(table)).checked()
    source = TableSource(tmp_path / "in", found, name="manifest")
    assert source.classes == tuple(map(str, range(11)))


@pytest.mark.parametrize("how", ["file", "copy", "text", "compressed anew", "jpeg"])
def test_images_in_two_splits_are_refused(folder: Path, how: str) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    table = [{**row, "split": {"a": "train", "b": "val"}[row["sequence"]]} for row in rows()]
    image, note = Image.fromarray(picture(1, SIDE, SIDE)), PngInfo()
    note.add_text("Comment", "another")
    if how == "file":
        table[4]["file_name"] = "a/1.png"
    elif how == "copy":
        (folder / "b/1.png").write_bytes((folder / "a/1.png").read_bytes())
    elif how == "text":
        image.save(folder / "b/1.png", pnginfo=note)
    elif how == "compressed anew":
        image.save(folder / "b/1.png", compress_level=0)
    else:
        data = encoded(picture(1, SIDE, SIDE), "jpg")
        (folder / "a/1.png").write_bytes(data)
        (folder / "b/1.png").write_bytes(data[:2] + b"\xff\xfe\x00\x06note" + data[2:])
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert said.count("\n") == 0
    what = "the same file in two splits" if how == "file" else "the same pixels in two splits; --allow-repeats"
    assert "metadata.csv, row 3 (a/1.png, train) and metadata.csv, row 6" in said
    assert what in said
    reading = reading_of(folder, csv_text(table), allow_repeats=True)
    assert (reading.table is None) == (how == "file")


def test_images_that_look_alike_are_not_the_same(folder: Path) -> None:
    table = [{**row, "split": {"a": "train", "b": "val"}[row["sequence"]]} for row in rows()]
    changed = picture(1, SIDE, SIDE).copy()
    changed[0, 0, 0] ^= 1
    (folder / "b/1.png").write_bytes(encoded(changed))
    assert reading_of(folder, csv_text(table)).table is not None


@pytest.mark.parametrize("wrapped", ["", "around/"])
def test_archives_beside_the_table_are_their_folder(folder: Path, tmp_path: Path, wrapped: str) -> None:
    (tmp_path / "metadata.csv").write_text(csv_text(rows()))
    plain = read_manifest(folder, ManifestOptions(tmp_path / "metadata.csv")).checked()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, f"{wrapped}{file.relative_to(folder)}")
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(folder, wrapped or ".")
    for kind in ("in.zip", "in.tar"):
        found = read_manifest(tmp_path / kind, ManifestOptions()).checked()
        assert found.sha256() == plain.sha256()
        contents = found.pictures.contents(np.arange(6))
        assert [content.read() for content in contents] == [  # type: ignore[union-attr]
            (folder / str(row["file_name"])).read_bytes() for row in rows()
        ]


def test_pictures_that_no_row_names_are_said(folder: Path) -> None:
    """A table that was cut; hidden files are none."""
    for name in ("a/._0.png", "@eaDir/0.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert not any("named by no row" in note for note in reading_of(folder, csv_text(rows())).notes)
    assert "2 pictures are named by no row" in reading_of(folder, csv_text(rows()[:4])).notes


def test_which_table_is_meant(folder: Path) -> None:
    with pytest.raises(FormatError, match=r"holds no metadata\.csv, \.jsonl or \.parquet; give"):
        find_manifest(folder, None)
    for name, hint in (
        ("poses.xlsx", r"there is poses\.xlsx; save it as CSV"),
        ("poses.json", r"there is poses\.json; write each record on a line of its own, as \.jsonl"),
        ("a.csv.gz", r"there is a\.csv\.gz; unpack it"),
        ("p.csv", r"--manifest p\.csv\?"),
    ):
        (folder / name).touch()
        with pytest.raises(FormatError, match=hint):
            find_manifest(folder, None)
    (folder / "a/metadata.csv").touch()
    with pytest.raises(FormatError, match=r"there is a/metadata\.csv; --source"):
        find_manifest(folder, None)
    (folder / "metadata.csv").touch()
    assert find_manifest(folder, None) == folder / "metadata.csv"
    assert find_manifest(folder, Path("metadata.csv")) == folder / "metadata.csv"
    (folder / "metadata.jsonl").touch()
    with pytest.raises(FormatError, match=r"holds metadata\.csv and metadata\.jsonl; say which"):
        find_manifest(folder, None)
    with pytest.raises(FormatError, match="there is no such file"):
        find_manifest(folder, Path("table.csv"))


@pytest.mark.parametrize("by", ["frame", "timestamp"])
def test_frames_of_videos(tmp_path: Path, by: str) -> None:
    av = pytest.importorskip("av")
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        with av.open(str(tmp_path / f"in/{name}.mp4"), "w") as file:
            stream = file.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
            for i in range(5):
                pixels = np.full((32, 32, 3), 40 * i + 20 * (name == "b"), np.uint8)
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode())
    table = [
        {"file_name": f"{name}.mp4", by: i if by == "frame" else i / 10, "x": i} for name in "ab" for i in (3, 1, 2)
    ]
    reading = reading_of(tmp_path / "in", csv_text(table))
    found = reading.checked()
    assert "there is no column sequence: each video is one" in reading.notes
    assert (list(found.sequences), found.ordered) == (["a.mp4", "b.mp4"], True)
    levels = [int(pixels.mean()) for pixels in found.pictures.contents(np.arange(6)).load()]  # type: ignore[union-attr]
    assert levels == pytest.approx([40, 80, 120, 60, 100, 140], abs=4)
    table[0][by] = 99
    assert "row 2: a.mp4 has " in mistakes_of(reading_of(tmp_path / "in", csv_text(table)))
    if by == "frame":  # steps that are right do not stand for frames that are not
        ordered = [{**row, "step": row["x"], "frame": cell} for row, cell in zip(table[:3], ("", 1.5, 2), strict=True)]
        said = mistakes_of(reading_of(tmp_path / "in", csv_text(ordered)))
        assert said.splitlines() == ["row 2: frame is empty", "row 3: frame is '1.5', no whole number"]
    else:  # how long after the first row is not where in the video
        dates = [{**row, by: f"2024-05-01T12:00:00.{row['x']}"} for row in table]
        assert "timestamp (seconds into it, no dates)" in mistakes_of(reading_of(tmp_path / "in", csv_text(dates)))
        offsets = pa.array([int(row["x"]) * 100 for row in table], pa.duration("ms"))
        columns = {"file_name": [row["file_name"] for row in table], by: offsets}
        (tmp_path / "in/metadata.csv").unlink()
        pq.write_table(pa.table(columns), tmp_path / "in/metadata.parquet")
        again = read_manifest(tmp_path / "in", ManifestOptions()).checked().pictures
        levels = [int(pixels.mean()) for pixels in again.contents(np.arange(6)).load()]  # type: ignore[union-attr]
        assert levels == pytest.approx([40, 80, 120, 60, 100, 140], abs=4)
    bare = [{"file_name": row["file_name"], "x": row["x"]} for row in table]
    assert "add a column frame (0, 1 …) or timestamp" in mistakes_of(reading_of(tmp_path / "in", csv_text(bare)))


def test_columns_of_bytes_and_pictures_within_the_table_are_no_names(folder: Path) -> None:
    table = pa.table({"file_name": pa.array([b"\xff\xfe", b"a"]), "sequence": ["a", "b"]})
    pq.write_table(table, folder / "metadata.parquet")
    assert "has no image's name" in mistakes_of(read_manifest(folder, ManifestOptions()))
    pq.write_table(pa.table({"image": [{"bytes": b"\xff\xd8", "path": "a.jpg"}]}), folder / "metadata.parquet")
    assert "the pictures are within the table" in mistakes_of(read_manifest(folder, ManifestOptions()))
