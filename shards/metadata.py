"""`_meta/dataset.json`: DatasetInfo as JSON with a checksum over itself, and back with every field checked.

The checksum is the sha256 of the file's bytes with the checksum's own 64 digits replaced by zeros, so that any flipped
bit shows, white space included.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from shards.errors import FormatError
from shards.json_fields import digest, json_object, number, of_channels, one_of, strings, take
from shards.kinds import KINDS, kind_of
from shards.layout import MAX_SHARDS, SPLIT_NAME, Layout, shard_name
from shards.machine.files import sha256_of_bytes
from shards.schema import FORMAT_NAME, FORMAT_VERSION, DatasetInfo, ShardEntry, Spec, SplitInfo, ViewSpec
from shards.tar import BLOCK

MAX_JSON = 256 << 20
NO_CHECKSUM = "0" * 64


def info_to_bytes(info: DatasetInfo) -> bytes:
    """The content of dataset.json. The same info gives the same bytes."""
    fields = dataclasses.asdict(info)
    version, name, _ = (fields.pop(field) for field in ("format_version", "name", "spec"))
    record = {
        "format": FORMAT_NAME,
        "format_version": version,
        "kind": info.kind,
        "name": name,
        "spec": spec_to_json(info.spec),
        "members": kind_of(info.spec).member_records(),
        **fields,
        "checksum": NO_CHECKSUM,
    }
    return _with_checksum((json.dumps(record, indent=1, allow_nan=False) + "\n").encode())


def _with_checksum(blank: bytes) -> bytes:
    """In the place of the last NO_CHECKSUM."""
    start = blank.rindex(NO_CHECKSUM.encode())
    return blank[:start] + sha256_of_bytes(blank).encode() + blank[start + 64 :]


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """The fields of `spec`. What sets of before did not have is left out at its default."""
    fields = dataclasses.asdict(spec)
    if isinstance(spec, ViewSpec):
        fields["actions"] = None if spec.actions is None else spec.actions.to_json()
    defaults = {"sequence": 0, "actions": None, "ordered": False, "chunked": False, "features": None}
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}


def spec_from_json(kind: str, record: dict[str, Any]) -> Spec:
    """The inverse, with every field checked. FormatError: a field out of bounds, or a spec of another kind."""
    spec = KINDS[one_of({"kind": kind}, "kind", tuple(KINDS))].from_json(record).spec
    if spec.kind != kind:
        raise FormatError(f"kind is {kind!r}, but the spec is that of {spec.kind!r}")
    return spec


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


def with_readme(data: bytes, sha256: str) -> bytes:
    """A dataset.json that goes with another README.md; all else stays as it is, byte for byte."""
    readme, checksum = b'\n "readme_sha256": "%s"', b'"checksum": "%s"\n}\n'
    changed = re.sub(readme % b"[0-9a-f]{64}", readme % sha256.encode(), data, count=1)
    return _with_checksum(re.sub(checksum % b"[0-9a-f]{64}" + rb"\Z", checksum % NO_CHECKSUM.encode(), changed))


def info_from_bytes(data: bytes, where: str) -> DatasetInfo:
    try:
        record = json_object(data, where)
    except FormatError as error:
        raise FormatError(f"{error}: copy the set again or rebuild it") from error
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


CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def checked_name(name: str) -> str:
    """A set's name, "?" for bytes that are no UTF-8. FormatError: control characters, which a terminal would obey."""
    if CONTROL.search(name):
        raise FormatError(f"the name {name!r:.80} holds control characters; rename what the set is made of")
    return name.encode("utf-8", "replace").decode()


def _info(record: dict[str, Any]) -> DatasetInfo:
    kind = one_of(record, "kind", tuple(KINDS))
    spec = spec_from_json(kind, take(record, "spec", dict))
    splits = take(record, "splits", dict)
    version = number(record, "format_version", 1, FORMAT_VERSION)
    if version < spec.format_version:
        raise FormatError(f"format version {version} has no sequences in chunks and no features")
    levels = take(record, "normalisation", dict)
    lowest = {"mean": 0.0, "std": 1e-6} if kind_of(spec).has_pixels else {}
    return DatasetInfo(
        name=checked_name(take(record, "name", str)),
        spec=spec,
        classes=strings(record, "classes"),
        splits={name: _split(name, value) for name, value in splits.items()},
        normalisation={name: of_channels(levels, name, low, "normalisation") for name, low in lowest.items()},
        readme_sha256=digest(record, "readme_sha256"),
        fingerprint=take(record, "fingerprint", dict),
        provenance=take(record, "provenance", dict),
        format_version=version,
    )


def _split(name: str, value: Any) -> SplitInfo:
    # Shard and index names follow from the split's name and the shard's number: no path comes from the file.
    if not SPLIT_NAME.fullmatch(name) or not isinstance(value, dict):
        raise FormatError(f"split {name!r:.40} is malformed")
    records = take(value, "shards", list)
    if not 1 <= len(records) <= MAX_SHARDS or not all(isinstance(r, dict) for r in records):
        raise FormatError(f"split {name}: shards must be 1 to {MAX_SHARDS} objects")
    entries = tuple(entry_from_json(record, shard_name(name, number)) for number, record in enumerate(records))
    samples = number(value, "samples", 1, 2**31 - 1)
    if samples != sum(entry.samples for entry in entries):
        raise FormatError(f"split {name}: {samples} samples, its shards have {sum(e.samples for e in entries)}")
    index = f"_meta/index-{name}.parquet"
    if value.get("index") != index:
        raise FormatError(f"split {name}: index must be {index}, found {value.get('index')!r:.60}")
    return SplitInfo(entries, samples, index, digest(value, "index_sha256"))


def entry_from_json(record: dict[str, Any], name: str) -> ShardEntry:
    """That of the shard `name`. FormatError: of another one, or a field out of bounds."""
    if record.get("name") != name:
        raise FormatError(f"shard {name} is called {record.get('name')!r:.60}")
    size = number(record, "bytes", 2 * BLOCK, 2**50)
    samples, build = number(record, "samples", 1, 2**31 - 1), take({"build": "", **record}, "build", str)
    return ShardEntry(name, samples, size, digest(record, "sha256"), build)
