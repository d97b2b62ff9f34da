"""What `shard stl10`, `imagenet` and `folder` ask for, as far as it settles the content of a set."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pipelines.choose import RULE
from pipelines.encode import JpegSetting
from pipelines.images.fit import Fit
from pipelines.images.source import ImageSource
from pipelines.jpeg import LARGEST_SIDE
from shards.errors import UsageError
from shards.schema import Encoding

NO_OPTIONS = ("pipeline", "limit_rule")


@dataclass(frozen=True)
class Request:
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
