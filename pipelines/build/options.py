"""What a shard command asks for, as far as it settles the content: compared early, before hours of work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.build.encode import Fit, JpegSetting
from pipelines.sources import Source
from pipelines.sources.decode import LARGEST_SIDE
from pipelines.sources.subset import RULE
from shards.building.claim import as_recorded, differing_values, inspect_place, instead
from shards.describe import command_line
from shards.errors import UsageError
from shards.schema import Encoding
from shards.stores.store import as_address


@dataclass(frozen=True)
class BuildOptions:
    """Options of a build, without those of its source and those that do not change a byte.

    size               pixels of a side, as PIL resizes (bilinear, antialiased); None: the images' own, equal size
    fit                "squash" the whole image, or "crop" its largest centred square; None for views, always squashed
    encoding           "jpeg", always encoded anew, or "raw" pixels
    jpeg_quality       "auto", the setting that decodes fastest with 41 dB or more; or e.g. "444-90"
    samples_per_shard  in one tar
    limit              so many samples of each split, evenly over the same classes; None: all
    """

    size: int | None = None
    fit: Fit | None = "squash"
    encoding: Encoding = "jpeg"
    jpeg_quality: str = "auto"
    samples_per_shard: int = 1024
    limit: int | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_choice("fit", self.fit, (*get_args(Fit), None))
        check_choice("encoding", self.encoding, get_args(Encoding))
        if self.size is not None and not 1 <= self.size <= LARGEST_SIDE:
            raise UsageError(f"--size {self.size}: 1 to {LARGEST_SIDE} pixels are allowed")
        check_counts(samples_per_shard=self.samples_per_shard, limit=self.limit)
        if self.jpeg_quality != "auto":
            JpegSetting.parse(self.jpeg_quality)

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart."""
        record = {
            **vars(self),
            "fit": self.fit if self.size is not None else None,
            "jpeg_quality": self.jpeg_quality if self.encoding == "jpeg" else None,
            "limit_rule": RULE if self.limit is not None else None,
        }
        return {name: value for name, value in record.items() if value is not None}

    def setting(self, choose: Callable[[], JpegSetting]) -> JpegSetting | None:
        """That of the JPEGs; None: raw pixels. choose: what "auto" stands for."""
        if self.encoding == "raw":
            return None
        return choose() if self.jpeg_quality == "auto" else JpegSetting.parse(self.jpeg_quality)

    def command(self, source: Source, maps: Path | None = None) -> str:
        """The command line that gives the same bytes, folders reduced to their names."""
        own = {name: value for name, value in self.to_json().items() if name != "limit_rule"}
        folders = {"source": source.path.resolve().name, "maps": maps.resolve().name if maps else None}
        return command_line("shard", source.name, {**folders, **source.options, **own})


def check_choice(name: str, value: object, allowed: tuple) -> None:
    """Raises UsageError."""
    if value not in allowed:
        names = ", ".join(str(choice) for choice in allowed if choice is not None)
        raise UsageError(f"--{name.replace('_', '-')} {value!r} is not known; allowed are {names}")


def check_counts(**counts: int | None) -> None:
    """Raises UsageError for a number below 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: 1 or more is allowed")


def look_first(out: Path, request: dict[str, Any], overwrite: bool) -> bool:
    """Whether `out` holds the finished set of this request. Raises UsageError if it holds anything else.

    SetBuilder checks the same and more, but it needs to know the source first, which takes long.
    """
    found = inspect_place(out)
    if overwrite or found.identity is None:
        return False
    build = found.identity.get("build", {})
    there = {name: build[name] for name in request if name in build}
    if there != request and there != as_recorded(out, found, request):
        differ = differing_values(there, request)
        raise UsageError(f"{as_address(out) or out} holds another set ({differ}): {instead(out)}")
    return found.info is not None
