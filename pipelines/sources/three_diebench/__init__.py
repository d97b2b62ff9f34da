"""3DIEBench, its OOD twin, and any data set in their layout, as a source of views with seven parameters each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.archives import Content
from pipelines.sources import ViewsContent, ViewSource, ViewsRecord
from pipelines.sources.keys import sample_key
from pipelines.sources.three_diebench.splits import Assignment, assign, split_rule
from pipelines.sources.three_diebench.tar import ObjectTar
from pipelines.sources.three_diebench.tree import Listing, ObjectTree
from shards.errors import FormatError
from shards.schema import THREE_DIEBENCH_PARAMS


class ThreeDIEBenchSource(ViewSource):
    """`path` is an unpacked tree, or its tar(.gz), which is read as a stream.

    Splits come from the distributed lists (`split_lists`, or lying in the tree's root), or from `val_match` (objects of
    this name are validation) or `val_fraction` (a share of each synset); `split` "ood" takes all objects.
    """

    name = "3diebench"
    params = THREE_DIEBENCH_PARAMS

    def __init__(
        self,
        path: Path | str,
        *,
        split_lists: Path | None = None,
        val_match: str | None = None,
        val_fraction: float | None = None,
        split: str = "all",
    ):
        self.path, self.split = Path(path), split
        self.objects = open_objects(self.path)
        self.random_access = self.objects.random_access
        self.rule = split_rule(self.path, split_lists, val_match, val_fraction, split)

    @property
    def options(self) -> dict[str, Any]:
        """Of the command line."""
        lists = self.rule.lists
        return {
            "split_lists": lists.folder.resolve().name if lists and lists.folder != self.path else None,
            "val_match": self.rule.val_match,
            "val_fraction": self.rule.val_fraction,
            "split": self.split,
        }

    @property
    def settled(self) -> dict[str, Any]:
        """A tar's size stands for it until its sha256 is known."""
        size = {"source_bytes": self.path.stat().st_size} if self.path.is_file() else {}
        return {**size, "split": self.split, "split_rule": self.rule.describe()}

    @property
    def identity(self) -> dict[str, Any]:
        return self.listing.identity

    @property
    def sample(self) -> Sequence[tuple[str, Content]]:
        return self.listing.sample

    @property
    def classes(self) -> tuple[str, ...]:
        return self.assignment.classes

    @cached_property
    def listing(self) -> Listing:
        return self.objects.list()

    @cached_property
    def assignment(self) -> Assignment:
        return assign(self.listing.objects, self.rule, self.split)

    def records(self) -> list[ViewsRecord]:
        assigned = self.assignment
        return [
            ViewsRecord(
                key=sample_key(item.synset, item.object),
                label=label,
                split=split,
                name=item.name,
                view_ids=item.view_ids,
                missing=tuple(
                    f"{item.name}/{file}: its {'latent' if file.startswith('image') else 'image'} is missing"
                    for file in item.orphans
                ),
                meta={"synset": item.synset, "object": item.object},
            )
            for item, label, split in zip(self.listing.objects, assigned.label, assigned.split, strict=True)
        ]

    def read(self, records: Sequence[ViewsRecord], positions: Sequence[int]) -> Iterator[ViewsContent]:
        for position, images, latents in self.objects.read(records, positions):
            yield ViewsContent(records[position], images, latents)

    def stamp(self, records: Sequence[ViewsRecord]) -> str:
        return self.objects.stamp(records)

    def holds(self, records: Sequence[ViewsRecord], identity: dict[str, Any]) -> bool:
        return self.objects.holds(records, identity)


def open_objects(path: Path) -> ObjectTree | ObjectTar:
    """ObjectTree for a folder, ObjectTar for a file. Raises FormatError if there is neither."""
    if path.is_dir():
        return ObjectTree(path)
    if path.is_file():
        return ObjectTar(path)
    raise FormatError(f"{path} is not there; give the unpacked tree or its .tar or .tar.gz")
