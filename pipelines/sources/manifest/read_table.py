"""A table as people keep it: CSV as any program writes it, JSON lines, Parquet → Arrow columns, and each row's number.

Nothing is guessed silently: what had to be decided (encoding, separator, decimal comma) is a line in `notes`. Rows are
read in blocks: a million take as much memory as their columns. Letter: R rows.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.archives import printable
from pipelines.sources.mistakes import Mistakes
from shards.errors import FormatError, reason_of
from shards.machine.environment import pass_environment_on

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl")
ADVICE = {
    ".json": "; write each record on a line of its own, as .jsonl",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "; save it as CSV"),
    **dict.fromkeys((".gz", ".zst", ".xz", ".bz2"), "; unpack it"),
}
BLOCK = 20_000  # rows
DELIMITERS = ",;\t|"
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 1 << 20  # characters
LARGEST_LINE = 16 << 20  # bytes of JSON
MOST_COLUMNS = 4096
MOST_ROWS = 100_000_000
BOMS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


@dataclass
class RawTable:
    """columns   by name: strings, trimmed, in CSV; as the file has them in JSON and Parquet
    numbers   int64 [R]: of each row as its reader counts: 1 is the header in CSV, the first row elsewhere
    word      "row", or "line" of JSON
    notes     what had to be decided to read it
    """

    path: Path
    columns: dict[str, pa.ChunkedArray]
    numbers: np.ndarray
    word: str = "row"
    notes: list[str] = field(default_factory=list)
    separator: str = ","

    def where(self, row: int) -> str:
        return f"{self.word} {self.numbers[row]}"


def read_table(path: Path, mistakes: Mistakes) -> RawTable:
    """`mistakes` gets rows that do not fit the others. FormatError: not readable at all, or without a row."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        advice = ADVICE.get(suffix, "")
        raise FormatError(f"{path.name} is no table that is read; allowed are {', '.join(SUFFIXES)}{advice}")
    try:
        read: Callable[[Path, Mistakes], RawTable] = {".parquet": _parquet, ".jsonl": _json_lines}.get(suffix, _csv)
        table = read(path, mistakes)
    except OSError as error:
        pass_environment_on(error)
        raise FormatError(f"{path} cannot be read ({reason_of(error)})") from error
    if not len(table.numbers) and not mistakes.count:
        raise FormatError(f"{path.name} has no row; a table of images has one row for each")
    return table


def _csv(path: Path, mistakes: Mistakes) -> RawTable:
    encoding, notes = _encoding(path)
    before = csv.field_size_limit(LONGEST_CELL)
    try:
        with path.open(encoding=encoding, newline="") as file:
            return _csv_rows(path, file, mistakes, notes)
    except UnicodeError as error:
        raise FormatError(f"{path.name} is not {encoding} throughout ({reason_of(error)}); save it as UTF-8") from error
    finally:
        csv.field_size_limit(before)


def _encoding(path: Path) -> tuple[str, list[str]]:
    """By its first bytes; without a mark UTF-8 if all of it is, else what Windows calls 1252."""
    with path.open("rb") as file:
        start = file.read(4)
        for bom, name in BOMS.items():
            if start.startswith(bom):
                return name, [] if name == "utf-8-sig" else [f"read as {name.upper()}"]
        file.seek(0)
        decoder = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            while text := decoder.read(1 << 20):
                if "\0" in text:
                    raise FormatError(f"{path.name} holds NUL characters: it is no CSV, or UTF-16 without its mark")
        except UnicodeDecodeError as error:
            return "cp1252", [f"not UTF-8 ({reason_of(error)}), read as Windows-1252: look at accents in names"]
    return "utf-8", []


def _csv_rows(path: Path, file: io.TextIOWrapper, mistakes: Mistakes, notes: list[str]) -> RawTable:
    first = file.readline()
    told = first.strip("\r\n")
    skipped = 1 if told[:4].lower() == "sep=" and len(told) == 5 else 0  # how Excel is told of the separator
    if not skipped:
        file.seek(0)
    outside = "".join(told.split('"')[::2])  # of quotes
    delimiter = told[4] if skipped else max(DELIMITERS, key=outside.count)
    if delimiter not in DELIMITERS:
        raise FormatError(f"{path.name} says sep={delimiter}; separators are commas, semicolons, tabs or bars")
    if delimiter != ",":
        notes.append(f"columns are parted by {NAMES[delimiter]}")
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    rows = _numbered(path, reader, 1 + skipped, mistakes)
    names, keep = _header(path, next(rows, (0, []))[1])
    found, numbers, blocks = _fitting(rows, len(names) + keep, delimiter, mistakes), [], []
    while part := list(itertools.islice(found, BLOCK)):
        numbers += [number for number, _ in part]
        blocks.append([pa.array(cells, pa.string()) for cells in zip(*(cells for _, cells in part), strict=True)])
    columns = {name: pa.chunked_array([b[keep + i] for b in blocks], pa.string()) for i, name in enumerate(names)}
    return RawTable(path, columns, np.array(numbers, np.int64), "row", notes, delimiter)


def _fitting(
    rows: Iterator[tuple[int, list[str]]], wanted: int, delimiter: str, mistakes: Mistakes
) -> Iterator[tuple[int, list[str]]]:
    """Rows with as many cells as the header, trimmed; others are mistakes."""
    for number, cells in rows:
        while len(cells) > wanted and not cells[-1].strip():
            cells.pop()
        if len(cells) == wanted:
            yield number, [cell.strip() for cell in cells]
            continue
        why = " (a comma within a value has to be quoted)" if len(cells) > wanted and delimiter == "," else ""
        mistakes.add(f"row {number} has {len(cells)} cells, the header {wanted}{why}", "cells")


