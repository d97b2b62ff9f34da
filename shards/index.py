"""`_meta/index-{split}.parquet`: one row a sample, from which every member can be read without walking a tar.

    key        string           label    int64
    …          the kind's own:  views    n_views int32, distinct; view_ids int32 [N], −1 pads;
                                         params float32 [N·P], row-major; in chunked sets
                                         chunk int32, which part of its sequence: 0, 1 …
                                maps     height int32, width int32
    offsets    int64 [m]        lengths  int32 [m], of the data of each member, in the order of spec.suffixes()
    meta.NAME  string or int64, one column for each name in the samples' meta
    shard      int32, position in the split's list of shards

A part (one shard's rows, kept until the set is finished) has the same columns but `shard`. check_index() refuses an
index that would send a reader to the wrong bytes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import FormatError
from shards.kinds import kind_of
from shards.kinds.base import Column
from shards.sample import KEY, Sample
from shards.schema import DatasetInfo, Spec, SplitInfo
from shards.tar import BLOCK, END

if TYPE_CHECKING:
    import pyarrow as pa


META = "meta."


@dataclass(frozen=True)
class IndexRow:
    """A written sample without its members, and where their data lie in the shard. `own`: the kind's own columns."""

    key: str
    label: int
    own: dict[str, Any]
    meta: dict[str, str | int]
    offsets: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, sample: Sample, spec: Spec, offsets: list[int], lengths: list[int]) -> IndexRow:
        return cls(sample.key, int(sample.label), kind_of(spec).row(sample), dict(sample.meta), offsets, lengths)


def number_columns(spec: Spec) -> dict[str, Column]:
    """The columns of numbers that every index of `spec` has, in order, without `shard` and the meta columns."""
    members = len(spec.suffixes())
    places = {"offsets": Column("int64", members), "lengths": Column("int32", members)}
    return {"label": Column("int64"), **kind_of(spec).columns(), **places}


def column_types(spec: Spec) -> dict[str, pa.DataType]:
    """number_columns() as Arrow types, after the key."""
    import pyarrow as pa

    types = {"key": pa.string()}
    for name, column in number_columns(spec).items():
        plain = pa.from_numpy_dtype(np.dtype(column.dtype))
        types[name] = plain if column.width is None else pa.list_(plain, column.width)
    return types


def rows_to_table(rows: list[IndexRow], spec: Spec) -> pa.Table:
    """One shard's rows as a table without the `shard` column."""
    import pyarrow as pa

    arrays = {"key": pa.array([row.key for row in rows], pa.string())}
    values = [{**vars(row), **row.own} for row in rows]
    for name, column in number_columns(spec).items():
        numbers = np.array([value[name] for value in values], column.dtype)
        flat = pa.array(numbers.ravel())
        arrays[name] = flat if column.width is None else pa.FixedSizeListArray.from_arrays(flat, column.width)
    for name, value in rows[0].meta.items():
        kind = pa.string() if isinstance(value, str) else pa.int64()
        arrays[META + name] = pa.array([row.meta[name] for row in rows], kind)
    return pa.table(arrays)


def join_parts(parts: list[pa.Table]) -> pa.Table:
    """The tables of a split's shards, in order, as its index. FormatError: parts whose meta columns differ."""
    import pyarrow as pa

    for part in parts:
        if part.schema != parts[0].schema:
            raise FormatError(f"samples differ in meta: {_meta_names(part)} and {_meta_names(parts[0])}")
    numbered = [
        part.append_column("shard", pa.array(np.full(len(part), number, np.int32))) for number, part in enumerate(parts)
    ]
    return pa.concat_tables(numbered).combine_chunks()


def _meta_names(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name.startswith(META)]


def table_to_bytes(table: pa.Table) -> bytes:
    """Parquet. The same rows give the same bytes with the same pyarrow."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", use_dictionary=False)
    return buffer.getvalue()


def table_from_bytes(data: bytes, spec: Spec, rows: int, where: str, *, part: bool = False) -> pa.Table:
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


def _check_columns(found: pa.Schema, spec: Spec, where: str, part: bool) -> None:
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
    flat = column if width is None else column.flatten()
    if flat.null_count:
        raise FormatError(f"column {name} has missing values")
    # to_numpy would import pandas where it is installed: half a second, in which a Ctrl-C is lost.
    values = np.array(np.from_dlpack(flat))
    return values if width is None else values.reshape(-1, width)


def check_index(
    keys: list[str], arrays: dict[str, np.ndarray], split: SplitInfo, info: DatasetInfo, where: str
) -> None:
    """FormatError, naming the first sample at fault.

    arrays: shard, label [S]; offsets, lengths [S, m]; and the kind's own columns.
    The members have to tile each shard: every header where the data before it end, the last one before the end marker.
    """
    label, lengths = arrays["label"], arrays["lengths"].astype(np.int64)
    sizes = np.array([entry.samples for entry in split.shards])
    faults = {
        "a key that is not 1 to 80 of A-Z a-z 0-9 _ -": np.array([not KEY.fullmatch(key) for key in keys]),
        "a label without a class": (label < -1) | (label >= len(info.classes)),
        "a shard out of order": arrays["shard"] != np.repeat(np.arange(len(sizes)), sizes),
        "a member of an impossible length": (lengths < 1).any(1),
        **kind_of(info.spec).faults(arrays, lengths),
    }
    for fault, bad in faults.items():
        _refuse(bad, fault, keys, where)
    if len(set(keys)) != len(keys):
        raise FormatError(f"{where}: two samples have the same key")
    _refuse(_misplaced(arrays, split), "a member that is not where the one before it ends", keys, where)


def _refuse(bad: np.ndarray, fault: str, keys: list[str], where: str) -> None:
    if bad.any():
        raise FormatError(f"{where}: sample {keys[int(bad.argmax())]!r:.90} has {fault}")


def _misplaced(arrays: dict[str, np.ndarray], split: SplitInfo) -> np.ndarray:
    """bool [S]: samples with a member whose offset is not what the lengths before it imply, or that ends too late."""
    offsets, lengths = arrays["offsets"], arrays["lengths"].astype(np.int64)
    blocks = BLOCK + lengths + (-lengths % BLOCK)
    ends = blocks.cumsum().reshape(blocks.shape)
    firsts = np.cumsum([0, *(entry.samples for entry in split.shards)])
    totals = np.concatenate([[0], ends[:, -1]])[firsts]
    starts = ends - blocks - totals[:-1][arrays["shard"]][:, None]
    bad = (offsets != starts + BLOCK).any(1)
    wrong_size = np.diff(totals) + len(END) != np.array([entry.bytes for entry in split.shards])
    bad[firsts[1:][wrong_size] - 1] = True
    return bad
