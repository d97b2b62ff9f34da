"""A source of images → a `maps` set: the saliency map of each image. Killed at any moment, the next run goes on.

MapRequest holds what decides the content of a set of maps; map_provenance() writes it into the metadata.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

from pipelines.build.fill import Filled
from pipelines.build.options import check_choice, check_counts, command_line, look_first
from pipelines.build.plan import PlannedShard, plan_shards
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.build.run_build import BuildReport, Prepared, finished_set, named, run_build
from pipelines.build.source_watch import images_watch
from pipelines.saliency.device import chosen_devices
from pipelines.saliency.engine import Engine, MapJob, Nodes, Shards, start_engine
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.speed import Speed
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.subset import RULE, limited
from shards.engines.hand import Hand
from shards.engines.ray_engine import CLUSTER, RayCluster
from shards.errors import UsageError
from shards.machine.environment import usable_cores
from shards.schema import DatasetInfo, MapSpec, MapStorage

log = logging.getLogger(__name__)


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
    on_speed: Callable[[Speed], None] | None = None,
) -> DatasetInfo:
    """Write the map of every image of `source`, with the image's split, key, label and meta.

    Images of one size go through the model together. `device`: auto, cpu, cuda, cuda:N, or several with commas, one
    process each; on the CPU `processes` share the cores. `workers` read and decode. `limit`: so many of each split,
    evenly over classes. Up to `max_bad` images that cannot be read are left out. Shards that are finished stay, and the
    same call goes on there, to the same bytes on the same device. `on_speed` hears how fast maps were made, where this
    call made any with DeepGaze on this machine.

    Raises UsageError or FormatError for bad input, FailureError if the model or a process fails.
    """
    request, cluster = map_request(source, choice, storage, samples_per_shard, limit), CLUSTER.get()
    devices = chosen_devices(device, processes) if cluster is None else [cluster.device(device)]
    records = limited(source.records(), limit)
    if not records:
        raise UsageError(f"{source.path} holds no images")
    if look_first(Path(out), request.to_json(), overwrite):
        return finished_set(Path(out))
    if cluster:
        job = MapJob(choice, source, storage, _workers_of_actor(source, workers, cluster, devices[0]), 1)
        prepared = _prepare(request, records, Nodes(job, cluster, devices[0]))
        return run_build(prepared, Path(out), max_bad=max_bad, overwrite=overwrite)
    shared = len(devices) > 1 and devices[0] == "cpu"  # several processes on the CPU share its cores
    threads = max(1, usable_cores() // len(devices)) if shared else None
    job = MapJob(choice, source, storage, _workers(source, workers, len(devices)), threads)
    with sigterm_as_interrupt(), contextlib.closing(start_engine(job, devices)) as engine:
        prepared = _prepare(request, records, engine)
        info = run_build(prepared, Path(out), max_bad=max_bad, overwrite=overwrite)
        if on_speed and engine.speed:
            on_speed(engine.speed)
        return info


def map_request(
    source: ImageSource, choice: ModelChoice, storage: MapStorage, samples_per_shard: int, limit: int | None
) -> MapRequest:
    """What is asked for, with the options that the command line needs for it. Raises UsageError."""
    maker = {"pipeline": "build-saliency", **choice.identity()}
    options = {name: value for name, value in choice.identity().items() if name not in ("prior", "model_precision")}
    options["precision"] = choice.precision
    if source.name == "stl10":
        del options["out_size"]
    if maker["prior"] == "MIT1003":
        options["centre_bias"] = "centerbias_mit1003.npy"
    return MapRequest(source, maker, storage, samples_per_shard, limit, options)


def _prepare(request: MapRequest, records: list[ImageRecord], engine: Engine | Nodes) -> Prepared:
    of_model = {f"model_{name}": value for name, value in engine.provenance.items() if name != "model"}

    def with_records(shards: Iterator[PlannedShard]) -> Shards:
        return ((shard, [records[position] for position in shard.positions]) for shard in shards)

    prepared = Prepared(
        identity={
            "name": f"{request.source.name}-{request.maker['model']}",
            "spec": MapSpec(request.storage),
            "classes": request.source.classes,
            "fingerprint": {**request.to_json(), **of_model},
        },
        plan=plan_shards([record.split for record in records], request.samples_per_shard),
        work=lambda shards: engine.make(with_records(shards)),
        images=len(records),
        watch=images_watch(request.source, records),
        provenance=partial(map_provenance, request, request.command("build-saliency"), engine.provenance, len(records)),
    )
    if not isinstance(engine, Nodes):
        return prepared

    def over_ray(_: RayCluster, hand: Hand, shards: Iterator[PlannedShard]) -> Iterator[Filled]:
        return engine.fill(hand, with_records(shards), len(prepared.plan))

    return replace(prepared, over_ray=over_ray)


def _workers_of_actor(source: ImageSource, workers: int | None, cluster: RayCluster, device: str) -> int:
    """On CPUs there is an actor a core already."""
    if device == "cpu" or source.name == "stl10":
        return workers or 0
    return workers if workers is not None else int(cluster.count("CPU") // max(1, cluster.count("GPU")))


def _workers(source: ImageSource, workers: int | None, processes: int) -> int:
    """Of each process. STL-10's pixels lie ready in its files: reading them elsewhere would only cost."""
    if workers is None:
        workers = 0 if source.name == "stl10" else usable_cores()
    return -(-workers // processes)


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
