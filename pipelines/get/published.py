"""The public data sets of published.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.errors import UsageError

TABLE = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class PublishedFile:
    """One file. size: its bytes, 0 where the publisher states none; digest: in hexadecimal, "" where there is none.

    name       below the folder that the set goes to, with "/"
    algorithm  "md5" or "sha256"
    """

    name: str
    url: str = ""
    size: int = 0
    algorithm: str = "sha256"
    digest: str = ""


@dataclass(frozen=True)
class PublishedSet:
    """A data set as its publisher lets it be fetched.

    about   bytes of all files, roughly where one has no stated size
    shard   the command to go on with, {to} for the folder
    unpack  the command that comes first; "" where shards are made of the archive itself
    members what `--unpack` takes out of the first file
    """

    key: str
    title: str
    licence: str
    page: str
    about: int
    shard: str
    files: tuple[PublishedFile, ...]
    unpack: str = ""
    members: tuple[PublishedFile, ...] = ()


def published_sets() -> dict[str, PublishedSet]:
    """All of them, by the name that the command takes."""
    table = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    sets = {}
    for key, record in table.items():
        files = tuple(_file(entry) for entry in record.pop("files"))
        members = tuple(_file({"name": name, **entry}) for name, entry in record.pop("members", {}).items())
        sets[key] = PublishedSet(key, files=files, members=members, **record)
    return sets


def published_set(key: str) -> PublishedSet:
    """UsageError, listing the names that there are."""
    sets = published_sets()
    if key not in sets:
        raise UsageError(f"{key!r:.60} cannot be fetched; there are: {', '.join(sets)} (docs/data.md has all others)")
    return sets[key]


def _file(entry: dict[str, Any]) -> PublishedFile:
    algorithm = "md5" if "md5" in entry else "sha256"
    return PublishedFile(entry["name"], entry.get("url", ""), entry["bytes"], algorithm, entry.get(algorithm, ""))
