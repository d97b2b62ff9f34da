"""Sets come from strangers: whatever dataset.json or an index says, it is checked before it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_sets import build
from tampering import at, edit, one_line_refusal, parquet, put, put_index, rewrite

from shards.describe import describe_set, summarise
from shards.errors import FormatError, SeqJepaError
from shards.machine.files import sha256_of_bytes
from shards.reader import ShardSet
from shards.verify import verify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    build(tmp_path / "set")
    return tmp_path / "set"


def test_no_control_character_of_a_stranger_reaches_the_terminal(folder: Path) -> None:
    rewrite(folder, put("provenance", "made\x1b[2J", value="by\x9b31m\x07"))
    shown = summarise(describe_set(folder))
    assert "made\\x1b[2J: by\\x9b31m\\x07" in shown
    assert all(character.isprintable() or character == "\n" for character in shown)


SHARD = ("splits", "train", "shards", 0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (put("format", value="other"), "does not describe"),
        (put("name", value="toy\x1b]0;owned\x07"), r"the name 'toy\\x1b\]0;owned\\x07' holds control characters"),
        (put("format_version", value=3), r"format version 3, this program reads up to 2: update it"),
        (put("format_version", value="1"), "format_version must be a int"),
        (put("kind", value="tables"), "kind 'tables' is unknown, allowed: views, saliency, image, maps"),
        (put("kind", value="maps"), "storage None is unknown, allowed: float16, log8"),
        (put(*SHARD, "name", value="../../etc/passwd"), "shard train-000000 is called"),
        (put(*SHARD, "name", value="train-000001"), "shard train-000000 is called"),
        (put("splits", "train", "index", value="/etc/passwd"), "index must be _meta/index-train.parquet"),
        (put("splits", "../x", value={}), "is malformed"),
        (put("splits", value=[]), "splits must be a dict"),
        (put("splits", "train", "shards", value=[]), "shards must be 1 to"),
        (put("splits", "train", "shards", value=[1]), "shards must be 1 to"),
        (put("splits", "train", "samples", value=10), "10 samples, its shards have 9"),
        (put(*SHARD, "bytes", value=-5), "bytes is -5"),
        (put(*SHARD, "bytes", value=2**80), "bytes is"),
        (put(*SHARD, "samples", value=True), "samples must be a int"),
        (put(*SHARD, "sha256", value="0" * 63), "not a sha256"),
        (put("spec", "views", value=10**9), "views is 1000000000, allowed are 1 to 1000"),
        (put("spec", "height", value=0), "height is 0"),
        (put("spec", "encoding", value="pickle"), "encoding 'pickle' is unknown"),
        (put("spec", "params", value=[{"name": "x", "unit": "1"}] * 65), "params must be at most 64"),
        (put("spec", "params", value=["x"]), "params must be at most 64 objects of name and unit"),
        (put("spec", "actions", value=[{"op": "difference", "columns": ["nose"]}]), "actions need nose"),
        (put("spec", "params", 0, value={"name": 1, "unit": "rad"}), "name must be a str"),
        (put("classes", value=[1]), "classes must be strings"),
        (put("normalisation", "std", value=[0, 1, 1]), "normalisation.std"),
        (put("normalisation", "mean", value=[0.5]), "normalisation.mean"),
        (put("provenance", value=None), "provenance must be a dict"),
    ],
)
def test_dataset_json_is_checked_field_by_field(folder: Path, change: Callable, found: str) -> None:
    rewrite(folder, change)
    for reading in (ShardSet.open, verify):
        with pytest.raises(FormatError, match=found) as error:
            reading(folder)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000, b"null", b"{}", b"1" * 10_000])
def test_what_is_not_json_is_one_line(folder: Path, data: bytes) -> None:
    (folder / "_meta" / "dataset.json").write_bytes(data)
    with pytest.raises(FormatError) as error:
        ShardSet.open(folder)
    assert "\n" not in str(error.value)
    assert len(verify(folder).problems) == 1


def test_what_is_not_parquet_is_one_line(folder: Path) -> None:
    whole = (folder / "_meta" / "index-train.parquet").read_bytes()
    for data in (b"", b"PAR1", whole[:-9], whole[:100] + whole[-100:], b"\0" * 5000):
        put_index(folder, data)
        one_line_refusal(folder, "not a readable index")


def test_flipped_parquet_never_ends_in_anything_but_our_errors(folder: Path) -> None:
    """Bytes of a hostile index, checksum and all: refused, or read as something that passes every check."""
    whole = (folder / "_meta" / "index-train.parquet").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        put_index(folder, bytes(data))
        with contextlib.suppress(SeqJepaError):
            ShardSet.open(folder).split("train")
            continue
        refused += 1
    assert refused > 150


@pytest.mark.parametrize(
    ("column", "change", "found"),
    [
        ("key", at(1, 0, "../../x"), "has a key that is not"),
        ("key", at(1, 0, "train_0-0"), "two samples have the same key"),
        ("label", at(4, 0, 3), "'train_1-1' has a label without a class"),
        ("label", at(4, 0, -2), "a label without a class"),
        ("n_views", at(0, 0, 0), "an impossible number of views"),
        ("n_views", at(0, 0, 4), "an impossible number of views"),
        ("n_views", at(0, 0, 2), "view numbers that do not fit"),
        ("view_ids", at(2, 1, -1), "view numbers that do not fit"),
        ("view_ids", at(0, 1, -2), "view numbers that do not fit"),
        ("params", at(3, 2, np.nan), "parameters that are not finite"),
        ("shard", at(0, 0, 1), "a shard out of order"),
        ("shard", at(8, 0, 99), "a shard out of order"),
        ("shard", at(8, 0, -1), "a shard out of order"),
        ("lengths", at(0, 0, 0), "impossible length"),
        ("lengths", at(0, 4, -(2**31)), "impossible length"),
        ("lengths", at(0, 0, 417), "impossible length"),
        ("lengths", at(5, 3, 2**31 - 1), "not where the one before it ends"),
        ("offsets", at(0, 0, 0), "'train_0-0' has a member that is not where"),
        ("offsets", at(8, 2, 2**62), "'train_2-2' has a member that is not where"),
        ("offsets", at(8, 2, -(2**63)), "not where"),
    ],
)
def test_an_index_cannot_point_elsewhere(folder: Path, column: str, change: Callable, found: str) -> None:
    table = pq.read_table(folder / "_meta" / "index-train.parquet")
    put_index(folder, parquet(edit(table, column, change)))
    one_line_refusal(folder, found)


def test_an_index_of_another_shape_is_refused(folder: Path) -> None:
    table = pq.read_table(folder / "_meta" / "index-train.parquet")
    broken = {
        "has columns": table.drop_columns("params"),
        "is double, expected int64": edit(table, "label", lambda v: v.astype(float)),
        "has 8 rows, expected 9": table.slice(1),
        "missing values": table.set_column(1, "label", pa.array([None] * 9, pa.int64())),
        "meta columns": table.append_column("meta.x", pa.array([[1]] * 9)),
    }
    for found, wrong in broken.items():
        put_index(folder, parquet(wrong))
        one_line_refusal(folder, found)


def test_tars_that_disagree_with_their_index_are_found(folder: Path) -> None:
    """Every checksum fits, but a label in the tar is not the index's."""
    path = folder / "train-000001.tar"
    data = path.read_bytes()
    where = data.index(b"train_1-1.cls") + 512
    path.write_bytes(data[:where] + b"0" + data[where + 1 :])
    rewrite(folder, put("splits", "train", "shards", 1, "sha256", value=sha256_of_bytes(path.read_bytes())))
    assert verify(folder).problems == ["train-000001.tar: sample 'train_1-1' is not what the index says"]
    path.write_bytes(data[:512] + bytes(len(data) - 512))
    rewrite(folder, put("splits", "train", "shards", 1, "sha256", value=sha256_of_bytes(path.read_bytes())))
    assert len(verify(folder).problems) == 3
