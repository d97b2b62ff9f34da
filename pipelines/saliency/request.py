"""What a set of maps is asked for, as far as it settles the content; and what its metadata says of that."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pipelines.choose import RULE
from pipelines.images.source import ImageSource
from pipelines.left_out import warn_of
from shards.errors import UsageError
from shards.metadata import read_info
from shards.schema import DatasetInfo, MapStorage
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

NAMED_IN_PROVENANCE = 1000


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
        if self.storage not in get_args(MapStorage):
            raise UsageError(f"--storage {self.storage!r} is not known; there are {', '.join(get_args(MapStorage))}")
        for name in ("samples_per_shard", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: 1 or more is allowed")

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart."""
        rule = RULE if self.limit is not None else None
        record = {**self.maker, **self._own(), "limit_rule": rule, "source": self.source.fingerprint}
        return {name: value for name, value in record.items() if value is not None}

    def command(self, verb: str, **more: Any) -> str:
        """The command line that gives the same maps, folders reduced to their names."""
        options = {"source": self.source.path.resolve().name, **more, **self.source.options, **self.options}
        options |= self._own()
        chosen = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items() if value is not None]
        return shlex.join(["seqjepa-data", verb, self.source.name, *(word for option in chosen for word in option)])

    def _own(self) -> dict[str, Any]:
        return {"storage": self.storage, "samples_per_shard": self.samples_per_shard, "limit": self.limit}


def provenance(
    request: MapRequest, command: str, model: dict[str, Any], images: int, left_out: list[str]
) -> dict[str, Any]:
    """The same in every run of the same command on the same source. `left_out` names images without a map."""
    if left_out:
        log.warning("%d images were left out, e.g. %s", len(left_out), left_out[0])
    warn_of(request.source.others, request.source.path)
    return {
        "command": command,
        "saliency_model": model,
        "source": {"name": request.source.path.resolve().name, "images": images, **request.source.fingerprint},
        "left_out": {"count": len(left_out), "names": left_out[:NAMED_IN_PROVENANCE]},
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow")},
    }


def finished(out: Path) -> DatasetInfo:
    """The set as it is, checked and tidied as SetBuilder does it."""
    info = read_info(out)
    log.info("%s is finished already", out)
    identity = {"name": info.name, "spec": info.spec, "classes": info.classes, "fingerprint": info.fingerprint}
    with SetBuilder(out, **identity) as builder:
        return builder.info or info
