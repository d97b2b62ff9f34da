"""A source of images → a `maps` set: the saliency map of each image. Killed at any moment, the next run goes on."""

from __future__ import annotations

import contextlib
import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipelines.images.source import ImageRecord, ImageSource, limited
from pipelines.pool import sigterm_as_interrupt, usable_cores
from pipelines.request import look_first
from pipelines.saliency.devices import chosen_devices
from pipelines.saliency.engine import Engine, MapJob, start_engine
from pipelines.saliency.models import ModelChoice
from pipelines.stage import BadItems, Notes, OpenShard, PlannedShard, plan_shards, taken_back_if_empty
from shards.errors import UsageError
from shards.metadata import read_info
from shards.schema import DatasetInfo, MapSpec, MapStorage
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

NAMED_IN_PROVENANCE = 1000


@dataclass(frozen=True)
class MapRequest:
    """What settles the content of a set of maps. `source` is listed already."""

    source: ImageSource
    choice: ModelChoice
    storage: MapStorage
    samples_per_shard: int
    limit: int | None

    def __post_init__(self) -> None:
        if self.storage not in ("float16", "log8"):
            raise UsageError(f"--storage {self.storage!r} is not known; there are float16, log8")
        for name in ("samples_per_shard", "limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value}: 1 or more is allowed")

    def to_json(self) -> dict[str, Any]:
        """JSON values that tell two requests apart."""
        choice = self.choice
        deepgaze = choice.name == "deepgaze-iie"
        record = {
            "pipeline": "build-saliency",
            "model": choice.name,
            "size": choice.out_size,
            "input_size": choice.input_size if deepgaze else None,
            "input_scale": choice.input_scale if deepgaze else None,
            "pooling": choice.pooling if deepgaze else None,
            "forward": choice.forward if deepgaze else None,
            "prior": self._prior(),
            "storage": self.storage,
            "samples_per_shard": self.samples_per_shard,
            "limit": self.limit,
            "source": self.source.fingerprint,
        }
        return {name: value for name, value in record.items() if value is not None}

    def _prior(self) -> str | None:
        if self.choice.name != "centre-bias":
            return None
        return "MIT1003" if self.choice.centre_bias or self.choice.download else "Gaussian"

    def command(self) -> str:
        """The command line that gives the same maps, folders reduced to their names."""
        left_out = ("pipeline", "source", "prior")
        options = {"source": self.source.path.resolve().name}
        options |= {name: value for name, value in self.to_json().items() if name not in left_out}
        if self._prior() == "MIT1003":
            options["centre_bias"] = "centerbias_mit1003.npy"
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return shlex.join(["seqjepa-data", "build-saliency", self.source.name, *words])


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
    process each; on the CPU `processes` share the cores. `workers` read and decode. `limit`: the first so many of each
    split. Up to `max_bad` images that cannot be read are left out. Shards that are finished stay, and the same call
    goes on there, to the same bytes on the same device.

    Raises UsageError or FormatError for bad input, FailureError if the model or a process fails.
    """
    request = MapRequest(source, choice, storage, samples_per_shard, limit)
    devices = chosen_devices(device, processes)
    records = limited(source.records(), limit)
    if not records:
        raise UsageError(f"{source.path} holds no images")
    if look_first(Path(out), request.to_json(), overwrite):
        return _finished(Path(out))
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
        notes = _build(builder, plan, records, engine, BadItems(max_bad))
        return builder.finish(_provenance(request, engine, len(records), notes))


def _build(
    builder: SetBuilder, plan: Sequence[PlannedShard], records: list[ImageRecord], engine: Engine, bad: BadItems
) -> list[str]:
    """Writes the shards that are not finished yet. Names of what was left out, sorted."""
    notes, done = Notes(builder.layout), builder.done()
    todo = [shard for shard in plan if shard.name not in done]
    bad.add([name for shard in plan if shard.name in done for name in notes.read(shard.name).bad])
    left = sum(len(shard.positions) for shard in todo)
    with tqdm(total=len(records), initial=len(records) - left, unit="img", disable=None) as bar:
        if todo:
            _write(builder, notes, todo, records, engine, bad, bar)
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
    of_model = {f"model_{name}": value for name, value in engine.provenance.items() if name != "name"}
    return {
        "name": f"{request.source.name}-{request.choice.name}",
        "spec": MapSpec(request.storage),
        "classes": request.source.classes,
        "fingerprint": {**request.to_json(), **of_model},
    }


def _provenance(request: MapRequest, engine: Engine, images: int, bad: list[str]) -> dict[str, Any]:
    """The same in every run of the same command on the same source."""
    if bad:
        log.warning("%d images could not be read and were left out, e.g. %s", len(bad), bad[0])
    return {
        "command": request.command(),
        "saliency_model": engine.provenance,
        "source": {"name": request.source.path.resolve().name, "images": images, **request.source.fingerprint},
        "left_out": {"count": len(bad), "names": bad[:NAMED_IN_PROVENANCE]},
        "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow")},
    }


def _finished(out: Path) -> DatasetInfo:
    """The set as it is, checked and tidied as SetBuilder does it."""
    info = read_info(out)
    log.info("%s is finished already", out)
    identity = {"name": info.name, "spec": info.spec, "classes": info.classes, "fingerprint": info.fingerprint}
    with SetBuilder(out, **identity) as builder:
        return builder.info or info
