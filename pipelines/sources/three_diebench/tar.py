"""Objects in a tar that is read from front to back: nothing is unpacked, memory holds one object at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tqdm import tqdm

from pipelines.archives import FILE, FOLDER, LARGEST_FILE, LINK, NO_VIEW, TRAILING, ArchiveMember, LeftOut
from pipelines.archives.tar import TarStream
from pipelines.sources.content import digest_of, file_stats, stamp_of
from pipelines.sources.split_folders import split_of
from pipelines.sources.three_diebench.tree import (
    OF_SPLITS,
    Files,
    ListedObject,
    Listing,
    SpreadSample,
    ViewCollector,
    Wanted,
    no_layout,
    note_barren,
    view_file,
)
from shards.errors import FailureError, FormatError

View = tuple[str, str, int, int]  # "synset/object", kind, view number, bytes


class ObjectTar:
    """`path` is a .tar or .tar.gz whose members of one object lie together, as in the distributed archive."""

    random_access = False

    def __init__(self, path: Path):
        self.path = path

    def list(self) -> Listing:
        """Objects in the archive's order. Reads the whole file once, which also gives its sha256.

        Raises FormatError for a damaged or cut archive, a wrong layout, or an object in two places.
        """
        size = self.path.stat().st_size
        sample, collector, objects = SpreadSample(), ViewCollector(), []
        with (
            tqdm(total=size, desc="listing", unit="B", unit_scale=True, disable=None, leave=False) as bar,
            TarStream(self.path, bar.update, with_sha256=True) as stream,
        ):
            links, folders, others = [], [], LeftOut()
            for object_name, views in groupby(_views(stream, links, folders, others), key=lambda view: view[0]):
                for _, kind, number, length in views:
                    collector.add(kind, number)
                    name = f"{object_name}/image_{number}.jpg"
                    if kind == "image" and length <= LARGEST_FILE and sample.wants(rank := sample.rank(name)):
                        sample.add(rank, name, stream.read())
                objects.append(collector.close(object_name))
            sha256 = stream.drain()
        self._refuse_twice(objects)
        self._refuse_links(objects, links)
        note_barren(others, _barren(folders, {item.name for item in objects}))
        others.notes += [TRAILING] if stream.trailing else []
        others.warn(self.path)
        identity: dict[str, str | int] = {"kind": "tar", "name": self.path.name, "bytes": size, "sha256": sha256}
        return Listing(objects, identity, sample.items())

    def read(self, objects: Sequence[Wanted], positions: Sequence[int]) -> Iterator[Files]:
        """Stops reading after the last wanted object. Raises FailureError if the archive is not the one listed."""
        wanted, last = set(positions), max(positions, default=-1)
        with TarStream(self.path) as stream:
            groups = groupby(_views(stream, [], [], LeftOut()), key=lambda view: view[0])
            for position, (name, views) in enumerate(groups):
                if position > last:
                    return
                if position >= len(objects) or name != objects[position].name:
                    break
                if position in wanted:
                    yield position, *_read_views(objects[position], views, stream)
            else:
                if position >= last:
                    return
        raise _changed(self.path)

    def stamp(self, objects: Sequence[Wanted]) -> str:
        """Differs whenever the file may have been written to."""
        return stamp_of(file_stats([self.path]))

    def holds(self, objects: Sequence[Wanted], identity: dict[str, str | int]) -> bool:
        """Whether the file is still the one that was listed."""
        return digest_of(self.path) == identity["sha256"]

    def _refuse_twice(self, objects: list[ListedObject]) -> None:
        if not any(item.view_ids for item in objects):
            raise no_layout(self.path)
        seen: set[str] = set()
        for item in objects:
            if item.name in seen:
                raise FormatError(
                    f"{self.path}: the files of {item.name} lie in more than one place, so that it cannot be read as a "
                    "stream; unpack it and give the folder"
                )
            seen.add(item.name)

    def _refuse_links(self, objects: list[ListedObject], links: list[ArchiveMember]) -> None:
        """A link to an object, or to a folder of them, would be more objects in the unpacked tree."""
        folders = {item.object for item in objects} | {item.synset for item in objects}
        for link in links:
            if folders.intersection(_parts(link.target)[-1:]):
                raise FormatError(
                    f"{self.path} holds the link {link.name!a} to {link.target!a}, a folder of views; unpack it and "
                    "give the folder"
                )


def _views(stream: TarStream, links: list[ArchiveMember], folders: list[list[str]], others: LeftOut) -> Iterator[View]:
    """View files, in the archive's order; `links` gets the symbolic links, which may lead to folders of them, `folders`
    the parts of folders' names, `others` counts links and all that lies as deep as views do and is none.

    Raises FormatError if the layout has two roots, or where a view is no file of its own: it may lie before the link,
    and a stream is read once.
    """
    root = None
    for member in stream:
        parts = _parts(member.name)
        view = view_file(parts[-1]) if len(parts) >= 3 and ".." not in parts else None
        if view is None or member.kind == FOLDER:
            links += [member] if member.kind == LINK else []
            folders += [parts] if member.kind == FOLDER else []
            _count(others, member, parts)
            continue
        if member.kind != FILE:
            leads = f" to {member.target!a}" if member.target else ""
            raise FormatError(
                f"{stream.path} holds {member.name!a} as a {member.kind}{leads}, which cannot be followed in a stream; "
                "unpack it and give the folder, or pack it again with tar -h --hard-dereference"
            )
        here = "/".join(parts[:-3])
        root = here if root is None else root
        if here != root:
            splits = all(split_of(name.rpartition("/")[2]) for name in (root, here))
            advice = OF_SPLITS if splits else "one is allowed"
            raise FormatError(f"{stream.path} holds two trees, {root!r} and {here!r}; {advice}")
        yield f"{parts[-3]}/{parts[-2]}", *view, member.size


def _barren(folders: Sequence[list[str]], objects: set[str]) -> list[str]:
    """Folders where objects lie, and which are none: "synset/object"."""
    depths = {len(parts) for parts in folders if "/".join(parts[-2:]) in objects}
    return sorted({name for parts in folders if len(parts) in depths and (name := "/".join(parts[-2:])) not in objects})


def _count(others: LeftOut, member: ArchiveMember, parts: list[str]) -> None:
    if member.kind == FOLDER or (member.kind == FILE and len(parts) < 3):
        return
    if any(part.startswith(".") for part in parts):
        others.hidden += 1
    else:
        others.add(NO_VIEW if member.kind == FILE else f"a {member.kind}", member.name)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _read_views(item: Wanted, views: Iterator[View], stream: TarStream) -> tuple[list[bytes], list[bytes]]:
    """(images, latents). A member larger than LARGEST_FILE is passed over and comes out empty, which workers report."""
    found: dict[str, dict[int, bytes]] = {"image": {}, "latent": {}}
    for _, kind, number, size in views:
        if number in item.view_ids:
            found[kind][number] = stream.read() if size <= LARGEST_FILE else b""
    images, latents = found["image"], found["latent"]
    if not set(item.view_ids) == images.keys() == latents.keys():
        raise _changed(stream.path)
    return [images[k] for k in item.view_ids], [latents[k] for k in item.view_ids]


def _changed(path: Path) -> FailureError:
    return FailureError(f"{path} changed while it was read; run the same command again")
