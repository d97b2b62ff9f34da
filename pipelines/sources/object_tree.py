"""Objects in an unpacked tree. Only names are listed here; the files are read by the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from pipelines.archives import CIRCLE, NO_VIEW, LeftOut, warn_of
from pipelines.build.transform import files_digest
from pipelines.build.watch import SourceWatch
from pipelines.sources.content import content_sha256, file_stats, stamp_of
from pipelines.sources.objects import (
    ListedObject,
    Listing,
    ObjectFiles,
    SpreadSample,
    ViewCollector,
    no_layout,
    read_content,
    view_file,
)
from shards.environment import pass_environment_on
from shards.errors import FormatError


class TreeSource:
    """`path` is the folder of synsets, or a folder whose only sub-folder is that."""

    def __init__(self, path: Path):
        self.path = self.root = path
        self.others = LeftOut()

    def list(self) -> Listing:
        """Objects in ascending order of synset and name. Raises FormatError if there are none."""
        objects = self._list_root(self.path)
        if not objects and len(folders := self._folders(self.path)) == 1:
            self.root = self.path / folders[0]
            objects = self._list_root(self.root)
        if not any(item.view_ids for item in objects):
            raise no_layout(self.path)
        warn_of(self.others, self.path)
        listing = Listing(objects, {"kind": "tree", "name": self.root.resolve().name}, self._sample(objects))
        listing.identity["listing_sha256"] = listing.sha256()
        listing.identity["content_sha256"] = self._content(objects)
        return listing

    def watch(self, listing: Listing) -> SourceWatch:
        objects = listing.objects

        def stamp() -> str:
            return stamp_of(file_stats(f"{self.root}/{name}" for name in _names(objects)))

        def digest(position: int) -> str:
            (files,) = self.read(objects, [position])
            return files_digest([*files.images, *files.latents])

        def same() -> bool:
            return self._content(objects) == listing.identity["content_sha256"]

        return SourceWatch(self.path, stamp, same, digest)

    def _content(self, objects: Sequence[ListedObject]) -> str:
        stats = file_stats(f"{self.root}/{name}" for name in _names(objects))
        sizes = (size for size, _, _ in stats)
        return content_sha256(zip(_names(objects), sizes, strict=True), lambda _, name: read_content(self.root / name))

    def read(self, objects: Sequence[ListedObject], positions: Sequence[int]) -> Iterator[ObjectFiles]:
        for position in positions:
            item = objects[position]
            folder = self.root / item.synset / item.name
            yield ObjectFiles(
                position,
                [folder / f"image_{k}.jpg" for k in item.view_ids],
                [folder / f"latent_{k}.npy" for k in item.view_ids],
            )

    def _list_root(self, root: Path) -> list[ListedObject]:
        self.others = LeftOut()
        names = [(synset, name) for synset in self._folders(root) for name in self._folders(root / synset)]
        collector = ViewCollector()
        objects = []
        for synset, name in tqdm(names, desc="listing", unit="object", disable=None, leave=False):
            seen = False
            for file in _entries(root / synset / name):
                if (view := view_file(file.name)) is not None:
                    collector.add(*view)
                    seen = True
                elif file.name.startswith("."):
                    self.others.hidden += 1
                elif not self._is_folder(file):
                    self.others.add(NO_VIEW, f"{synset}/{name}/{file.name}")
            if seen:
                objects.append(collector.close(synset, name))
        return objects

    def _sample(self, objects: list[ListedObject]) -> list:
        sample = SpreadSample()
        for item in objects:
            files = [f"image_{k}.jpg" for k in item.view_ids]
            for file in files + [orphan for orphan in item.orphans if orphan.startswith("image")]:
                name = f"{item.path}/{file}"
                if sample.wants(rank := sample.rank(name)):
                    sample.add(rank, name, self.root / name)
        return sample.items()

    def _folders(self, folder: Path) -> list[str]:
        return [entry.name for entry in _entries(folder) if self._is_folder(entry)]

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError as error:  # a link to itself; one that leads nowhere is merely no folder
            pass_environment_on(error)
            self.others.add(CIRCLE, os.path.relpath(entry.path, self.path))
            return False


def _names(objects: Sequence[ListedObject]) -> Iterator[str]:
    """Of all files of complete views."""
    for item in objects:
        for k in item.view_ids:
            yield f"{item.path}/image_{k}.jpg"
            yield f"{item.path}/latent_{k}.npy"


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        pass_environment_on(error)
        raise FormatError(f"{folder} cannot be listed: {error.strerror}") from error
