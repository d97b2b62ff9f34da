"""What a shard command asks for, as far as it settles the content: compared early, before hours of work.

What `shard stl10`, `imagenet` and `folder` ask for, as far as it settles the content of a set.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.build.encode import Fit, JpegSetting
from pipelines.build.plan import RULE
from pipelines.sources.decode import LARGEST_SIDE
from pipelines.sources.object_splits import THREE_WAYS, Split, SplitRule, find_split_lists
from pipelines.sources.source import ImageSource
from shards.claim import as_recorded, differing_values, inspect_folder
from shards.errors import FormatError, UsageError
from shards.layout import Layout
from shards.schema import Encoding


@dataclass(frozen=True)
class Request:
    """Options of `seqjepa-data shard 3diebench`, without those that do not change a byte."""

    source: Path
    rule: SplitRule
    split: Split
    size: int
    encoding: Encoding
    jpeg_quality: str
    samples_per_shard: int
    limit: int | None

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        choices = {"split": get_args(Split), "encoding": get_args(Encoding)}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} {getattr(self, name)!r} is not known; there are {', '.join(allowed)}")
        if not 1 <= self.size <= LARGEST_SIDE:
            raise UsageError(f"--size {self.size}: 1 to {LARGEST_SIDE} pixels are allowed")
        for name in ("samples_per_shard", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: 1 or more is allowed")
        if self.jpeg_quality != "auto":
            JpegSetting.parse(self.jpeg_quality)

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart; a tar's size stands for it until its sha256 is known."""
        record = {
            "pipeline": "3diebench",
            "source_bytes": self.source.stat().st_size if self.source.is_file() else None,
            "split": self.split,
            "split_rule": self.rule.describe(),
            "size": self.size,
            "encoding": self.encoding,
            "jpeg_quality": self.jpeg_quality if self.encoding == "jpeg" else None,
            "samples_per_shard": self.samples_per_shard,
            "limit": self.limit,
            "limit_rule": RULE if self.limit is not None else None,
        }
        return {name: value for name, value in record.items() if value is not None}

    def command(self) -> str:
        """The command line that gives the same bytes, folders reduced to their names."""
        lists = self.rule.lists
        options = {
            "source": self.source.resolve().name,
            "split-lists": lists.folder.resolve().name if lists and lists.folder != self.source else None,
            "val-match": self.rule.val_match,
            "val-fraction": self.rule.val_fraction,
            **{name.replace("_", "-"): getattr(self, name) for name in ("split", "size", "encoding")},
            "jpeg-quality": self.jpeg_quality if self.encoding == "jpeg" else None,
            "samples-per-shard": self.samples_per_shard,
            "limit": self.limit,
        }
        words = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
        return shlex.join(["seqjepa-data", "shard", "3diebench", *words])


def split_rule(
    source: Path, split_lists: Path | None, val_match: str | None, val_fraction: float | None, split: Split
) -> SplitRule:
    """The one rule that was given; else the lists that lie in the tree's root. Raises UsageError for none or two."""
    given = [name for name in (split_lists, val_match, val_fraction) if name is not None]
    if len(given) > 1 or (split == "ood" and given and split_lists is None):
        raise UsageError(
            "give one of --split-lists, --val-match and --val-fraction, and only --split-lists with --split ood"
        )
    if val_match is not None or val_fraction is not None:
        return SplitRule(val_match=val_match, val_fraction=val_fraction)
    lists = find_split_lists(split_lists or source)
    if lists is None and split_lists is not None:
        raise FormatError(f"{split_lists} holds no val_images.npy; give the folder of the distributed split lists")
    if lists is None and split != "ood":
        raise UsageError(THREE_WAYS)
    return SplitRule(lists=lists)


def look_first(out: Path, request: dict[str, Any], overwrite: bool) -> bool:
    """Whether `out` holds the finished set of this request. Raises UsageError if it holds anything else.

    SetBuilder checks the same and more, but it needs to know the source first, which takes long.
    """
    found = inspect_folder(Layout(out))
    if overwrite or found.identity is None:
        return False
    build = found.identity.get("build", {})
    there = {name: build[name] for name in request if name in build}
    if there != request and there != as_recorded(out, found, request):
        raise UsageError(
            f"{out} holds another set ({differing_values(there, request)}): choose another --out, or give --overwrite"
        )
    return found.info is not None


NO_OPTIONS = ("pipeline", "limit_rule")


@dataclass(frozen=True)
class ImageRequest:
    """Options, without those that do not change a byte. `size` None keeps the images' own, equal size."""

    source: ImageSource
    maps: Path | None
    size: int | None
    fit: Fit
    encoding: Encoding
    jpeg_quality: str
    samples_per_shard: int
    limit: int | None

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        for name, allowed in {"fit": get_args(Fit), "encoding": get_args(Encoding)}.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"--{name} {getattr(self, name)!r} is not known; there are {', '.join(allowed)}")
        if self.size is not None and not 1 <= self.size <= LARGEST_SIDE:
            raise UsageError(f"--size {self.size}: 1 to {LARGEST_SIDE} pixels are allowed")
        for name in ("samples_per_shard", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: 1 or more is allowed")
        if self.jpeg_quality != "auto":
            JpegSetting.parse(self.jpeg_quality)

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart."""
        record = {
            "pipeline": "images",
            "size": self.size,
            "fit": self.fit if self.size is not None else None,
            "encoding": self.encoding,
            "jpeg_quality": self.jpeg_quality if self.encoding == "jpeg" else None,
            "samples_per_shard": self.samples_per_shard,
            "limit": self.limit,
            "limit_rule": RULE if self.limit is not None else None,
        }
        return {name: value for name, value in record.items() if value is not None}

    def command(self, source_options: dict[str, Any]) -> str:
        """The command line that gives the same bytes, folders reduced to their names."""
        options = {
            "source": self.source.path.resolve().name,
            "maps": self.maps.resolve().name if self.maps else None,
            **source_options,
            **{name: value for name, value in self.to_json().items() if name not in NO_OPTIONS},
        }
        pairs = [(name.replace("_", "-"), str(value)) for name, value in options.items() if value is not None]
        words = [word for name, value in pairs for word in (f"--{name}", value)]
        return shlex.join(["seqjepa-data", "shard", self.source.name, *words])
