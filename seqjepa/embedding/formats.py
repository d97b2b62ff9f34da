"""The files that `seqjepa embed` writes (docs/embed.md has their layout), a part at a time; and how it knows its own.

Letters: R rows, D width of z, Q sequences of M views, P parameters, S samples.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqjepa.embedding.inputs import Contexts, Source
from seqjepa.files import named_failures, write_file
from shards.errors import UsageError
from shards.machine.environment import pass_environment_on
from shards.machine.files import sync_folder
from shards.pixels import npy_header

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".npz", ".npy")
KIND = "seqjepa-features"
META = "seqjepa"
FIRST_DATE = (1980, 1, 1, 0, 0, 0)
MOST_FACTS = 16 << 20
KEYS_AT_ONCE = 16384

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Row or sequence numbers int64 [n] and their values float32 [n, width], a part after the other."""


@dataclass(frozen=True)
class Embedded:
    """One source with its features.

    offset  its first row in the file       kept  int64 [r]: its rows that are there; broken files are not
    contexts, z_agg: where there are any
    """

    source: Source
    offset: int
    kept: np.ndarray
    z: Blocks
    contexts: Contexts | None = None
    z_agg: Blocks | None = None


@dataclass(frozen=True)
class Output:
    """All there is to write. facts: of the run, the input and the features, JSON values; kept with the file."""

    facts: dict[str, Any]
    dtype: str
    all: Sequence[Embedded]


def companion(out: Path) -> Path | None:
    """The second file of an output: .parquet has z_AGG there, .npy what the array itself cannot say."""
    names = {".parquet": f"{out.stem}-z_agg.parquet", ".npy": f"{out.name}.json"}
    return out.with_name(names[out.suffix]) if out.suffix in names else None


def read_facts(out: Path) -> dict[str, Any] | None:
    """What an earlier `seqjepa embed` noted with `out`; None: it is not there. UsageError: it is not ours."""
    return _facts_of(out, _READERS[out.suffix])


def second_is_there(out: Path) -> bool:
    """Whether the companion is there, where the format has one. UsageError: it is, and is not ours."""
    second = companion(out)
    return second is None or _facts_of(second, _READERS.get(second.suffix, Path.read_bytes)) is not None


def _facts_of(out: Path, read: Callable[[Path], str | bytes]) -> dict[str, Any] | None:
    if out.is_symlink() or (out.exists() and not out.is_file()):
        raise UsageError(f"{out} is there and no plain file; choose another --out")
    if not out.exists():
        return None
    try:
        found = json.loads(read(out))
    except (OSError, ValueError, KeyError, RecursionError, zipfile.BadZipFile) as error:
        pass_environment_on(error)
        found = None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise UsageError(f"{out} is there and was not made by `seqjepa embed`; remove it or choose another --out")
    return found


def write(out: Path, scratch: Path, output: Output) -> None:
    """Write `out`, and its companion before it: it appears when all is there. scratch: a name on the same disk."""
    match out.suffix:
        case ".parquet":
            if output.facts.get("z_agg") and (second := companion(out)):
                with _published(second, scratch) as path:
                    _write_parquet(path, output, _agg_tables(output))
            with _published(out, scratch) as path:
                _write_parquet(path, output, _tables(output))
        case ".npz":
            with _published(out, scratch) as path:
                _write_npz(path, output)
        case _:
            write_file(out.with_name(f"{out.name}.json"), _facts(output) + b"\n")
            with _published(out, scratch) as path, path.open("wb") as file:
                file.writelines(_z(output).written())


@contextmanager
def _published(path: Path, scratch: Path) -> Iterator[Path]:
    """A name to write under; then the file has its own."""
    with named_failures(path):
        yield scratch
        fd = os.open(scratch, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(scratch, path)
        sync_folder(path.parent)


def _facts(output: Output) -> bytes:
    return json.dumps(output.facts, ensure_ascii=False).encode()


def _write_parquet(path: Path, output: Output, tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    first = next(tables)
    repeated = [name for name in first.column_names if name in ("split", "class", "label")]
    options: dict[str, Any] = {"compression": "zstd", "use_dictionary": repeated}
    with pq.ParquetWriter(path, first.schema.with_metadata({META: _facts(output)}), **options) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=max(1, len(table)))


def _of_samples(source: Source, samples: np.ndarray) -> dict[str, pa.Array]:
    import pyarrow as pa

    labels = source.labels[samples]
    columns = {
        "key": pa.array([source.keys[i] for i in samples.tolist()], pa.string()),
        "split": pa.array([source.split] * len(samples), pa.string()),
        "label": pa.array(labels, pa.int64()),
    }
    named = [source.classes[label] if label >= 0 else None for label in labels.tolist()] if source.classes else []
    return {**columns, "class": pa.array(named, pa.string())} if source.classes else columns


def _lists(values: np.ndarray, dtype: str) -> pa.Array:
    """[n, width] → n lists."""
    import pyarrow as pa

    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values, dtype).reshape(-1)), values.shape[-1]
    )


