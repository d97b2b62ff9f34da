"""Objects in 3DIEBench's layout, in an unpacked tree: what there is, and where the files of each object lie.

Layout (facebookresearch/SIE@54541cf data/README.md:16-55): `<root>/<synset>/<object>/image_{k}.jpg` beside
`latent_{k}.npy`; the root may have any name. A view is a number k that has both files. Other files are passed over.

Objects are read twice. `list()` finds out what there is: objects in their own order, their view numbers, and a small
sample of images that is spread over the whole set. `read()` then delivers the files of chosen objects.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from pipelines.archives import CIRCLE, FILE, NO_VIEW, Content, FolderFiles, LeftOut, printable, read_file
from pipelines.archives.tar import TarStream
from pipelines.archives.tree import sorted_entries
from pipelines.sources import ViewsRecord
from pipelines.sources.content import Stat, content_sha256, file_stats, name_rank, stamp_of, stamped
from pipelines.sources.split_folders import split_of
from shards.errors import FormatError, few
from shards.machine.environment import pass_environment_on

VIEW_FILE = re.compile(r"(image|latent)_(0|[1-9][0-9]{0,5})\.(jpg|npy)")
SUFFIX = {"image": "jpg", "latent": "npy"}
SAMPLE_VIEWS = 256
KINDS = {".png": "PNG", ".webp": "WebP", ".bmp": "BMP", ".exr": "EXR", ".tif": "TIFF", ".tiff": "TIFF"}
PICTURES = (*KINDS, ".jpg", ".jpeg")
LOOKED_AT = 10_000  # files
WANTED = "<synset>/<object>/image_<k>.jpg beside latent_<k>.npy"
PAGE = "docs/3diebench-layout.md"
OF_SPLITS = f"folders of splits are no part of it: move all classes into one, and list the objects of val ({PAGE})"

Files = tuple[int, Sequence[Content], Sequence[Content]]  # an object's position; images, latents as view_ids has them


@dataclass(frozen=True)
class ListedObject:
    """`name` is "synset/object". `view_ids` ascend; `orphans` are file names whose partner is missing."""

    name: str
    view_ids: tuple[int, ...]
    orphans: tuple[str, ...] = ()

    @property
    def synset(self) -> str:
        return self.name.partition("/")[0]

    @property
    def object(self) -> str:
        return self.name.partition("/")[2]


@dataclass(frozen=True)
class Listing:
    """`identity` says which objects these are, independent of where they lay. `sample`: (name, content) of images."""

    objects: list[ListedObject]
    identity: dict[str, str | int]
    sample: list[tuple[str, Content]] = field(default_factory=list)

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for item in self.objects:
            digest.update(f"{item.name} {item.view_ids} {item.orphans}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


Wanted = ListedObject | ViewsRecord  # whose files are to be read


@lru_cache(maxsize=1 << 13)  # objects have files of the same names
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

    def close(self, name: str) -> ListedObject:
        images, latents = self.found["image"], self.found["latent"]
        complete = tuple(sorted(images & latents))
        orphans = [f"image_{k}.jpg" for k in sorted(images - latents)]
        orphans += [f"latent_{k}.npy" for k in sorted(latents - images)]
        self.found = {"image": set(), "latent": set()}
        return ListedObject(name, self.shared.setdefault(complete, complete), tuple(orphans))


class SpreadSample:
    """The `count` images whose names hash lowest: spread over a set of unknown length, whatever the order."""

    def __init__(self, count: int = SAMPLE_VIEWS):
        self.count = count
        self.heap: list[tuple[int, str, Content]] = []

    def rank(self, name: str) -> int:
        return int.from_bytes(name_rank(name), "big")

    def wants(self, rank: int) -> bool:
        return len(self.heap) < self.count or rank < -self.heap[0][0]

    def add(self, rank: int, name: str, content: Content) -> None:
        push = heapq.heappush if len(self.heap) < self.count else heapq.heappushpop
        push(self.heap, (-rank, name, content))

    def items(self) -> list[tuple[str, Content]]:
        return [(name, content) for _, name, content in sorted(self.heap, reverse=True)]


class ObjectTree:
    """`path` is the folder of synsets, or a folder whose only sub-folder is that. Workers read the files themselves."""

    random_access = True

    def __init__(self, path: Path):
        self.path = self.root = path
        self.others = LeftOut()
        self.listed = ""  # the stamp of what was listed, until it is asked for

    def list(self) -> Listing:
        """Objects in ascending order of synset and name. Raises FormatError if there are none."""
        objects = self._list_root(self.path)
        if not objects and len(folders := self._folders(self.path)) == 1:
            self.root = self.path / folders[0]
            objects = self._list_root(self.root)
        if not any(item.view_ids for item in objects):
            raise no_layout(self.path)
        self.others.warn(self.path)
        listing = Listing(objects, {"kind": "tree", "name": self.root.resolve().name}, self._sample(objects))
        listing.identity["listing_sha256"] = listing.sha256()
        stamp = hashlib.sha256()
        listing.identity["content_sha256"] = self._content(objects, stamped(self._stats(objects), stamp))
        self.listed = stamp.hexdigest()
        return listing

    def read(self, objects: Sequence[Wanted], positions: Sequence[int]) -> Iterator[Files]:
        """Files of `objects[p]` for each p of `positions` (ascending), in that order."""
        for position in positions:
            folder, ids = f"{self.root}/{objects[position].name}", objects[position].view_ids
            images, latents = [f"image_{k}.jpg" for k in ids], [f"latent_{k}.npy" for k in ids]
            yield position, FolderFiles(folder, images), FolderFiles(folder, latents)

    def stamp(self, objects: Sequence[Wanted]) -> str:
        """Differs whenever a file of a complete view may have been written to. At first it is that of the listing, so
        that what is written to after that differs from it."""
        known, self.listed = self.listed, ""
        return known or stamp_of(self._stats(objects))

    def holds(self, objects: Sequence[Wanted], identity: dict[str, str | int]) -> bool:
        """Whether the files are still those that were listed."""
        return self._content(objects, self._stats(objects)) == identity["content_sha256"]

    def _stats(self, objects: Sequence[Wanted]) -> Iterator[Stat]:
        root = f"{self.root}/"
        return file_stats(root + name for name in _file_names(objects))

    def _content(self, objects: Sequence[Wanted], stats: Iterable[Stat]) -> str:
        read = partial(_read_below, f"{self.root}/")
        files = zip(_file_names(objects), (size for size, _, _ in stats), strict=True)
        return content_sha256(files, lambda _, name: read(name), read)

    def _list_root(self, root: Path) -> list[ListedObject]:
        self.others = LeftOut()
        names = [f"{synset}/{name}" for synset in self._folders(root) for name in self._folders(root / synset)]
        collector = ViewCollector()
        objects, barren = [], []
        for name in tqdm(names, desc="listing", unit="object", disable=None, leave=False):
            seen = False
            for file in sorted_entries(f"{root}/{name}"):
                if (view := view_file(file.name)) is not None:
                    collector.add(*view)
                    seen = True
                elif file.name.startswith("."):
                    self.others.hidden += 1
                elif not self._is_folder(file):
                    self.others.add(NO_VIEW, f"{name}/{file.name}")
            if seen:
                objects.append(collector.close(name))
            else:
                barren.append(name)
        note_barren(self.others, barren)
        return objects

    def _sample(self, objects: list[ListedObject]) -> list[tuple[str, Content]]:
        sample = SpreadSample()
        for item in objects:
            files = [f"image_{k}.jpg" for k in item.view_ids]
            for file in files + [orphan for orphan in item.orphans if orphan.startswith("image")]:
                name = f"{item.name}/{file}"
                if sample.wants(rank := sample.rank(name)):
                    sample.add(rank, name, self.root / name)
        return sample.items()

    def _folders(self, folder: Path) -> list[str]:
        return [entry.name for entry in sorted_entries(str(folder)) if self._is_folder(entry)]

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:  # a link to itself; one that leads nowhere is merely no folder
            pass_environment_on(error)
            self.others.add(CIRCLE, os.path.relpath(entry.path, self.path))
            return False


def _read_below(root: str, name: str) -> bytes:
    return read_file(root + name)


def _file_names(objects: Iterable[Wanted]) -> Iterator[str]:
    """Of all files of complete views."""
    for item in objects:
        for k in item.view_ids:
            yield f"{item.name}/image_{k}.jpg"
            yield f"{item.name}/latent_{k}.npy"


def note_barren(others: LeftOut, folders: Sequence[str]) -> None:
    if folders:
        shown = few([printable(name) for name in folders])
        others.notes.append(f"{len(folders)} folders where objects lie hold no view: {shown}")


def no_layout(path: Path) -> FormatError:
    """What to raise where `path`, a folder or a tar, holds no view: its pictures are PNG, say, or called otherwise."""
    suffixes = {name: PurePosixPath(name).suffix.lower() for name in islice(_all_files(path), LOOKED_AT)}
    names = sorted(name for name, suffix in suffixes.items() if suffix in PICTURES)
    example = printable(names[0]) if names else ""
    if kinds := sorted({KINDS[suffixes[name]] for name in names if suffixes[name] in KINDS}):
        return FormatError(
            f"{path} holds no {WANTED}: its pictures are {' and '.join(kinds)} ({example}), and views have to be JPEG "
            f"files called image_<k>.jpg, k from 0; convert them ({PAGE})"
        )
    if any(len(parts := name.split("/")) > 3 and split_of(parts[-4]) for name in names):
        return FormatError(f"{path} holds no {WANTED} (it has {example}); {OF_SPLITS}")
    there = f" (it has {example})" if names else ""
    return FormatError(f"{path} holds no {WANTED}{there}; give the folder (or tar) that has this layout ({PAGE})")


def _all_files(path: Path) -> Iterator[str]:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (os.path.relpath(os.path.join(folder, name), path) for name in names)
        return
    with TarStream(path) as stream:
        yield from (str(PurePosixPath(member.name)) for member in stream if member.kind == FILE)
