"""Which tars a `--source` names, as webdataset spells them: each with its split and a name of its own."""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.sources.split_folders import split_of
from shards.errors import UsageError, reason_of

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test", "unlabeled")
SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):")
SUFFIX = re.compile(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$", re.IGNORECASE)


@dataclass(frozen=True)
class TarFile:
    """One tar of a source.

    url    path, URL or pipe: command, as webdataset takes it
    name   of the file, without ".tar"; "pipe-000003" for the fourth tar, of a command. Different in each tar
    """

    url: str
    split: str
    name: str

    @property
    def is_stream(self) -> bool:
        return SCHEME.match(self.url) is not None

    @property
    def where(self) -> str:
        """For messages."""
        return self.url


def tars_of(sources: Sequence[str], split: str = "train") -> list[TarFile]:
    """All tars of `sources`, each a path, a folder of tars, a glob, a URL or a pipe: command, with webdataset's braces
    and "::"; "val=…" in front: its split, else `split`.

    UsageError: a tar that is not there, one that is given twice, a split or a scheme that is not known.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split!r} is not known; there are {', '.join(SPLITS)}")
    found: list[tuple[str, str]] = []
    for source in sources:
        named, _, rest = source.partition("=")
        where, of = (rest, named) if named in SPLITS else (source, split)
        found += [(url, of) for url in _expanded(where)]
    twice = [url for url, count in Counter(_same(url) for url, _ in found).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice; its samples would be in the set twice")
    _refuse_mixed_splits(found)
    names = _names([url for url, _ in found])
    return [TarFile(url, of, name) for (url, of), name in zip(found, names, strict=True)]


def _expanded(source: str) -> list[str]:
    from webdataset.gopen import gopen_schemes
    from webdataset.shardlists import expand_urls

    try:
        urls = expand_urls(source)
    except (ValueError, AssertionError) as error:
        raise UsageError(f"--source {source}: {reason_of(error)}; write e.g. shards-{{000..099}}.tar") from error
    if not all(urls):
        raise UsageError(f"--source {source!r} names nothing in one place; write e.g. shards-{{000..099}}.tar")
    found: list[str] = []
    for url in urls:
        scheme = SCHEME.match(url)
        if scheme is None or scheme[1] == "file":
            found += _on_disk(re.sub(r"^file:(//)?", "", url))
        elif scheme[1] in gopen_schemes:
            found.append(url)
        else:
            known = ", ".join(f"{name}:" for name in gopen_schemes if not name.startswith("_"))
            raise UsageError(f"--source {url}: {scheme[1]}: is not known; give a path, or one of {known}")
    return found


def _on_disk(path: str) -> list[str]:
    place = Path(path)
    if place.is_dir():
        names = sorted(str(entry) for entry in place.iterdir() if SUFFIX.search(entry.name) and entry.is_file())
        if not names:
            raise UsageError(f"{place} holds no .tar; give a tar, e.g. {path.rstrip('/')}/{{000..099}}.tar")
        return names
    if place.exists():
        return [path]
    if names := sorted(glob.glob(path)):
        return names
    raise UsageError(f"{path} is not there; give tars (e.g. shards-{{000..099}}.tar), a folder of them, a URL or pipe:")


def _same(url: str) -> str:
    return url if SCHEME.match(url) else str(Path(url).resolve())


def _refuse_mixed_splits(found: Sequence[tuple[str, str]]) -> None:
    """UsageError: train-000000.tar and val-000000.tar would be one split."""
    told: dict[str, set[str]] = {}
    for url, split in found:
        word = re.split(r"[^A-Za-z]", Path(url).name)[0]
        if (said := split_of(word)) is not None:
            told.setdefault(split, set()).add(said)
    for split, said in told.items():
        if len(said) > 1:
            raise UsageError(
                f"the tars' names say that they are {' and '.join(sorted(said))}, and all would be {split}; give each "
                "its split, e.g. --source 'train=train-*.tar' --source 'val=val-*.tar'"
            )


def _names(urls: Sequence[str]) -> list[str]:
    """File names without suffix; where these are not all different, with the folder that each lies in."""
    parts = [() if url.startswith("pipe:") else urlsplit(url).path.rstrip("/").split("/") for url in urls]
    names: list[str] = []
    for count in (1, 2, 3):
        names = [
            SUFFIX.sub("", "_".join(part[-count:])) if part else f"pipe-{number:06d}"
            for number, part in enumerate(parts)
        ]
        if len(set(names)) == len(names):
            return names
    return [f"{number:06d}_{name}" for number, name in enumerate(names)]
