"""Opening a source of images by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pipelines.sources.cifar100 import Cifar100Source
from pipelines.sources.folder import folder_source
from pipelines.sources.imagenet import imagenet_source
from pipelines.sources.source import ImageSource
from pipelines.sources.stl10 import Stl10Source
from pipelines.sources.tiny_imagenet import TinyImageNetSource
from shards.errors import UsageError

Kind = Literal["stl10", "imagenet", "cifar100", "tiny-imagenet", "folder"]


def open_source(kind: str, path: Path | str, *, val_fraction: float | None = None) -> ImageSource:
    """A source by name. Raises UsageError for an unknown kind, a path that is not there, an option of another kind."""
    if kind not in get_args(Kind):
        raise UsageError(f"source {kind!r} is not known; there are {', '.join(get_args(Kind))}")
    path = Path(path)
    if not path.exists():
        raise UsageError(f"{path} is not there; give the folder (or archive) that holds the images")
    if kind != "folder" and val_fraction is not None:
        raise UsageError(f"--val-fraction is for folders without a split of their own; {kind} has one")
    if kind == "stl10":
        return Stl10Source(path)
    if kind == "imagenet":
        return imagenet_source(path)
    if kind == "cifar100":
        return Cifar100Source(path)
    if kind == "tiny-imagenet":
        return TinyImageNetSource(path)
    return folder_source(path, val_fraction)
