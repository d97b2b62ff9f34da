"""What someone with intent does to a set: changes it and makes every checksum fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import FormatError
from shards.machine.files import sha256_of_bytes
from shards.metadata import NO_CHECKSUM
from shards.reader import ShardSet
from shards.verify import verify


def rewrite(folder: Path, change: Callable[[dict], object]) -> None:
    """Changes dataset.json and makes its checksum fit, as someone with intent would."""
    path = folder / "_meta" / "dataset.json"
    record = json.loads(path.read_bytes())
    change(record)
    record["checksum"] = NO_CHECKSUM
    blank = (json.dumps(record, indent=1) + "\n").encode()
    path.write_bytes(blank.replace(NO_CHECKSUM.encode(), sha256_of_bytes(blank).encode()))


def put(*path: Any, value: Any) -> Callable[[dict], object]:
    def change(record: Any) -> None:
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = value

    return change


def put_index(folder: Path, data: bytes) -> None:
    (folder / "_meta" / "index-train.parquet").write_bytes(data)
    rewrite(folder, put("splits", "train", "index_sha256", value=sha256_of_bytes(data)))


def one_line_refusal(folder: Path, found: str) -> None:
    with pytest.raises(FormatError, match=found) as error:
        ShardSet.open(folder).table("train")
    assert "\n" not in str(error.value)
    assert len(verify(folder).problems) == 1


def edit(table: pa.Table, name: str, change: Callable[[np.ndarray], np.ndarray]) -> pa.Table:
    column = table.column(name).combine_chunks()
    width = getattr(column.type, "list_size", 1)
    flat = column.flatten() if width > 1 else column
    values = change(np.array(flat.to_numpy(zero_copy_only=False)).reshape(-1, width)).ravel()
    new = pa.array(values)
    new = pa.FixedSizeListArray.from_arrays(new, width) if width > 1 else new
    return table.set_column(table.column_names.index(name), name, new)


def at(row: int, column: int, value: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values = copy.deepcopy(values)
        values[row, column] = value
        return values

    return change


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def replace_in_tar(folder: Path, number: int, start: int, data: bytes) -> None:
    """Writes `data` at byte `start` of a training shard; its checksum is made to fit."""
    path = folder / f"train-{number:06d}.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:start] + data + whole[start + len(data) :])
    rewrite(folder, put("splits", "train", "shards", number, "sha256", value=sha256_of_bytes(path.read_bytes())))