def _numbered(path: Path, reader: Any, first: int, mistakes: Mistakes) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, counted as a spreadsheet does: values that span lines do not count twice."""
    number = first - 1
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            mistakes.add(f"row {number}: {reason_of(error)}; is a quote not closed?", "quotes")
            return
        if cells is None:
            return
        if any(cell.strip() for cell in cells):
            yield number, cells


def _header(path: Path, cells: Sequence[str]) -> tuple[list[str], int]:
    """(names of columns, 1 where the first is a nameless index of pandas')"""
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    keep = int(bool(names) and not names[0])
    names = names[keep:]
    if not names or len(names) > MOST_COLUMNS:
        raise FormatError(f"{path.name} has {len(names)} columns; 1 to {MOST_COLUMNS} are allowed")
    _refuse_names(path, names)
    return names, keep


def _refuse_names(path: Path, names: Sequence[str]) -> None:
    if "" in names:
        raise FormatError(f"{path.name}: column {names.index('') + 1} has no name; name every column")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise FormatError(f"{path.name} has two columns {printable(twice[0])!r}; rename one of them")


def _json_lines(path: Path, mistakes: Mistakes) -> RawTable:
    blocks: list[dict[str, pa.Array]] = []
    sizes: list[int] = []
    numbers: list[int] = []
    with path.open("rb") as file:
        found = _json_records(file, mistakes)
        while part := list(itertools.islice(found, BLOCK)):
            blocks.append(_json_block([record for _, record in part]))
            sizes.append(len(part))
            numbers += [number for number, _ in part]
    names = list(dict.fromkeys(name for block in blocks for name in block))
    if len(names) > MOST_COLUMNS:
        raise FormatError(f"{path.name} has {len(names)} columns; at most {MOST_COLUMNS} are allowed")
    columns = {name: _joined([block.get(name) for block in blocks], sizes) for name in names}
    return RawTable(path, _flat(path, columns), np.array(numbers, np.int64), "line")


def _json_records(file: BinaryIO, mistakes: Mistakes) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of its line, record) of each line that holds one."""
    for number, line in enumerate(iter(lambda: file.readline(LARGEST_LINE), b""), 1):
        record = _json_record(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, number, mistakes)
        if record is not None:
            yield number, record


def _json_record(line: bytes, number: int, mistakes: Mistakes) -> dict[str, Any] | None:
    if not line.strip():
        return None
    try:
        record = json.loads(line, object_pairs_hook=_once)
        if b"\\ud" in line.lower():  # half of a character alone is no text, and no Arrow string
            json.dumps(record, ensure_ascii=False).encode()
        if isinstance(record, dict):
            return record
        mistakes.add(f'line {number} is no JSON object; each line is one, such as {{"file_name": …}}', "json")
    except (ValueError, RecursionError) as error:
        mistakes.add(f"line {number} is no JSON ({reason_of(error)})", "json")
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """ValueError: a key that comes twice, of whose values JSON keeps the last one."""
    record = dict(pairs)
    if len(record) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in record if keys.count(key) > 1)!a} occurs twice")
    return record


def _json_block(records: Sequence[dict[str, Any]]) -> dict[str, pa.Array]:
    names = dict.fromkeys(name for record in records for name in record)
    return {name: _json_array([record.get(name) for record in records]) for name in names}


def _json_array(values: list[Any]) -> pa.Array:
    """Strings, where values are of several types: what is no number is found later, with its row."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return _texts(values)


def _texts(values: list[Any]) -> pa.Array:
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values], pa.string())


def _joined(parts: Sequence[pa.Array | None], sizes: Sequence[int]) -> pa.ChunkedArray:
    arrays = [pa.nulls(size) if part is None else part for part, size in zip(parts, sizes, strict=True)]
    kinds = {array.type for array in arrays} - {pa.null()}
    if len(kinds) > 1:
        tables = [pa.table({"x": array}) for array in arrays]
        try:
            return pa.concat_tables(tables, promote_options="permissive").column("x")
        except pa.ArrowException:
            arrays, kinds = [_texts(array.to_pylist()) for array in arrays], {pa.string()}
    kind = next(iter(kinds), pa.null())
    return pa.chunked_array([array if array.type == kind else array.cast(kind) for array in arrays], kind)


def _parquet(path: Path, mistakes: Mistakes) -> RawTable:
    try:
        file = pq.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]  # of pandas
        if len(names) > MOST_COLUMNS:
            raise FormatError(f"{path.name} has {len(names)} columns; at most {MOST_COLUMNS} are allowed")
        _refuse_names(path, names)
        if file.metadata.num_rows > MOST_ROWS:
            raise FormatError(f"{path.name} has {file.metadata.num_rows} rows; at most {MOST_ROWS} are read")
        table = file.read(names)
        columns = {name: table.column(name) for name in names}
        numbers = np.arange(1, len(table) + 1, dtype=np.int64)
        return RawTable(path, _flat(path, columns), numbers)
    except (pa.ArrowException, MemoryError, ValueError) as error:
        raise FormatError(f"{path.name} is not a readable Parquet file ({reason_of(error)[:200]})") from error


def _flat(path: Path, columns: dict[str, pa.ChunkedArray]) -> dict[str, pa.ChunkedArray]:
    """Objects within objects as columns "pose.x"; dictionaries as what they stand for. FormatError: _refuse_names."""
    found = [pair for name, column in columns.items() for pair in _parts(name, column)]
    _refuse_names(path, [name for name, _ in found])
    return dict(found)


def _parts(name: str, column: pa.ChunkedArray) -> Iterator[tuple[str, pa.ChunkedArray]]:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if not pa.types.is_struct(column.type):
        yield name, column
        return
    for field_of, inner in zip(column.type, column.flatten(), strict=True):
        yield from _parts(f"{name}.{field_of.name}", inner)
