"""Columns of Parquet files of unknown origin: numbers, and images as Hugging Face's `Image` feature keeps them.

A cell of images is {"bytes": an image file's bytes, "path": its name}, or the bytes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from pipelines.archives import Content
from pipelines.sources.content import file_stats, pieces_sha256, stamp_of
from shards.errors import FormatError, reason_of
from shards.machine.environment import pass_environment_on

SAMPLED_FILES = 16  # a cell is read with all of its row group


def read_parquet(path: Path, names: list[str] | None) -> Any:
    """These columns, or all, as a pyarrow table. FormatError: a column is missing, or the file cannot be read."""
    try:
        file = pq.ParquetFile(path)
        there = file.schema_arrow.names
        if missing := [name for name in names or () if name not in there]:
            raise FormatError(f"{path} has no column {', '.join(missing)}; there are {', '.join(there)}")
        table = file.read(columns=names, use_threads=False)
        table.validate()
        return table
    except FileNotFoundError as error:
        raise FormatError(f"{path} is not there: the set is not complete; copy it again") from error
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        pass_environment_on(error)
        raise FormatError(f"{path} cannot be read ({reason_of(error)[:200]}): copy it again") from error


def numbers_of(table: Any, name: str, path: Path, size: int = 1) -> np.ndarray:
    """A column of numbers, or of lists of `size` numbers at any depth → float64 or int64 [rows, size].

    FormatError: missing values, other lengths, or no numbers.
    """
    values = table[name].combine_chunks()
    if isinstance(values, pa.ChunkedArray):  # of no chunk
        values = pa.concat_arrays(values.chunks) if values.num_chunks else pa.array([], values.type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    nulls = values.null_count
    while kinds.is_list(values.type) or kinds.is_large_list(values.type) or kinds.is_fixed_size_list(values.type):
        lengths = values.value_lengths().drop_null().to_numpy()
        if len(lengths) and (lengths != lengths[0]).any():
            raise FormatError(f"{path}: {name} has {lengths.min()} to {lengths.max()} numbers a row, {size} are needed")
        values = values.flatten()
        nulls += values.null_count
    if nulls:
        raise FormatError(f"{path}: {name} has {nulls} missing values")
    if not (kinds.is_integer(values.type) or kinds.is_floating(values.type) or kinds.is_boolean(values.type)):
        raise FormatError(f"{path}: {name} is of {values.type}, numbers are needed")
    if len(values) != len(table) * size:
        each = len(values) / max(len(table), 1)
        raise FormatError(f"{path}: {name} has {each:g} numbers a row, {size} are needed")
    kind = np.float64 if kinds.is_floating(values.type) else np.int64
    if kinds.is_boolean(values.type):
        values = values.cast(pa.int8())
    return values.to_numpy().astype(kind).reshape(len(table), size)


class ParquetPictures:
    """An image for each of R rows, read in the parent process, one row group in memory at a time.

    files   below `root`, one a sequence        of      int32 [R], rank of the row's file in `files`
    places  int64 [R], row in that file
    """

    def __init__(self, root: Path, column: str, files: list[str], of: np.ndarray, places: np.ndarray):
        self.root, self.column, self.files, self.of, self.places = root, column, files, of, places
        self._opened: tuple[str, Any, np.ndarray] | None = None
        self._read: tuple[str, int, Any] | None = None

    def name(self, row: int) -> str:
        return f"{self.files[int(self.of[row])]}, row {self.places[row]}"

    def contents(self, rows: np.ndarray) -> Sequence[Content]:
        places = zip(self.of[rows].tolist(), self.places[rows].tolist(), strict=True)
        return [self.cell(self.files[of], place) for of, place in places]

    def sample(self, count: int) -> list[tuple[str, Content]]:
        """Of sixteen sequences, as many frames of each as make up `count`."""
        edges = np.flatnonzero(np.diff(self.of, prepend=-1, append=-1))
        chosen = np.unique(np.linspace(0, len(edges) - 2, SAMPLED_FILES).astype(int))
        rows = [
            np.unique(np.linspace(edges[i], edges[i + 1] - 1, count // len(chosen)).astype(int)).tolist()
            for i in chosen
        ]
        return [(self.name(row), self.contents(np.array([row]))[0]) for part in rows for row in part]

    def stamp(self, rows: np.ndarray) -> str:
        return stamp_of(file_stats(self.root / name for name in dict.fromkeys(self.files)))

    def identity(self) -> dict[str, Any]:
        return {"content_sha256": pieces_sha256(self.root, list(dict.fromkeys(self.files)))}

    def cell(self, name: str, place: int) -> bytes:
        """Empty where there is none: the worker says so."""
        path = self.root / name
        try:
            file, ends = self._file(name)
            group = int(np.searchsorted(ends, place, side="right"))
            if self._read is None or self._read[:2] != (name, group):
                self._read = None  # before the next one takes memory
                column = file.read_row_group(group, columns=[self.column], use_threads=False)[self.column]
                self._read = (name, group, column)
            cell = self._read[2][place - (int(ends[group - 1]) if group else 0)].as_py()
        except (pa.ArrowException, OSError, KeyError) as error:
            pass_environment_on(error)
            raise FormatError(f"{path} cannot be read ({reason_of(error)[:200]}): copy it again") from error
        if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
            raise FormatError(
                f"{path}, row {place}: its image is not in the file, which only names {cell['path']!r:.80}; write the "
                "set with its images embedded"
            )
        found = cell.get("bytes") if isinstance(cell, dict) else cell
        return found if isinstance(found, bytes) else b""

    def _file(self, name: str) -> tuple[Any, np.ndarray]:
        """The file and, for each of its row groups, the row behind its last one."""
        if self._opened is None or self._opened[0] != name:
            file = pq.ParquetFile(self.root / name)
            counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
            self._opened = (name, file, np.cumsum(counts))
        return self._opened[1:]
