"""`_meta/index-{split}.parquet`: one row a sample, from which every view can be read without walking a tar.

    key        string             label    int64                shard  int32, position in the split's list of shards
    n_views    int32, distinct    view_ids int32 [N], −1 pads   params float32 [N·P], row-major
    offsets    int64 [N+3]        lengths  int32 [N+3], of the data of every member, in the order of ViewSpec.suffixes()
    meta.NAME  string or int64, one column for each name in the samples' meta

A part (one shard's rows, kept until the set is finished) has the same columns but `shard`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import FormatError
from shards.sample import ViewSample, pad_cyclic
from shards.schema import ViewSpec

if TYPE_CHECKING:
    import pyarrow as pa

META = "meta."


@dataclass(frozen=True)
class IndexRow:
    """A written sample without its pixels, and where its members' data lie in the shard."""

    key: str
    label: int
    view_ids: list[int]
    params: np.ndarray
    meta: dict[str, str | int]
    offsets: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, sample: ViewSample, offsets: list[int], lengths: list[int]) -> IndexRow:
        params = np.asarray(sample.params, np.float32)
        ids = [int(v) for v in sample.view_ids]
        return cls(sample.key, int(sample.label), ids, params, dict(sample.meta), offsets, lengths)


def column_types(spec: ViewSpec) -> dict[str, pa.DataType]:
    """The columns that every index has, in order, without `shard` and the meta columns."""
    import pyarrow as pa

    slots, member_count = spec.views, spec.views + 3
    return {
        "key": pa.string(),
        "label": pa.int64(),
        "n_views": pa.int32(),
        "view_ids": pa.list_(pa.int32(), slots),
        "params": pa.list_(pa.float32(), slots * len(spec.params)),
        "offsets": pa.list_(pa.int64(), member_count),
        "lengths": pa.list_(pa.int32(), member_count),
    }


def rows_to_table(rows: list[IndexRow], spec: ViewSpec) -> pa.Table:
    """One shard's rows as a table without the `shard` column."""
    import pyarrow as pa

    slots = spec.views
    columns = {
        "key": [row.key for row in rows],
        "label": [row.label for row in rows],
        "n_views": [len(row.view_ids) for row in rows],
        "view_ids": np.array([row.view_ids + [-1] * (slots - len(row.view_ids)) for row in rows], np.int32),
        "params": np.stack([row.params[pad_cyclic(range(len(row.params)), slots)].ravel() for row in rows]),
        "offsets": np.array([row.offsets for row in rows], np.int64),
        "lengths": np.array([row.lengths for row in rows], np.int32),
    }
    arrays = {name: _array(columns[name], kind) for name, kind in column_types(spec).items()}
    for name, value in rows[0].meta.items():
        kind = pa.string() if isinstance(value, str) else pa.int64()
        arrays[META + name] = pa.array([row.meta[name] for row in rows], kind)
    return pa.table(arrays)


def _array(values: list | np.ndarray, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    if isinstance(values, np.ndarray):
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    return pa.array(values, kind)


def join_parts(parts: list[pa.Table]) -> pa.Table:
    """The tables of a split's shards, in order, as its index. FormatError: parts whose meta columns differ."""
    import pyarrow as pa

    for part in parts:
        if part.schema != parts[0].schema:
            raise FormatError(f"samples differ in meta: {part.column_names[7:]} and {parts[0].column_names[7:]}")
    numbered = [
        part.append_column("shard", pa.array(np.full(len(part), number, np.int32))) for number, part in enumerate(parts)
    ]
    return pa.concat_tables(numbered).combine_chunks()


def table_to_bytes(table: pa.Table) -> bytes:
    """Parquet. The same rows give the same bytes with the same pyarrow."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def table_from_bytes(data: bytes, spec: ViewSpec, rows: int, where: str, *, part: bool = False) -> pa.Table:
    """The inverse, for files of unknown origin. FormatError: not Parquet, or not an index of `rows` rows of `spec`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        _check_columns(file.schema_arrow, spec, where, part)
        if file.metadata.num_rows != rows:
            raise FormatError(f"{where} has {file.metadata.num_rows} rows, expected {rows}")
        table = file.read(use_threads=False).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError, MemoryError, ValueError) as error:
        raise FormatError(f"{where} is not a readable index: {str(error).splitlines()[0]}") from error
    if len(table) != rows or any(column.null_count for column in table.columns):
        raise FormatError(f"{where} has missing values")
    return table


def _check_columns(found: pa.Schema, spec: ViewSpec, where: str, part: bool) -> None:
    import pyarrow as pa

    expected = column_types(spec) | ({} if part else {"shard": pa.int32()})
    meta = [f for f in found if f.name.startswith(META)]
    if [f.name for f in found if f not in meta] != list(expected):
        raise FormatError(f"{where} has columns {found.names}, expected {list(expected)} and {META}*")
    for name, kind in expected.items():
        if not found.field(name).type.equals(kind):
            raise FormatError(f"{where}: column {name} is {found.field(name).type}, expected {kind}")
    if len(meta) > 64 or any(f.type not in (pa.string(), pa.int64()) for f in meta):
        raise FormatError(f"{where}: at most 64 meta columns, of strings or int64")


def column_numpy(table: pa.Table, name: str, width: int | None = None) -> np.ndarray:
    """A numeric column as [S], or a list column as [S, width]. A copy, so that nothing keeps the table alive."""
    column = table.column(name).combine_chunks()
    if width is None:
        return np.array(column.to_numpy(zero_copy_only=False))
    flat = column.flatten()
    if flat.null_count:
        raise FormatError(f"column {name} has missing values")
    return np.array(flat.to_numpy(zero_copy_only=False)).reshape(-1, width)
