"""Tables as people have them: each is read as it was meant, with a line that says so, or refused with its rows."""

from __future__ import annotations

import datetime
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from small_images import encoded, picture
from small_manifest import SIDE, csv_text, make_pictures, mistakes_of, reading_of, rows
from typer.testing import CliRunner

import cli
from pipelines.build.views import shard_views
from pipelines.sources.manifest import ManifestOptions, ReadViews, read_manifest
from pipelines.sources.split_folders import class_names
from pipelines.sources.table import TableSource, ViewTable
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet

X = [0.0, 0.5, 1.0, -1.0, -0.5, 0.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_pictures(tmp_path / "in")


def values(table: ViewTable, name: str) -> list[float]:
    return table.params[:, [field.name for field in table.fields].index(name)].tolist()


def check_plain(table: ViewTable) -> None:
    """It is what rows() says, whatever the file looked like."""
    assert list(table.sequences) == ["a", "b"]
    assert table.of.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.steps.tolist() == [0, 1, 2, 0, 1, 2]
    assert values(table, "x") == X
    assert list(table.labels) == ["cat a", "cat b"]
    assert [table.pictures.name(row) for row in range(6)] == [row["file_name"] for row in rows()]


def test_a_plain_table(folder: Path) -> None:
    reading = reading_of(folder, csv_text(rows()))
    check_plain(reading.checked())
    assert reading.notes == ["no column split, no --val-fraction: all is training"]
    assert reading.checked().where(0) == "metadata.csv, row 2"


def test_the_order_of_rows_does_not_matter(folder: Path) -> None:
    table = reading_of(folder, csv_text(rows()[::-1])).checked()
    check_plain(table)
    assert table.where(0) == "metadata.csv, row 7"
    assert table.sha256() == reading_of(folder, csv_text(rows())).checked().sha256()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_marks_and_encodings(folder: Path, encoding: str) -> None:
    """Excel writes UTF-8 with a BOM, "Unicode text" is UTF-16, and plain CSV is what Windows speaks."""
    table = [{**row, "label": row["label"].replace("cat", "Käfer")} for row in rows()]
    reading = reading_of(folder, csv_text(table).encode(encoding))
    assert list(reading.checked().labels) == ["Käfer a", "Käfer b"]
    said = {"utf-8-sig": 0, "utf-16": "UTF-16", "utf-32": "UTF-32", "cp1252": "Windows-1252"}[encoding]
    assert not said or any(str(said) in note for note in reading.notes)


@pytest.mark.parametrize(("delimiter", "word"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_separators(folder: Path, delimiter: str, word: str) -> None:
    reading = reading_of(folder, csv_text(rows(), delimiter, "\r\n"))
    check_plain(reading.checked())
    assert f"columns are parted by {word}" in reading.notes


def test_excels_csv_where_commas_are_decimal(folder: Path) -> None:
    """Semicolons, decimal commas, "sep=;" in front, Windows' encoding and ends of lines, an empty line at the end."""
    table = [{**row, "x": str(row["x"]).replace(".", ",")} for row in rows()]
    text = "sep=;\r\n" + csv_text(table, ";", "\r\n") + ";;;;\r\n"
    reading = reading_of(folder, text.encode("cp1252"))
    check_plain(reading.checked())
    assert "decimal commas are read in x" in reading.notes
    assert reading.checked().where(0) == "metadata.csv, row 3"


def test_what_may_be_thousands_is_refused(folder: Path) -> None:
    table = [{**row, "x": f"1,{100 + row['step']}"} for row in rows()]
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert "row 2: x is '1,100': a thousands separator, or a decimal comma? write 1234 or 1.234" in said


def test_points_and_commas_in_one_column_are_refused(folder: Path) -> None:
    table = rows()
    table[2]["x"], table[3]["x"] = "0,5", "1.234,5"
    said = mistakes_of(reading_of(folder, csv_text(table, ";")))
    assert "row 4: x is '0,5'" in said
    assert "row 5: x is '1.234,5'" in said


def test_rows_that_repeat_are_refused(folder: Path) -> None:
    said = mistakes_of(reading_of(folder, csv_text([*rows(), rows()[1]])))
    assert said == "row 8: repeats row 3: the same sequence and step '1'"
    without = [{name: value for name, value in row.items() if name != "step"} for row in [*rows(), rows()[1]]]
    assert (
        mistakes_of(reading_of(folder, csv_text(without)))
        == "row 8: repeats row 3: the same image of the same sequence"
    )


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd.png", "is an absolute path"),
        ("C:\\photos\\1.png", "is an absolute path"),
        ("../in/a/0.png", "leaves the source"),
        ("a/../../x.png", "leaves the source"),
        ("https://host/1.png", "is an address"),
        ("a/9.png", "a/9.png is not there"),
        ("A/0.PNG", "is not there (there is a/0.png)"),
        ("a/0", "is not there (there is a/0.png)"),
        ("0.png", "is not there (there is "),
        ("a", "a is not there"),
        ("a/0.tif", "has a kind that is not read"),
        ("", "has no image's name"),
    ],
)
def test_names_of_images(folder: Path, name: str, why: str) -> None:
    table = rows()
    table[0]["file_name"] = name
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert said.startswith("row 2: ")
    assert why in said
    assert said.count("\n") == 0


def test_accents_that_a_mac_spells_otherwise(folder: Path) -> None:
    """Both names look the same."""
    (folder / "a/0.png").rename(folder / "a/cafe\u0301.png")
    table = rows()
    table[0]["file_name"] = "a/caf\xe9.png"
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert said.startswith("row 2: a/caf\xe9.png is not there (there is a/caf")
    assert said.endswith(", whose accents are spelled otherwise (Unicode NFC and NFD); rename it)")


def test_names_as_windows_writes_them(folder: Path) -> None:
    table = [{**row, "file_name": ".\\" + row["file_name"].replace("/", "\\")} for row in rows()]
    reading = reading_of(folder, csv_text(table))
    check_plain(reading.checked())
    assert any("is read as /" in note for note in reading.notes)


def test_images_of_several_sizes_and_kinds(folder: Path, tmp_path: Path) -> None:
    """16 bits of grey, alpha, a palette, a JPEG called PNG: as PIL converts them; sizes differ only with --size."""
    deep = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 257 % 65536).astype(np.uint16)
    Image.fromarray(deep).save(folder / "a/0.png")
    rgba = np.dstack([picture(1, SIDE, SIDE), np.full((SIDE, SIDE), 77, np.uint8)])
    Image.fromarray(rgba).save(folder / "a/1.png")
    Image.fromarray(picture(2, SIDE, SIDE)).quantize(16).save(folder / "a/2.png")
    (folder / "b/0.png").write_bytes(encoded(picture(3, SIDE, SIDE), "jpg"))
    table = reading_of(folder, csv_text(rows())).checked()
    shard_views(TableSource(folder, table, name="manifest"), tmp_path / "out", workers=0, size=None, encoding="raw")
    found = ShardSet.open(tmp_path / "out").split("train")
    assert np.array_equal(found.read_view(0, 0)[..., 0], ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8))
    assert np.array_equal(found.read_view(0, 1), picture(1, SIDE, SIDE))
    assert np.array_equal(found.read_view(0, 2), np.asarray(Image.open(folder / "a/2.png").convert("RGB")))
    (folder / "b/1.png").write_bytes(encoded(picture(4, 20, 30)))
    with pytest.raises(FormatError, match=r"1 bad so far.*b/1\.png: 30×20 pixels, the others have 16×16"):
        shard_views(TableSource(folder, table, name="manifest"), tmp_path / "two", workers=0, size=None)
    shard_views(TableSource(folder, table, name="manifest"), tmp_path / "two", workers=0, size=12, fit="crop")


