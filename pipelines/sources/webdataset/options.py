"""Which tars a `--source` names, as webdataset spells them, and what of the command line says how they are read."""

from __future__ import annotations

import glob
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipelines.archives import printable
from pipelines.sources.split_folders import SPLIT_WORDS, split_of, splits_said
from pipelines.sources.subset import check_fraction
from shards.engines.steps import STEP
from shards.errors import FormatError, UsageError, reason_of
from shards.layout import Layout
from shards.metadata import read_info
from shards.schema import DatasetInfo

log = logging.getLogger(__name__)

NAME = "webdataset"
PIPE = "pipe:"
SPLITS = ("train", "val", "test", "unlabeled")
MOST_TARS = 1_000_000
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


def tars_of(sources: Sequence[str], split: str = "train") -> list[TarFile]:
    """All tars of `sources`, each a path, a folder of tars, a glob, a URL or a pipe: command, with webdataset's braces
    and "::"; "val=…" in front: its split, else `split`.

    UsageError: a tar that is not there, one that is given twice, a split or a scheme that is not known.
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split!r} is not known; allowed are {', '.join(SPLITS)}")
    found: list[tuple[str, str]] = []
    unsaid: list[str] = []  # tars that are training because nobody said what they are
    for source in sources:
        named, _, rest = source.partition("=")
        where, of = (rest, named) if named in SPLITS else (source, split)
        urls = _expanded(where)
        found += [(url, of) for url in urls]
        unsaid += urls if named not in SPLITS and split == "train" else []
    places = Counter(url if SCHEME.match(url) else str(Path(url).resolve()) for url, _ in found)
    twice = [url for url, count in places.items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is given twice; its samples would be in the set twice")
    _refuse_two_packings([url for url, _ in found])
    _refuse_mixed_splits(found)
    _refuse_other_split(unsaid)
    _say_several_names(unsaid)
    names = _names([url for url, _ in found])
    return [TarFile(url, of, name) for (url, of), name in zip(found, names, strict=True)]


def _expanded(source: str) -> list[str]:
    from webdataset.gopen import gopen_schemes
    from webdataset.shardlists import expand_urls

    try:
        if (most := _most_names(source)) > MOST_TARS:
            raise ValueError(f"names {most:,} tars, at most {MOST_TARS:,} are read")
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
            if url.startswith(PIPE) and STEP.get().by_address:  # a command that lies where others may be able to write
                raise UsageError(
                    "--source pipe:… is not prepared at an address, where whoever may write would run commands here: "
                    "start `seqjepa-data shard` itself on as many machines as you like, they share the work"
                )
            found.append(url)
        else:
            known = ", ".join(f"{name}:" for name in gopen_schemes if not name.startswith("_"))
            raise UsageError(f"--source {url}: {scheme[1]}: is not known; give a path, or one of {known}")
    return found


def _most_names(source: str) -> int:
    """How many names there may be, before any is made: all choices of innermost braces with each other."""
    count = 1
    for inner in re.findall(r"\{([^{}]*)\}", source):
        ends = re.fullmatch(r"(-?[0-9]+)\.\.(-?[0-9]+)(?:\.\.-?([0-9]+))?", inner)
        steps = abs(int(ends[2]) - int(ends[1])) // max(int(ends[3] or 1), 1) if ends else inner.count(",")
        count *= steps + 1
    return count


def _on_disk(path: str) -> list[str]:
    place = Path(path)
    if place.is_dir():
        there = (entry for entry in place.iterdir() if SUFFIX.search(entry.name) and entry.is_file())
        names = sorted(str(entry) for entry in there if not entry.name.startswith("."))  # as macOS puts beside files
        if not names:
            raise UsageError(f"{place} holds no .tar; give a tar, e.g. {path.rstrip('/')}/{{000..099}}.tar")
        return names
    if place.exists():
        return [path]
    if names := sorted(glob.glob(path)):
        return names
    raise UsageError(f"{path} is not there; give tars (e.g. shards-{{000..099}}.tar), a folder of them, a URL or pipe:")


def _refuse_mixed_splits(found: Sequence[tuple[str, str]]) -> None:
    """UsageError: in1k-train-0.tar and in1k-val-0.tar, or train/0.tar and val/0.tar, would be one split."""
    told: dict[str, set[str]] = {}
    for url, split in found:
        names = splits_said(Path(url).name) or {split_of(Path(url).parent.name) or ""} - {""}
        told.setdefault(split, set()).update(names if len(names) == 1 else ())
    for split, said in told.items():
        if len(said) > 1:
            raise UsageError(
                f"the tars' names say that they are {' and '.join(sorted(said))}, and all would be {split}; give each "
                "its split, e.g. --source 'train=train-*.tar' --source 'val=val-*.tar'"
            )


def _refuse_other_split(unsaid: Sequence[str]) -> None:
    """UsageError: val-000000.tar would be training."""
    for url in unsaid:
        if (told := splits_said(Path(url).name)) and "train" not in told:
            other, name = min(told), printable(Path(url).name)
            raise UsageError(
                f"{name} is {other} by its name, and would be train; say which, e.g. --source '{other}=…/{name}', or "
                "'train=…'"
            )


def _refuse_two_packings(urls: Sequence[str]) -> None:
    """UsageError: a.tar beside a.tar.gz, which may hold the same samples."""
    first: dict[str, str] = {}
    for url in urls:
        other = url if url.startswith(PIPE) else first.setdefault(SUFFIX.sub("", url), url)
        if other != url:
            both = " and ".join(printable(Path(name).name) for name in (other, url))
            raise UsageError(f"{both} may be one tar, packed in two ways; move one away, or rename it if they differ")


def _say_several_names(unsaid: Sequence[str]) -> None:
    """A line for entrenamiento-0.tar beside prueba-0.tar: in whatever language, as few names may be those of splits."""
    called = {re.sub("[0-9]+", "", "/".join(Path(SUFFIX.sub("", url)).parts[-2:])) for url in unsaid}
    if 1 < len(called) <= len(SPLIT_WORDS):
        log.warning(
            "tars of %d names (%s) are all train; if they are splits, give each its own, e.g. --source 'val=…'",
            *(len(called), ", ".join(map(printable, sorted(called)))),
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


@dataclass(frozen=True)
class TarOptions:
    """What of the command line says how tars are read.

    sources       as given, each with or without "SPLIT=" in front; `split` for those without
    label         JSON field that holds the label; None: `cls`
    classes       names of the labels, in the order of their numbers; None: the names or numbers that are there
    classes_file  that they are from
    image         which members are the images (TarSamples)
    val_fraction  this share of each class (or of the sequences) is validation
    """

    sources: tuple[str, ...]
    split: str = "train"
    label: str | None = None
    classes: tuple[str, ...] | None = None
    classes_file: str | None = None
    image: str | None = None
    val_fraction: float | None = None

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if self.val_fraction is not None:
            check_fraction(self.val_fraction)

    @cached_property
    def tars(self) -> list[TarFile]:
        """UsageError: a tar that is not there; --val-fraction beside splits."""
        tars = tars_of(self.sources, self.split)
        if self.val_fraction is not None and {tar.split for tar in tars} != {"train"}:
            raise UsageError("--val-fraction is for training tars alone; these say which split they are")
        return tars

    @cached_property
    def own(self) -> DatasetInfo | None:
        """What a finished set of ours says, if all tars are those of one."""
        folders = {None if tar.is_stream else Path(tar.url).parent for tar in self.tars}
        folder = folders.pop()
        if folders or folder is None or not Layout(folder).info.is_file():
            return None
        return read_info(folder)

    @property
    def known_classes(self) -> tuple[str, ...] | None:
        if self.classes is not None or self.label is not None or self.own is None:
            return self.classes
        return self.own.classes or None

    @property
    def path(self) -> Path:
        """Stands for the source in messages and names: the folder of its first tar, or its address."""
        first = self.tars[0]
        if first.url.startswith(PIPE):
            return Path(PIPE.rstrip(":"))
        return Path(_public_url(first.url)) if first.is_stream else Path(first.url).parent

    @property
    def set_name(self) -> str:
        """The folder of its first tar; of a stream the tar's name without its number."""
        first = self.tars[0]
        return first.name.rstrip("0123456789").rstrip("-_.") or NAME if first.is_stream else self.path.resolve().name

    def to_json(self) -> dict[str, Any]:
        """For a set's provenance: no folders, and nothing of a command or address that may be secret."""
        shown = [_public(source) for source in self.sources]
        given = {"label": self.label, "classes": self.classes_file, "image": self.image}
        given |= {"val_fraction": self.val_fraction}
        return {"source": shown, "split": self.split if self.split != "train" else None, **given}


def _public(source: str) -> str:
    """As it was given, without folders, and without what may be secret: a command, a user's name, what follows "?"."""
    named, _, rest = source.partition("=")
    split, where = (f"{named}=", rest) if named in SPLITS else ("", source)
    return split + "::".join(map(_public_url, where.split("::")))


def _public_url(url: str) -> str:
    if url.startswith(PIPE):
        return f"{PIPE}…"
    if not SCHEME.match(url):
        return Path(url).name
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def no_samples(asked: TarOptions) -> FormatError:
    return FormatError(f"{asked.path} has no samples with images; the tars are empty, or hold other things")
