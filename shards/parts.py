"""Parts: what a build remembers of each shard that it finished, one small Parquet file a shard in `_meta/parts/`.

A part is published before its tar, so a tar under its final name always has one; a shard is finished if both are
there and the tar's sha256 is the part's.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from shards.errors import FormatError
from shards.files import sha256_of_file, write_atomic
from shards.index import IndexRow, rows_to_table, table_from_bytes, table_to_bytes
from shards.json_fields import json_object, take
from shards.layout import SHARD_NAME, Layout
from shards.schema import ShardEntry, Spec
from shards.stats import PixelStats

if TYPE_CHECKING:
    import pyarrow as pa

RECORD = b"part"


@dataclass(frozen=True)
class Part:
    """One finished shard: its entry for dataset.json and the sums over its pixels."""

    entry: ShardEntry
    stats: PixelStats


def write_part(layout: Layout, part: Part, rows: list[IndexRow], spec: Spec) -> None:
    record = {**asdict(part.entry), "stats": part.stats.to_json()}
    table = rows_to_table(rows, spec).replace_schema_metadata({RECORD: json.dumps(record).encode()})
    write_atomic(layout.part(part.entry.name), table_to_bytes(table), layout.tmp)


def read_rows(layout: Layout, part: Part, spec: Spec) -> pa.Table:
    """The index rows of a part, without its record."""
    path = layout.part(part.entry.name)
    table = table_from_bytes(path.read_bytes(), spec, part.entry.samples, str(path), part=True)
    return table.replace_schema_metadata(None)


def finished_parts(layout: Layout, build: str) -> dict[str, Part]:
    """Every shard of `build` that is there, has a part, and has the bytes that its part says. Hashes each once."""
    parts = [part for part in _readable_parts(layout) if part.entry.build in ("", build)]
    size = sum(part.entry.bytes for part in parts)
    bar = tqdm(total=size, unit="B", unit_scale=True, desc="check finished shards", disable=None if parts else True)
    with bar:
        return {part.entry.name: part for part in parts if _is_whole(layout, part.entry, bar.update)}


def _readable_parts(layout: Layout) -> Iterator[Part]:
    for path in sorted(layout.parts.glob("*.parquet")):
        if SHARD_NAME.fullmatch(path.stem):
            with contextlib.suppress(FormatError, OSError):
                part = _read_part(layout, path.stem)
                if layout.shard(path.stem).stat().st_size == part.entry.bytes:
                    yield part


def _read_part(layout: Layout, name: str) -> Part:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = layout.part(name)
    try:
        record = json_object((pq.read_schema(path).metadata or {}).get(RECORD, b""), str(path))
    except pa.ArrowException as error:
        raise FormatError(f"{path} is not a part: {error}") from error
    samples, size = take(record, "samples", int), take(record, "bytes", int)
    entry = ShardEntry(name, samples, size, take(record, "sha256", str), take({"build": "", **record}, "build", str))
    return Part(entry, PixelStats.from_json(take(record, "stats", dict)))


def _is_whole(layout: Layout, entry: ShardEntry, on_bytes: Callable[[int], object]) -> bool:
    with contextlib.suppress(OSError):
        return sha256_of_file(layout.shard(entry.name), on_bytes) == entry.sha256
    return False
