"""`_meta/dataset.json`: DatasetInfo as JSON with a checksum over itself, and back with every field checked.

The checksum is the sha256 of the file's bytes with the checksum's own 64 digits replaced by zeros, so that any flipped
bit shows, white space included.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, TypeVar

from shards.errors import FormatError
from shards.files import sha256_of_bytes
from shards.layout import MAX_SHARDS, SPLIT_NAME, Layout, shard_name
from shards.schema import (
    FORMAT_NAME,
    FORMAT_VERSION,
    MAX_PARAMS,
    MAX_SIDE,
    MAX_VIEWS,
    DatasetInfo,
    ParamField,
    ShardEntry,
    SplitInfo,
    ViewSpec,
)
from shards.tar import BLOCK

MAX_JSON = 256 << 20
NO_CHECKSUM = "0" * 64
SHA256 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


def plain_json(value: Any, what: str) -> Any:
    """`value` as JSON gives it back (tuples become lists). FormatError: not JSON, NaN, or a null anywhere."""
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise FormatError(f"{what} is not plain JSON: {error}") from error
    _refuse_nulls(plain, what)
    return plain


def _refuse_nulls(value: Any, what: str) -> None:
    if value is None:
        raise FormatError(f"{what} is null: leave it out instead")
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            _refuse_nulls(inner, f"{what}.{name}")


def info_to_bytes(info: DatasetInfo) -> bytes:
    """The content of dataset.json. The same info gives the same bytes."""
    fields = dataclasses.asdict(info)
    head = {name: fields.pop(name) for name in ("format_version", "kind", "name", "spec")}
    record = {"format": FORMAT_NAME, **head, "members": describe_members(info.spec), **fields, "checksum": NO_CHECKSUM}
    blank = (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()
    start = blank.rindex(NO_CHECKSUM.encode())
    return blank[:start] + sha256_of_bytes(blank).encode() + blank[start + 64 :]


def describe_members(spec: ViewSpec) -> list[dict[str, Any]]:
    """For readers without this package: what each member of a sample is."""
    first, *_, last, params, label, record = (f"KEY{suffix}" for suffix in ["", *spec.suffixes()][1:])
    if spec.views == 1:
        first = last
    pixels = {"dtype": "uint8", "shape": [spec.height, spec.width, 3], "axes": ["row", "col", "rgb"]}
    rows = {"dtype": "float32", "shape": [spec.views, len(spec.params)], "axes": ["view", "param"]}
    return [
        {"name": f"{first} … {last}" if spec.views > 1 else first, **pixels},
        {"name": params, **rows, "units": [field.unit for field in spec.params]},
        {"name": label, "dtype": "ASCII integer", "meaning": "rank in classes, -1 for none"},
        {"name": record, "dtype": "JSON", "meaning": "views: how many are distinct; view_ids: their source numbers"},
    ]


def read_info(root: Path) -> DatasetInfo:
    """The checked content of `root`/_meta/dataset.json. FormatError: damaged, malformed or of a newer version."""
    path = Layout(root).info
    if path.stat().st_size > MAX_JSON:
        raise FormatError(f"{path} is larger than {MAX_JSON} bytes")
    return info_from_bytes(path.read_bytes(), str(path))


def checksum_fits(data: bytes) -> bool:
    """Whether `data` is a dataset.json whose bytes are as they were written."""
    found = re.search(rb'"checksum": "([0-9a-f]{64})"\n}\n\Z', data[-120:])
    if not found:
        return False
    start = len(data) - len(data[-120:]) + found.start(1)
    return sha256_of_bytes(data[:start] + NO_CHECKSUM.encode() + data[start + 64 :]) == found[1].decode()


def info_from_bytes(data: bytes, where: str) -> DatasetInfo:
    record = json_object(data, where)
    version = record.get("format_version")
    if record.get("format") != FORMAT_NAME:
        raise FormatError(f"{where} does not describe a {FORMAT_NAME} set")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatError(f"{where}: format version {version}, this program reads up to {FORMAT_VERSION}: update it")
    if not checksum_fits(data):
        raise FormatError(f"{where} is damaged (its checksum differs): copy the set again or rebuild it")
    try:
        return _info(record)
    except FormatError as error:
        raise FormatError(f"{where}: {error}") from error


def json_object(data: bytes, where: str) -> dict[str, Any]:
    """`data` as a JSON object. FormatError: anything else."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise FormatError(f"{where} is not a JSON object")
    return record