def _tables(output: Output) -> Iterator[pa.Table]:
    import pyarrow as pa

    for one in output.all:
        source = one.source
        for rows, z in one.z():
            columns = {"view": pa.array(source.views[rows], pa.int32())}
            for i, name in enumerate(source.param_names):
                columns[f"params.{name}"] = pa.array(source.params[rows, i], pa.float32())
            yield pa.table({**_of_samples(source, source.sample[rows]), **columns, "z": _lists(z, output.dtype)})


def _agg_tables(output: Output) -> Iterator[pa.Table]:
    import pyarrow as pa

    for one in output.all:
        assert one.contexts is not None
        assert one.z_agg is not None
        for numbers, z_agg in one.z_agg():
            rows = one.contexts.rows[numbers]
            columns = {
                "views": _lists(one.source.views[rows], "int32"),
                "rows": _lists(rows + one.offset, "int64"),
                "z_agg": _lists(z_agg, output.dtype),
            }
            yield pa.table({**_of_samples(one.source, one.source.sample[rows[:, 0]]), **columns})


@dataclass(frozen=True)
class _Array:
    """An .npy file that is written in pieces, one after the other along the first axis."""

    shape: tuple[int, ...]
    dtype: str
    pieces: Iterable[np.ndarray]

    def written(self) -> Iterator[bytes]:
        yield npy_header(self.shape, self.dtype)
        yield from (np.ascontiguousarray(piece, self.dtype).tobytes() for piece in self.pieces)


def _z(output: Output) -> _Array:
    shape = (output.facts["rows"], output.facts["features"])
    return _Array(shape, output.dtype, (values for one in output.all for _, values in one.z()))


def _write_npz(path: Path, output: Output) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in _arrays(output).items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", FIRST_DATE), "w", force_zip64=True) as file:
                if isinstance(array, np.ndarray):
                    np.lib.format.write_array(file, array, allow_pickle=False)
                else:
                    file.writelines(array.written())


def _arrays(output: Output) -> dict[str, np.ndarray | _Array]:
    first, about = output.all[0].source, output.facts["z_agg"]
    arrays: dict[str, np.ndarray | _Array] = {"z": _z(output), **_row_arrays(output)}
    arrays |= {"keys": _texts(output, lambda s: s.keys), "splits": _texts(output, lambda s: [s.split] * len(s.keys))}
    if about:
        pairs = [(one.contexts, one.z_agg, one.offset) for one in output.all if one.contexts and one.z_agg]
        values = (piece for _, z_agg, _ in pairs for _, piece in z_agg())
        arrays["z_agg"] = _Array((about["sequences"], about["features"]), output.dtype, values)
        arrays["z_agg_rows"] = np.concatenate([contexts.rows + offset for contexts, _, offset in pairs])
    arrays |= {"param_names": np.array(first.param_names, np.str_), "classes": np.array(first.classes, np.str_)}
    return arrays | {META: np.array(_facts(output).decode())}


def _row_arrays(output: Output) -> dict[str, np.ndarray]:
    """What is known of each row, [R]; "sample" numbers the samples of all sources, as "keys" lists them."""
    samples = np.cumsum([0, *(len(one.source.keys) for one in output.all)])
    of = [(one.source, one.kept, begin) for one, begin in zip(output.all, samples[:-1], strict=True)]
    return {
        "labels": np.concatenate([source.labels[source.sample[kept]] for source, kept, _ in of]),
        "views": np.concatenate([source.views[kept] for source, kept, _ in of]),
        "sample": np.concatenate([source.sample[kept] + begin for source, kept, begin in of]),
        "params": np.concatenate([source.params[kept] for source, kept, _ in of]),
    }


def _texts(output: Output, of: Callable[[Source], Sequence[str]]) -> _Array:
    """Strings of every sample, [S]."""
    texts = [text for one in output.all for text in of(one.source)]
    kind = f"<U{max(1, *map(len, texts), 1)}"
    pieces = (np.array(texts[i : i + KEYS_AT_ONCE], kind) for i in range(0, len(texts), KEYS_AT_ONCE))
    return _Array((len(texts),), kind, pieces)


def _parquet_facts(path: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return (pq.read_schema(path).metadata or {})[META.encode()]
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


def _npz_facts(path: Path) -> str:
    with zipfile.ZipFile(path) as archive:
        if archive.getinfo(f"{META}.npy").file_size > MOST_FACTS:
            raise ValueError("too large")
        with archive.open(f"{META}.npy") as file:
            return str(np.lib.format.read_array(file, allow_pickle=False))


def _npy_facts(path: Path) -> bytes:
    beside = path.with_name(f"{path.name}.json")
    if beside.stat().st_size > MOST_FACTS:
        raise ValueError("too large")
    return beside.read_bytes()


_READERS: dict[str, Callable[[Path], str | bytes]] = {
    ".parquet": _parquet_facts,
    ".npz": _npz_facts,
    ".npy": _npy_facts,
}
