"""What is in a set, for `seqjepa-data info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shards.kinds import kind_of
from shards.layout import Layout
from shards.reader import ShardSet


def describe(path: str | Path) -> dict[str, Any]:
    """Contents, sizes in bytes and provenance of a finished set, as JSON values. Errors as ShardSet.open.

    What there is besides depends on the kind: `views` counts the distinct views of each split, from its index …
    `bytes_total` includes everything in `_meta/`.
    """
    shards = ShardSet.open(path)
    info, layout = shards.info, Layout(shards.path)
    files = [layout.readme, *layout.meta.glob("*")]
    tar_bytes = sum(split.bytes for split in info.splits.values())
    return {
        "path": str(path),
        "name": info.name,
        "kind": info.kind,
        "format_version": info.format_version,
        "samples": info.samples,
        "classes": len(info.classes),
        **kind_of(info.spec).describe(),
        "splits": {name: _describe_split(shards, name) for name in shards.splits},
        "bytes_total": tar_bytes + sum(file.stat().st_size for file in files if file.is_file()),
        **({"normalisation": info.normalisation} if info.normalisation else {}),
        **({"psnr_db": info.provenance["psnr_db"]} if "psnr_db" in info.provenance else {}),
        "fingerprint": info.fingerprint,
        "provenance": info.provenance,
    }


def _describe_split(shards: ShardSet, name: str) -> dict[str, Any]:
    entry, table = shards.info.splits[name], shards.table(name)
    return {
        "samples": entry.samples,
        "classes_present": len(set(table.label.tolist()) - {-1}),
        "shards": len(entry.shards),
        "bytes": entry.bytes,
        **kind_of(shards.info.spec).describe_split(table),
    }