def take(record: dict[str, Any], name: str, kind: type[T]) -> T:
    """record[name], which must be a `kind`."""
    value = record.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FormatError(f"{name} must be a {kind.__name__}, found {value!r:.60}")
    return value


def _number(record: dict[str, Any], name: str, low: int, high: int) -> int:
    value = take(record, name, int)
    if not low <= value <= high:
        raise FormatError(f"{name} is {value}, allowed are {low} to {high}")
    return value


def _digest(record: dict[str, Any], name: str) -> str:
    value = take(record, name, str)
    if not SHA256.fullmatch(value):
        raise FormatError(f"{name} is not a sha256: {value!r:.80}")
    return value


def _info(record: dict[str, Any]) -> DatasetInfo:
    if record.get("kind") != "views":
        raise FormatError(f"kind {record.get('kind')!r:.40} is unknown, allowed: views")
    splits = take(record, "splits", dict)
    return DatasetInfo(
        name=take(record, "name", str),
        spec=spec_from_json(take(record, "spec", dict)),
        classes=_strings(record, "classes"),
        splits={name: _split(name, value) for name, value in splits.items()},
        normalisation=_normalisation(take(record, "normalisation", dict)),
        readme_sha256=_digest(record, "readme_sha256"),
        fingerprint=take(record, "fingerprint", dict),
        provenance=take(record, "provenance", dict),
        format_version=_number(record, "format_version", 1, FORMAT_VERSION),
    )


def spec_from_json(record: dict[str, Any]) -> ViewSpec:
    """The inverse of dataclasses.asdict(spec), with every field checked."""
    fields = take(record, "params", list)
    if not all(isinstance(f, dict) for f in fields) or not 1 <= len(fields) <= MAX_PARAMS:
        raise FormatError(f"params must be 1 to {MAX_PARAMS} objects of name and unit")
    encoding = record.get("encoding")
    if encoding not in ("jpeg", "raw"):
        raise FormatError(f"encoding {encoding!r:.40} is unknown, allowed: jpeg, raw")
    return ViewSpec(
        views=_number(record, "views", 1, MAX_VIEWS),
        height=_number(record, "height", 1, MAX_SIDE),
        width=_number(record, "width", 1, MAX_SIDE),
        encoding=encoding,
        params=tuple(ParamField(take(f, "name", str), take(f, "unit", str)) for f in fields),
    )


def _strings(record: dict[str, Any], name: str) -> tuple[str, ...]:
    values = take(record, name, list)
    if not all(isinstance(value, str) for value in values):
        raise FormatError(f"{name} must be strings")
    return tuple(values)


def _split(name: str, value: Any) -> SplitInfo:
    # Shard and index names follow from the split's name and the shard's number: no path comes from the file.
    if not SPLIT_NAME.fullmatch(name) or not isinstance(value, dict):
        raise FormatError(f"split {name!r:.40} is malformed")
    records = take(value, "shards", list)
    if not 1 <= len(records) <= MAX_SHARDS or not all(isinstance(r, dict) for r in records):
        raise FormatError(f"split {name}: shards must be 1 to {MAX_SHARDS} objects")
    entries = tuple(_entry(record, shard_name(name, number)) for number, record in enumerate(records))
    samples = _number(value, "samples", 1, 2**31 - 1)
    if samples != sum(entry.samples for entry in entries):
        raise FormatError(f"split {name}: {samples} samples, its shards have {sum(e.samples for e in entries)}")
    index = f"_meta/index-{name}.parquet"
    if value.get("index") != index:
        raise FormatError(f"split {name}: index must be {index}, found {value.get('index')!r:.60}")
    return SplitInfo(entries, samples, index, _digest(value, "index_sha256"))


def _entry(record: dict[str, Any], name: str) -> ShardEntry:
    if record.get("name") != name:
        raise FormatError(f"shard {name} is called {record.get('name')!r:.60}")
    size = _number(record, "bytes", 2 * BLOCK, 2**50)
    return ShardEntry(name, _number(record, "samples", 1, 2**31 - 1), size, _digest(record, "sha256"))


def _normalisation(record: dict[str, Any]) -> dict[str, list[float]]:
    for name, low in (("mean", 0.0), ("std", 1e-6)):
        values = take(record, name, list)
        if len(values) != 3 or not all(isinstance(v, int | float) and low <= v <= 1 for v in values):
            raise FormatError(f"normalisation.{name} must be three numbers from {low} to 1, found {values!r:.60}")
    return {name: [float(v) for v in record[name]] for name in ("mean", "std")}
