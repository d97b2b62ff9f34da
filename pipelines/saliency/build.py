"""A source of images → a `maps` set: the saliency map of each image. Killed at any moment, the next run goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from pipelines.build.fill import Filled
from pipelines.build.options import look_first
from pipelines.build.plan import PlannedShard, plan_shards
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.build.run_build import Prepared, finished_set, run_build
from pipelines.build.source_watch import images_watch
from pipelines.saliency.device import chosen_devices
from pipelines.saliency.engine import Engine, MapJob, Nodes, Shards, start_engine
from pipelines.saliency.models import ModelChoice
from pipelines.saliency.request import MapRequest, map_provenance
from pipelines.saliency.speed import Speed
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.subset import limited
from shards.engines.hand import Hand
from shards.engines.ray_engine import CLUSTER, RayCluster
from shards.errors import UsageError
from shards.machine.environment import usable_cores
from shards.schema import DatasetInfo, MapSpec, MapStorage


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
