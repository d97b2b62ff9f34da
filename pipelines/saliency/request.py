"""What is asked of a set of maps, made or published. No torch, which workers that take maps over would import for this.

MapRequest holds what decides the content of a set of maps; map_provenance() writes it into the metadata.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, get_args

from pipelines.build.options import check_choice, check_counts
from pipelines.build.run_build import BuildReport, named
from pipelines.sources import ImageSource
from pipelines.sources.subset import RULE
from shards.describe import command_line
from shards.schema import MapStorage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapRequest:
    """`maker` says where maps come from: JSON values, "model" first. Those in `options` are options of the command."""

    source: ImageSource
    maker: dict[str, Any]
    storage: MapStorage
    samples_per_shard: int
    limit: int | None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError for a value out of range."""
        check_choice("storage", self.storage, get_args(MapStorage))
        check_counts(samples_per_shard=self.samples_per_shard, limit=self.limit)

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart."""
        rule = RULE if self.limit is not None else None
        record = {**self.maker, **self._own(), "limit_rule": rule, "source": self.source.fingerprint}
        return {name: value for name, value in record.items() if value is not None}

    def command(self, verb: str, **more: Any) -> str:
        """The command line that gives the same maps, folders reduced to their names."""
        options = {"source": self.source.path.resolve().name, **more, **self.source.options, **self.options}
        return command_line(verb, self.source.name, options | self._own())

    def _own(self) -> dict[str, Any]:
        return {"storage": self.storage, "samples_per_shard": self.samples_per_shard, "limit": self.limit}


def map_provenance(
    request: MapRequest, command: str, model: dict[str, Any], images: int, report: BuildReport
) -> dict[str, Any]:
    """The same in every run of the same command on the same source. Logs which images have no map."""
    if report.bad:
        log.warning("%d images were left out, e.g. %s", len(report.bad), report.bad[0])
    request.source.others.warn(request.source.path)
    return {
        "command": command,
        "saliency_model": model,
        "source": {"name": request.source.path.resolve().name, "images": images, **request.source.fingerprint},
        "left_out": named(report.bad),
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow")},
    }
