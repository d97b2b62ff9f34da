"""A source of images → a `maps` set: the saliency map of each image. Killed at any moment, the next run goes on.

MapRequest holds what decides the content of a set of maps; provenance() writes it into the metadata.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from tqdm import tqdm

from pipelines.archives import warn_of
from pipelines.build.options import look_first
from pipelines.build.plan import RULE
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.build.stage import BadItems, Notes, OpenShard, PlannedShard, plan_shards, taken_back_if_empty
from pipelines.build.watch import SourceWatch
from pipelines.saliency.engine import Engine, MapJob, start_engine
from pipelines.saliency.models import ModelChoice, chosen_devices
from pipelines.sources.source import ImageRecord, ImageSource, images_watch, limited
from shards.environment import usable_cores
from shards.errors import UsageError
from shards.metadata import read_info
from shards.schema import DatasetInfo, MapSpec, MapStorage
from shards.writer import SetBuilder


def build_saliency(
    source: ImageSource,
    out: Path | str,
    choice: ModelChoice,
    *,
    storage: MapStorage = "float16",
    samples_per_shard: int = 1024,
    device: str = "auto",
    processes: int | None = None,
    workers: int | None = None,
    limit: int | None = None,
    max_bad: int = 0,
    overwrite: bool = False,
) -> DatasetInfo:
    """Write the map of every image of `source`, with the image's split, key, label and meta.

    Images of one size go through the model together. `device`: auto, cpu, cuda, cuda:N, or several with commas, one
    process each; on the CPU `processes` share the cores. `workers` read and decode. `limit`: so many of each split,
    evenly over classes. Up to `max_bad` images that cannot be read are left out. Shards that are finished stay, and the
    same call goes on there, to the same bytes on the same device.

    Raises UsageError or FormatError for bad input, FailureError if the model or a process fails.
    """
    request = map_request(source, choice, storage, samples_per_shard, limit)
    devices = chosen_devices(device, processes)
    records = limited(source.records(), limit)
    if not records:
        raise UsageError(f"{source.path} holds no images")
    if look_first(Path(out), request.to_json(), overwrite):
        return finished(Path(out))
    job = MapJob(choice, source, storage, _workers(source, workers, len(devices)), _threads(devices))
    plan = plan_shards([record.split for record in records], samples_per_shard)
    with (
        sigterm_as_interrupt(),
        contextlib.closing(start_engine(job, devices)) as engine,
        taken_back_if_empty(Path(out)),
        SetBuilder(out, overwrite=overwrite, **_identity(request, engine)) as builder,
    ):
        if builder.info:
            return builder.info
        watch = images_watch(source, records)
        left_out = _build(builder, plan, records, engine, BadItems(max_bad), watch)
        command = request.command("build-saliency")
        return builder.finish(map_provenance(request, command, engine.provenance, len(records), left_out))


def map_request(
    source: ImageSource, choice: ModelChoice, storage: MapStorage, samples_per_shard: int, limit: int | None
) -> MapRequest:
    """What is asked for, with the options that the command line needs for it. Raises UsageError."""
    maker = {"pipeline": "build-saliency", **choice.identity()}
    options = {name: value for name, value in choice.identity().items() if name != "prior"}
    if source.name == "stl10":
        del options["out_size"]
    if maker["prior"] == "MIT1003":
        options["centre_bias"] = "centerbias_mit1003.npy"
    return MapRequest(source, maker, storage, samples_per_shard, limit, options)


def _build(
    builder: SetBuilder,
    plan: Sequence[PlannedShard],
    records: list[ImageRecord],
    engine: Engine,
    bad: BadItems,
    watch: SourceWatch,
) -> list[str]:
    """Writes the shards that are not finished yet. Names of what was left out, sorted."""
    notes = Notes(builder.layout)
    watch.begin(builder, plan, notes)
    done = builder.done()
    todo = [shard for shard in plan if shard.name not in done]
    bad.add([name for shard in plan if shard.name in done for name in notes.read(shard.name).bad])
    left = sum(len(shard.positions) for shard in todo)
    with tqdm(total=len(records), initial=len(records) - left, unit="img", disable=None) as bar:
        if todo:
            _write(builder, notes, todo, records, engine, bad, bar)
    watch.end(builder, plan, notes)
    return sorted(bad.names)


def _write(
    builder: SetBuilder,
    notes: Notes,
    todo: Sequence[PlannedShard],
    records: list[ImageRecord],
    engine: Engine,
    bad: BadItems,
    bar: tqdm,
) -> None:
    opened: dict[int, OpenShard] = {}
    made = engine.make([[records[position] for position in shard.positions] for shard in todo])
    with contextlib.ExitStack() as undo:
        for number, result in made:
            if number not in opened:
                opened[number] = OpenShard(builder, todo[number])
                undo.callback(opened[number].writer.abort)
            shard = opened[number]
            shard.take(result)
            bad.add(result.bad)
            bar.update()
            if not shard.awaited:
                shard.close(notes)
        undo.pop_all()


def _workers(source: ImageSource, workers: int | None, processes: int) -> int:
    """Of each process. STL-10's pixels lie ready in its files: reading them elsewhere would only cost."""
    if workers is None:
        workers = 0 if source.name == "stl10" else usable_cores()
    return -(-workers // processes)


def _threads(devices: Sequence[str]) -> int | None:
    """Several processes on the CPU share its cores."""
    return max(1, usable_cores() // len(devices)) if len(devices) > 1 and devices[0] == "cpu" else None


def _identity(request: MapRequest, engine: Engine) -> dict[str, Any]:
    """What SetBuilder holds two builds against each other by."""
    of_model = {f"model_{name}": value for name, value in engine.provenance.items() if name != "model"}
    return {
        "name": f"{request.source.name}-{request.maker['model']}",
        "spec": MapSpec(request.storage),
        "classes": request.source.classes,
        "fingerprint": {**request.to_json(), **of_model},
    }


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


def map_provenance(
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