def test_two_units_of_one_column_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="--unit x is deg and m; give one of them"):
        reading_of(folder, csv_text(rows()), units=("x=deg", "x=m"))
    assert reading_of(folder, csv_text(rows()), units=("x=m", "x=m")).checked().fields[0].unit == "m"


def test_units_that_are_too_long_are_refused_wherever_they_stand(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--unit 'x=m+': a unit has at most 16 characters, e\.g\. yaw=deg"):
        reading_of(folder, csv_text(rows()), units=("x=" + "m" * 17,))
    (folder / "actions.toml").write_text(f'[units]\nx = "{"m" * 17}"\n')
    assert "the unit of x must be a short text" in mistakes_of(reading_of(folder, csv_text(rows())))


def test_where_no_image_can_be_decoded_one_is_named(folder: Path, tmp_path: Path) -> None:
    for row in rows():
        (folder / row["file_name"]).write_bytes(b"no picture")
    table = reading_of(folder, csv_text(rows())).checked()
    with pytest.raises(FormatError, match=r"can be decoded, e\.g\. [ab]/[012]\.png: not a JPEG, PNG, WebP or BMP"):
        shard_views(TableSource(folder, table, name="manifest"), tmp_path / "out", workers=0, size=None)


def test_a_table_without_rows_or_a_sequence_without_a_name(folder: Path) -> None:
    header = csv_text(rows()).splitlines()[0]
    with pytest.raises(FormatError, match=r"metadata\.csv has no row"):
        reading_of(folder, header + "\n")
    with pytest.raises(FormatError, match=r"0 columns"):
        reading_of(folder, "")
    table = rows()
    table[4]["sequence"] = ""
    assert "row 6: sequence is empty" in mistakes_of(reading_of(folder, csv_text(table)))


@pytest.mark.parametrize("bad", ["nan", "", "NaN", "n/a", "inf", "1e39"])
def test_what_is_no_number(folder: Path, bad: str) -> None:
    table = rows()
    table[3]["x"] = bad
    said = mistakes_of(reading_of(folder, csv_text(table)))
    assert said.startswith("row 5: x is ")
    assert ("empty or NaN" in said) == (bad not in ("inf", "1e39"))


def test_text_among_numbers_is_refused_and_a_column_of_text_is_left_out(folder: Path) -> None:
    table = [{**row, "note": f"seen {row['step']}"} for row in rows()]
    table[0]["note"], table[3]["x"] = "7", "about 3"
    reading = reading_of(folder, csv_text(table))
    assert mistakes_of(reading) == "row 5: x is 'about 3', no number"
    assert "left out, being no numbers: note (text)" in reading.notes
    columns = {name: pa.array([row[name] for row in rows()]) for name in rows()[0]}
    pq.write_table(
        pa.table({**columns, "note": pa.array(["seen"] * len(rows()), pa.large_string())}), folder / "t.parquet"
    )
    reading = read_manifest(folder, ManifestOptions(folder / "t.parquet"))
    assert "left out, being no numbers: note (text)" in reading.notes


def test_lines_within_quotes_count_once(folder: Path) -> None:
    table = [{"note": 'two\nlines, "quoted"', **row} for row in rows()]
    check_plain(reading_of(folder, csv_text(table)).checked())
    table[5]["x"] = "?"
    assert mistakes_of(reading_of(folder, csv_text(table))).startswith("row 7: x is '?'")


def test_rows_of_other_lengths_and_open_quotes(folder: Path) -> None:
    lines = csv_text(rows()).splitlines()
    lines[2] += ",more"
    lines[4] = "b/1.png,b"
    lines[6] = '"' + lines[6]
    said = mistakes_of(reading_of(folder, "\n".join(lines) + "\n"))
    assert "row 3 has 6 cells, the header 5 (a comma within a value has to be quoted)" in said
    assert "row 5 has 2 cells, the header 5" in said
    assert "row 7: " in said
    assert "is a quote not closed?" in said


def test_a_header_that_is_missing_or_odd(folder: Path) -> None:
    body = "\n".join(csv_text(rows()).splitlines()[1:])
    said = mistakes_of(reading_of(folder, body))
    assert "no column is called file_name or image" in said
    assert "is the first row of names missing?" in said
    text = csv_text(rows())
    with pytest.raises(FormatError, match="two columns 'x'"):
        reading_of(folder, text.replace("label", "x", 1))
    with pytest.raises(FormatError, match="column 4 has no name"):
        reading_of(folder, text.replace("step,x,", "step,,", 1))
    reading = reading_of(folder, text.replace("file_name", " File_Name ", 1))
    check_plain(reading.checked())
    assert "column 'File_Name' is taken as file_name" in reading.notes


def test_an_index_of_pandas_is_passed_over(folder: Path) -> None:
    lines = csv_text(rows()).splitlines()
    check_plain(reading_of(folder, "\n".join(f"{i - 1 if i else ''},{line}" for i, line in enumerate(lines))).checked())


def test_dates_of_parquet_are_times(folder: Path) -> None:
    days = [datetime.date(2024, 2, 28 + i) if i < 2 else datetime.date(2024, 3, 1) for i in (0, 1, 2)]
    table = pa.table({**pa.Table.from_pylist(rows()).to_pydict(), "timestamp": pa.array(days * 2)}).drop(["step"])
    pq.write_table(table, folder / "t.parquet")
    found = read_manifest(folder, ManifestOptions(folder / "t.parquet")).checked()
    assert values(found, "timestamp") == [0, 86400, 172800] * 2


def test_points_beside_decimal_commas(folder: Path) -> None:
    """1.234 is 1234 where other columns have decimal commas, and 1.234 in a file of points."""
    table = [{**row, "x": str(row["x"]), "y": f"{i + 1}.500", "z": "0.5"} for i, row in enumerate(rows())]
    assert values(reading_of(folder, csv_text(table, ";")).checked(), "y")[:2] == [1.5, 2.5]
    commas = [{**row, "x": row["x"].replace(".", ",")} for row in table]
    assert mistakes_of(reading_of(folder, csv_text(commas, ";"))) == (
        "y has points before three digits, and x decimal commas: do they part thousands? write 1234 or 1,234, or "
        "--ignore y"
    )
    plain = [{**row, "y": row["y"] + "1"} for row in commas]
    assert values(reading_of(folder, csv_text(plain, ";")).checked(), "y")[0] == pytest.approx(1.5001)


def test_columns_that_pandas_had_to_name_are_left_out(folder: Path) -> None:
    table = [{"Unnamed: 0": i, **row, "Unnamed: 5_level_1": i * 0.5} for i, row in enumerate(rows())]
    reading = reading_of(folder, csv_text(table))
    check_plain(reading.checked())
    assert [field.name for field in reading.checked().fields] == ["x"]
    assert "left out, being without a name of their own: Unnamed: 0, Unnamed: 5_level_1" in reading.notes
    table = [{"Unnamed: 0": row["file_name"], **{**row, "file_name": i}} for i, row in enumerate(rows())]
    named = reading_of(folder, csv_text(table), columns={"image": "Unnamed: 0"}).checked()
    assert [field.name for field in named.fields] == ["file_name", "x"]


def test_large_whole_numbers(folder: Path) -> None:
    """As steps they are exact; as numbers they are rounded, which is said; larger ones than 64 bits are refused."""
    start = 1_700_000_000_000
    table = [{**row, "step": start + 40 * row["step"], "id": 123456789 + row["step"]} for row in rows()]
    reading = reading_of(folder, csv_text(table))
    assert reading.checked().steps.tolist() == [0, 1, 2, 0, 1, 2]
    assert reading.checked().settled["step_divisor"] == 40
    assert any("id has whole numbers such as 123456789, which are rounded" in note for note in reading.notes)
    table[1]["step"] = 10**19
    assert "row 3: step is '10000000000000000000', no whole number" in mistakes_of(reading_of(folder, csv_text(table)))


@pytest.mark.parametrize("number", [3e38, -1e30])
def test_numbers_whose_differences_a_float32_may_not_hold(folder: Path, number: float) -> None:
    """What loggers write where there is no reading. The action from −3e38 to 3e38 was infinite."""
    table = [{**row, "x": number if row["step"] == 1 else 0.5} for row in rows()]
    found = mistakes_of(reading_of(folder, csv_text(table)))
    assert found.splitlines()[0] == f"row 3: x is {number}; finite numbers below 1e+30 are allowed"
    assert reading_of(folder, csv_text([{**row, "x": 9e29} for row in rows()])).checked()


def test_steps_in_nanoseconds_and_beside_no_time(folder: Path) -> None:
    """19 digits are a whole number. int64's least, as NumPy writes NaT, lies further from them than int64 holds."""
    stamps = [1_600_000_000_000_000_000 + 50_000_000 * number for number in (0, 1, 2)] * 2
    table = [{**row, "step": stamp} for row, stamp in zip(rows(), stamps, strict=True)]
    check_plain(reading_of(folder, csv_text(table)).checked())
    table[0]["step"] = np.iinfo(np.int64).min
    pq.write_table(pa.Table.from_pylist(table), folder / "metadata.parquet")
    found = mistakes_of(read_manifest(folder, ManifestOptions(folder / "metadata.parquet")))
    assert found == "\n".join(f"row {row}: step is too far from its sequence's first" for row in (2, 3))


def test_numbers_that_are_text_in_parquet_and_json(folder: Path) -> None:
    text = [{**row, "x": str(row["x"]), "step": f"{row['step']}.0"} for row in rows()]
    pq.write_table(pa.Table.from_pylist(text), folder / "metadata.parquet")
    check_plain(read_manifest(folder, ManifestOptions()).checked())
    (folder / "metadata.parquet").unlink()
    mixed = [{**row, "x": row["x"] if row["step"] else str(row["x"])} for row in rows()]
    check_plain(reading_of(folder, "\n".join(map(json.dumps, mixed)), "m.jsonl").checked())


def test_labels_of_several_types_in_a_long_file_of_json_lines(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once those of a block with texts alone got quotes, and null was a class."""
    monkeypatch.setattr(sys.modules["pipelines.sources.manifest.read_table"], "BLOCK", 2)
    table = [{**row, "label": (None, "3", 3)[(row["sequence"] == "b") + (i > 3)]} for i, row in enumerate(rows())]
    assert reading_of(folder, "\n".join(map(json.dumps, table)), "m.jsonl").checked().labels == [None, "3"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pose": {"x": 1}, "pose.x": 5}, "m.jsonl has two columns 'pose.x'"),
        ({"": 5}, "column 6 has no name"),
    ],
)
def test_columns_of_json_have_names_of_their_own(folder: Path, more: dict, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        reading_of(folder, "\n".join(json.dumps(row | more) for row in rows()), "m.jsonl")


def test_keys_that_come_twice(folder: Path) -> None:
    text = "\n".join(map(json.dumps, rows())).replace('"x": 0.5', '"x": 0.5, "x": 7')
    assert "line 2 is no JSON ('x' occurs twice)" in mistakes_of(reading_of(folder, text, "m.jsonl"))


def test_half_a_character_in_json(folder: Path) -> None:
    lines = [json.dumps({**row, "label": "\U0001f408"}) for row in rows()]
    assert class_names(reading_of(folder, "\n".join(lines), "m.jsonl").checked().labels) == ("\U0001f408",)
    lines[1] = lines[1].replace("\\udc08", "")
    said = mistakes_of(reading_of(folder, "\n".join(lines), "m.jsonl"))
    assert r"line 2 is no JSON ('utf-8' codec can't encode character '\ud83d'" in said


def test_names_that_may_be_meant_as_none_or_as_one(folder: Path) -> None:
    def reading(column: str, of_a: str, of_b: str) -> ReadViews:
        return reading_of(
            folder, csv_text([{**row, column: of_a if row["sequence"] == "a" else of_b} for row in rows()])
        )

    for column in ("label", "sequence", "split"):
        line = f"{column} 'NaN' is taken for a name; where there is none, leave its cell empty"
        assert line in reading(column, "NaN", "b").notes
    for column in ("label", "sequence"):
        said = mistakes_of(reading(column, "caf\xe9", "cafe\u0301"))
        assert rf"{column} has 'cafe\u0301' and 'caf\xe9', one name in two spellings" in said
    assert (
        "classes that differ in upper and lower case, blanks or leading zeros alone: 'Cat' and 'cat'"
        in reading("label", "Cat", "cat").notes
    )


def test_labels_that_are_numbers(folder: Path) -> None:
    """pandas writes 3 as 3.0 where a cell is empty: the same class, and no text that 10.0 comes before."""

    def reading(of_a: str, of_b: str) -> ReadViews:
        labelled = [{**row, "label": of_a if row["sequence"] == "a" else of_b} for row in rows()]
        return reading_of(folder, csv_text(labelled))

    def classes(of_a: str, of_b: str) -> tuple[str, ...]:
        return class_names(reading(of_a, of_b).checked().labels)

    assert classes("10.0", "9.0") == classes("10", "9.") == ("9", "10")
    assert classes("3", "3.0") == ("3",)
    assert classes("", "3.0") == ("3",)
    assert classes("-2", "-10") == ("-10", "-2")
    assert classes("1.0", "1.5") == ("1.0", "1.5")  # versions, say
    line = "label '-1' is taken for a name; where there is none, leave its cell empty"
    assert [line in reading("-1", other).notes for other in ("0", "bad")] == [True, False]


def test_labels_that_are_lists_or_no_text(folder: Path) -> None:
    """Once they were no labels, without a word."""
    lists = [{**row, "label": [row["label"]]} for row in rows()]
    said = mistakes_of(reading_of(folder, "\n".join(map(json.dumps, lists)), "m.jsonl"))
    assert said.startswith("column label holds list<item: string>, of which no label can be made")
    pq.write_table(pa.Table.from_pylist([{**row, "label": b"\xff"} for row in rows()]), folder / "metadata.parquet")
    assert "column label holds binary, of" in mistakes_of(read_manifest(folder, ManifestOptions()))


def test_lines_that_are_no_json(folder: Path) -> None:
    lines = [json.dumps(row) for row in rows()]
    lines[1], lines[2] = "[1, 2]", '{"file_name": "a'
    lines[4] = lines[4].replace('"x": -0.5', '"x": NaN')
    said = mistakes_of(reading_of(folder, "\n\n".join(lines), "m.jsonl"))
    assert "line 3 is no JSON object" in said
    assert "line 5 is no JSON" in said
    assert "line 9: x is empty or NaN" in said


def test_a_file_that_is_no_table(folder: Path) -> None:
    for name, content, why in (
        ("m.parquet", b"PAR1 nothing", "not a readable Parquet file"),
        ("m.csv", b"a,b\n\0\0,1\n", "NUL"),
        ("m.xlsx", b"PK", "no table that is read"),
    ):
        with pytest.raises(FormatError, match=why):
            reading_of(folder, content, name)


def mutated(text: bytes, rng: random.Random) -> bytes:
    data = bytearray(text)
    pieces = [
        b'"',
        b"\n",
        b",",
        b";",
        b"..",
        b"/",
        b"nan",
        b"1e400",
        b"\xef\xbb\xbf",
        b"\xff",
        b"9" * 20,
        b"1,5",
        b"\0",
        b"{",
        b"]",
    ]
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        data[at : at + rng.choice((0, 0, 1, 8))] = rng.choice(pieces)
    return bytes(data)


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_whatever_a_table_holds_it_is_read_or_refused_in_words(folder: Path, name: str) -> None:
    """Damaged at random, and cells of every type where others are expected."""
    rng, ends = random.Random(0), set()
    table = [{**row, "pose": [[1.0, 0.0], [0.0, 1.0]], "t": {"a": 1}, "split": "train"} for row in rows()]
    cells = [None, 1.5, "x", "", [], [1], [[1, 2], [3]], {"a": 1}, True, 10**30, float("nan"), "1,5", [None], [["a"]]]
    for number in range(60):
        made = [dict(row) for row in table]
        for row in made if number % 2 else made[:1]:
            row[rng.choice([*table[0], "timestamp", "frame"])] = rng.choice(cells)
        if name == "m.parquet":
            pq.write_table(pa.Table.from_pylist(table), folder / name)
            data = mutated((folder / name).read_bytes(), rng)
        else:
            text = csv_text(rows()) if name == "m.csv" else "\n".join(map(json.dumps, made))
            data = mutated(text.encode(), rng) if number % 3 or name == "m.csv" else text.encode()
        try:
            ends.add(reading_of(folder, data, name).table is None)
        except FormatError:
            ends.add(None)
    assert {True, None} & ends
    made = [{**row, "split": None} for row in table]
    said = mistakes_of(reading_of(folder, "\n".join(map(json.dumps, made)), "m.jsonl"))
    assert "line 1: split is empty" in said


@pytest.mark.parametrize(
    ("origin", "step", "lost"), [(4649776.22, 0.1, True), (48.137154, 1e-6, True), (1e3, 1, False)]
)
def test_changes_that_a_float32_loses_are_said(folder: Path, origin: float, step: float, lost: bool) -> None:
    """UTM coordinates, degrees of latitude: differences of what is stored are not those of the table."""
    table = [{**row, "x": origin + step * row["step"]} for row in rows()]
    reading = reading_of(folder, csv_text(table))
    stored = np.diff(reading.checked().params[:3, 0].astype(np.float64))
    assert np.allclose(stored, step, rtol=0.02) != lost
    assert any(note.startswith("x is stored in float32, where") for note in reading.notes) == lost


def test_quaternions_in_another_order_are_told_by_their_names(folder: Path) -> None:
    """w, x, y, z as Blender and COLMAP have it: a rotation too, but not the one that was meant."""
    table = csv_text([{**row, "qw": 1.0, "qx": 0.1 * row["step"], "qy": 0.0, "qz": 0.5} for row in rows()])
    term = '[[action]]\nop = "relative_rotation"\nfrom = "quaternion_xyzw"\ncolumns = ["{}", "{}", "{}", "{}"]\n'
    (folder / "actions.toml").write_text(term.format("qw", "qx", "qy", "qz"))
    said = mistakes_of(reading_of(folder, table))
    assert said == "actions.toml, action 1: qw, qx, qy, qz are wxyz by their names; name them as xyzw"
    (folder / "actions.toml").write_text(term.format("qx", "qy", "qz", "qw"))
    assert reading_of(folder, table).checked().actions


def test_angles_in_another_order_are_told_by_their_names(folder: Path) -> None:
    """euler_xyz turns about x, then y, then z: rz, ry, rx of a log were taken for rx, ry, rz."""
    table = [{**row, "rx": 0.1, "ry": 0.2, "rz": 0.3} for row in rows()]
    for columns, told in ((["rx", "ry", "rz"], 0), (["rz", "ry", "rx"], 1)):
        (folder / "actions.toml").write_text(
            f'[units]\nrx = "rad"\nry = "rad"\nrz = "rad"\n[[action]]\nop = "relative_rotation"\ncolumns = {columns}\n'
        )
        found = reading_of(folder, csv_text(table))
        assert found.mistakes.count == told
    said = "rz, ry, rx are zyx by their names; name them as xyz: turns about the fixed axes x, then y, then z"
    assert mistakes_of(found) == f"actions.toml, action 1: {said}"


@pytest.mark.parametrize("names", ["qw qx qy qz tx ty tz", "rx ry rz x y z"])
def test_a_pose_whose_rotation_comes_first(folder: Path, names: str) -> None:
    """COLMAP's order: qz, tx, ty, tz were taken for a quaternion."""
    columns = names.split()
    table = csv_text([{**row, **dict.fromkeys(columns, 0.5)} for row in [{**r, "x": 0} for r in rows()]])
    for order in (columns, columns[-3:] + ([*columns[1:4], columns[0]] if len(columns) == 7 else columns[:3])):
        angles = "".join(f'{name} = "rad"\n' for name in order[3:])
        (folder / "actions.toml").write_text(
            f'[units]\n{angles}[[action]]\nop = "relative_pose"\ncolumns = {json.dumps(order)}\n'
        )
        told = [line for line in reading_of(folder, table).mistakes.first if "rotation by their names" in line]
        assert len(told) == (order is columns)


def test_units_of_names_with_dots(folder: Path) -> None:
    """To TOML state.x is a table in a table."""
    table = [{**row, "state.x": 90, "state.a.b": 180} for row in rows()]
    (folder / "actions.toml").write_text('[units]\nstate.x = "deg"\nstate.a.b = "deg"\nx = "m"\n')
    found = reading_of(folder, csv_text(table)).checked()
    assert [field.unit for field in found.fields] == ["m", "rad", "rad"]
    (folder / "actions.toml").write_text("[units]\n" + "a." * 5000 + 'a = "deg"\n')
    assert "must be a short text" in mistakes_of(reading_of(folder, csv_text(table)))


def test_lists_that_a_csv_has_as_texts(folder: Path) -> None:
    """As pandas writes a column of lists."""
    pose = [f"[{row['step']}, 0.5, -1e-3]" for row in rows()]
    made = csv_text([{**row, "pose": text} for row, text in zip(rows(), pose, strict=True)])
    found = reading_of(folder, made).checked()
    assert [field.name for field in found.fields] == ["x", "pose.0", "pose.1", "pose.2"]
    np.testing.assert_array_equal(found.params[:, 1:3], [[step, 0.5] for step in (0, 1, 2) * 2])
    short = made.replace("[1, 0.5, -1e-3]", "[1]").replace("[2, 0.5, -1e-3]", "", 1)
    assert mistakes_of(reading_of(folder, short)).splitlines() == [
        "row 3: pose is [1]; 3 numbers are needed, as in most rows",
        "row 6: pose is [1]; 3 numbers are needed, as in most rows",
        "row 4: pose is empty or NaN",
    ]


@pytest.mark.parametrize(
    ("cell", "numbers"),
    [
        ("[ 1.  -2.e-3\n 3.]", [1, -2e-3, 3]),  # NumPy's
        ("[[1. 2.]\n [3. 4.]]", [1, 2, 3, 4]),
        ("[ True False]", [1, 0]),
        ("[np.float64(1.5), np.int64(2)]", [1.5, 2]),  # of a list since NumPy 2
        ("(1, 2.5)", [1, 2.5]),
        ("[1.0, None]", "row 2: pose is empty or NaN"),
        ("[1. inf]", "row 2: pose is [1. inf]; finite numbers"),
        ("[1. 2. ... 9.]", "pose (text, such as '[1. 2. ... 9.]')"),
        ("(1,234)", "pose (text, such as '(1,234)')"),  # −1234 of an accountant
        ("1/2", "pose (text, such as '1/2')"),
        ("30%", "pose (text, such as '30%')"),
        ("[1, 0.5", "pose (text, such as '[1, 0.5')"),
        ("[a]", "pose (text)"),
        ("[" * 5000, "pose (text)"),
    ],
)
def test_cells_that_may_be_numbers(folder: Path, cell: str, numbers: list[float] | str) -> None:
    """As Python and NumPy write lists; what is not read of a column is shown."""
    whole = "[3, 4]" if "None" in cell else cell
    reading = reading_of(folder, csv_text([{**row, "pose": whole if row["step"] else cell} for row in rows()]))
    if isinstance(numbers, str):
        assert any(numbers in line for line in [*reading.notes, *reading.mistakes.first]), reading
    else:
        np.testing.assert_array_equal(reading.checked().params[:, 1:], np.array([numbers] * 6, np.float32))


@pytest.mark.parametrize(
    ("unit", "stored", "factor"),
    [
        ("Deg", "rad", np.pi / 180),
        ("radians", "rad", 1),
        ("turn", "rad", 2 * np.pi),
        ("mrad", "rad", 1e-3),
        ("cm", "cm", 1),
    ],
)
def test_units_of_angles(folder: Path, unit: str, stored: str, factor: float) -> None:
    """In any spelling; turns were differences that did not wrap, without a word."""
    table = reading_of(folder, csv_text(rows()), units=(f"x={unit}",)).checked()
    assert table.fields[0].unit == stored
    np.testing.assert_allclose(values(table, "x"), factor * np.array(X), rtol=1e-6)


def test_a_unit_of_times_that_is_not_known_is_refused(folder: Path) -> None:
    """Minutes were stored as if they were seconds."""
    table = csv_text([{**row, "timestamp": 0.5 * row["step"]} for row in rows()])
    said = mistakes_of(reading_of(folder, table, units=("timestamp=min",)))
    assert said == "timestamp is in 'min'; times are in s, ms, us, ns, or dates"


def test_a_mistake_of_one_kind_does_not_make_others(folder: Path) -> None:
    """Names that are refused are no repetitions of each other; a time that cannot be read has no unit to declare."""
    table = [{**row, "timestamp": "31/12/2024"} for row in rows()]
    table = [{name: value for name, value in row.items() if name != "step"} for row in table]
    table[0]["file_name"], table[1]["file_name"] = "a/0.gif", "a/1.gif"
    said = mistakes_of(reading_of(folder, csv_text(table))).splitlines()
    assert [line.partition(": ")[2][:20] for line in said[:2]] == ["a/0.gif has a kind t", "a/1.gif has a kind t"]
    assert said[2:] == ["timestamp holds no times: seconds, or dates such as 2024-05-01T12:00:00.25"]


def test_what_is_no_file(folder: Path) -> None:
    """A folder or a pipe where a file is expected: told as what it is, never passed over or waited for."""
    (folder / "a/0.png").unlink()
    os.mkfifo(folder / "a/0.png")
    assert mistakes_of(reading_of(folder, csv_text(rows()))) == "row 2: a/0.png is no file: fifo (there is b/0.png)"
    (folder / "actions.toml").mkdir()
    with pytest.raises(FormatError, match=r"actions\.toml is no file: remove it, or give another with --actions"):
        reading_of(folder, csv_text(rows()))
    (folder / "metadata.csv").unlink()
    (folder / "metadata.csv").mkdir()
    with pytest.raises(FormatError, match=r"holds no metadata\.csv, \.jsonl or \.parquet; give the table"):
        read_manifest(folder, ManifestOptions())


def test_mistakes_of_every_kind_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    """Many of one kind do not hide the one of another; nothing is written; the exit code is 2."""
    table = [
        {"file_name": f"gone/{i}.png", "sequence": f"s{i // 4}", "step": i % 4, "x": i, "split": "train"}
        for i in range(200)
    ]
    table[5]["x"], table[9]["split"], table[13]["step"] = "", "val", "soon"
    (folder / "metadata.csv").write_text(csv_text(table))
    words = ["shard", "manifest", "--source", str(folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.seqjepa_data_app, words)
    said = result.output + (result.stderr if result.stderr_bytes else "")
    assert result.exit_code == 2
    assert "203 mistakes: " in said
    for line in (
        "row 7: x is empty",
        "row 11: split 'val', but row 10",
        "row 15: step is 'soon'",
        "gone/0.png is not there",
    ):
        assert line in said, line
    assert "and 18" in said
    assert not (tmp_path / "out").exists()
