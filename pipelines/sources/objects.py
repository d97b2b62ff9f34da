"""Where objects come from: a folder tree, or the same tree inside a tar that is read as a stream.

Layout (facebookresearch/SIE@54541cf data/README.md:16-55): `<root>/<synset>/<object>/image_{k}.jpg` beside
`latent_{k}.npy`; the root may have any name. A view is a number k that has both files. Other files are passed over.

A source is read twice. `list()` finds out what there is: objects in the source's own order, their view numbers, and
a small sample of images that is spread over the whole set. `read()` then delivers the files of chosen objects.

Why a folder or tar is no set of objects in 3DIEBench's layout: its pictures are PNG, or called otherwise.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Protocol

from pipelines.archives import FILE, shown
from pipelines.archives.tar import TarStream
from pipelines.build.watch import SourceWatch
from shards.environment import pass_environment_on
from shards.errors import FormatError

VIEW_FILE = re.compile(r"(image|latent)_(0|[1-9][0-9]{0,5})\.(jpg|npy)")
SUFFIX = {"image": "jpg", "latent": "npy"}
LARGEST_FILE = 32 << 20  # bytes; 3DIEBench's images have 17 thousand
SAMPLE_VIEWS = 256

Content = bytes | Path  # a file's bytes, or where a worker finds them


@dataclass(frozen=True)
class ListedObject:
    """One object of a source. `view_ids` ascend; `orphans` are file names whose partner is missing."""

    synset: str
    name: str
    view_ids: tuple[int, ...]
    orphans: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        return f"{self.synset}/{self.name}"


@dataclass(frozen=True)
class Listing:
    """What a source holds. `identity` says which source it was, independent of where it lay."""

    objects: list[ListedObject]
    identity: dict[str, str | int]
    sample: list[tuple[str, Content]] = field(default_factory=list)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for item in self.objects:
            digest.update(f"{item.path} {item.view_ids} {item.orphans}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


@dataclass(frozen=True)
class ObjectFiles:
    """The files of one listed object; `images[i]` and `latents[i]` belong to its `view_ids[i]`."""

    position: int
    images: list[Content]
    latents: list[Content]


class Source(Protocol):
    path: Path

    def list(self) -> Listing: ...

    def watch(self, listing: Listing) -> SourceWatch:
        """Of a build whose positions are those of the listing's objects."""
        ...

    def read(self, objects: Sequence[ListedObject], positions: Sequence[int]) -> Iterator[ObjectFiles]:
        """Files of `objects[p]` for each p of `positions` (ascending), in that order."""
        ...


def view_file(name: str) -> tuple[str, int] | None:
    """("image" or "latent", view number) of a file name; None for any other file."""
    match = VIEW_FILE.fullmatch(name)
    if match is None or SUFFIX[match[1]] != match[3]:
        return None
    return match[1], int(match[2])


class ViewCollector:
    """Gathers the view numbers of the object that is being listed."""

    def __init__(self) -> None:
        self.found: dict[str, set[int]] = {"image": set(), "latent": set()}
        self.shared: dict[tuple[int, ...], tuple[int, ...]] = {}  # most objects have the same numbers

    def add(self, kind: str, number: int) -> None:
        self.found[kind].add(number)

    def close(self, synset: str, name: str) -> ListedObject:
        images, latents = self.found["image"], self.found["latent"]
        complete = tuple(sorted(images & latents))
        orphans = [f"image_{k}.jpg" for k in sorted(images - latents)]
        orphans += [f"latent_{k}.npy" for k in sorted(latents - images)]
        self.found = {"image": set(), "latent": set()}
        return ListedObject(synset, name, self.shared.setdefault(complete, complete), tuple(orphans))


class SpreadSample:
    """The `count` images whose names hash lowest: spread over a set of unknown length, whatever the order."""

    def __init__(self, count: int = SAMPLE_VIEWS):
        self.count = count
        self.heap: list[tuple[int, str, Content]] = []

    def rank(self, name: str) -> int:
        return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")

    def wants(self, rank: int) -> bool:
        return len(self.heap) < self.count or rank < -self.heap[0][0]

    def add(self, rank: int, name: str, content: Content) -> None:
        push = heapq.heappush if len(self.heap) < self.count else heapq.heappushpop
        push(self.heap, (-rank, name, content))

    def items(self) -> list[tuple[str, Content]]:
        return [(name, content) for _, name, content in sorted(self.heap, reverse=True)]


def read_content(content: Content) -> bytes:
    """Bytes of a file. Raises ValueError if it is empty, too large or cannot be read; OSError: the machine's fault."""
    if isinstance(content, Path):
        try:
            status = content.stat()
            if not stat.S_ISREG(status.st_mode):  # a fifo would never end
                raise ValueError("not a file")
            content = content.read_bytes() if status.st_size <= LARGEST_FILE else b""
        except OSError as error:
            raise unreadable(error) from error
    if not 0 < len(content) <= LARGEST_FILE:
        raise ValueError(f"empty, or larger than {LARGEST_FILE >> 20} MiB")
    return content


def unreadable(error: OSError) -> ValueError:
    """What to raise for a file that the system would not read. Raises `error` itself where the machine is to blame."""
    pass_environment_on(error)
    return ValueError(f"unreadable ({error.strerror})")


KINDS = {".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".exr": "EXR", ".tif": "TIFF", ".tiff": "TIFF"}
PICTURES = (*KINDS, ".jpg", ".jpeg")
LOOKED_AT = 10_000  # files
WANTED = "<synset>/<object>/image_<k>.jpg beside latent_<k>.npy"
PAGE = "docs/3diebench-layout.md"


def no_layout(path: Path) -> FormatError:
    """What to raise where `path`, a folder or a tar, holds no view at all."""
    names = sorted(name for name in islice(_files(path), LOOKED_AT) if _suffix(name) in PICTURES)
    example = shown(names[0]) if names else ""
    if kinds := sorted({KINDS[suffix] for suffix in map(_suffix, names) if suffix in KINDS}):
        return FormatError(
            f"{path} holds no {WANTED}: its pictures are {' and '.join(kinds)} ({example}), and views have to be JPEG "
            f"files called image_<k>.jpg, k from 0; convert them ({PAGE})"
        )
    there = f" (it has {example})" if names else ""
    return FormatError(f"{path} holds no {WANTED}{there}; give the folder (or tar) that has this layout ({PAGE})")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _files(path: Path) -> Iterator[str]:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (os.path.relpath(os.path.join(folder, name), path) for name in names)
        return
    with TarStream(path) as stream:
        yield from (str(PurePosixPath(member.name)) for member in stream if member.kind == FILE)
