"""STL-10, ImageNet or any folder of images → `image` shards; with the maps of the same source → `saliency` shards."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.encode import encoder_versions
from pipelines.images.fit import Fit
from pipelines.images.maps import MapSet
from pipelines.images.request import Request
from pipelines.images.source import ImageSource, images_watch
from pipelines.images.survey import Survey, survey
from pipelines.images.to_sample import ImageItem, ImageJob, to_sample
from pipelines.left_out import warn_of
from pipelines.request import look_first
from pipelines.stage import BadItems, BuildReport, build_shards, plan_shards, taken_back_if_empty
from shards.schema import DatasetInfo, Encoding, ImageSpec
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

NAMED_IN_PROVENANCE = 1000


def shard_images(
    source: ImageSource,
    out: Path | str,
    *,
    maps: Path | None = None,
    size: int | None = None,
    fit: Fit = "squash",
    encoding: Encoding = "jpeg",
    jpeg_quality: str = "auto",
    samples_per_shard: int = 1024,
    max_bad: int = 0,
    workers: int | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> DatasetInfo:
    """Write a shard set of every split that `source` has.

    maps   a finished `maps` set of the same source; each map goes into its image's sample (same split, same key),
           cropped and resized together with it
    size   pixels of a side, as PIL resizes (bilinear, antialiased); None: the images' own size, the same for all
    fit    "squash" the whole image, or "crop" its largest centred square
    limit  so many images of each split, evenly over the same classes
    Bytes depend neither on `workers` nor on interruptions.

    Raises UsageError or FormatError for bad input, also for more than `max_bad` images that are corrupt, of another
    size than their map, or without one; FailureError if a worker fails. What is finished stays; the same call goes on.
    """
    out = Path(out)
    request = Request(source, maps, size, fit, encoding, jpeg_quality, samples_per_shard, limit)
    mapped = MapSet(maps) if maps else None
    look_first(out, request.to_json(), overwrite)
    if mapped:
        mapped.refuse_other_images(source)
    found, bad = survey(request, mapped), BadItems(max_bad)
    bad.add(found.unmapped)
    with taken_back_if_empty(out), SetBuilder(out, overwrite=overwrite, **_identity(request, found, mapped)) as builder:
        if builder.info is None:
            report = _build(builder, request, found, bad, workers)
            builder.finish(_provenance(request, found, mapped, report))
        assert builder.info is not None
        warn_of(source.others, source.path)
        return builder.info


def _identity(request: Request, found: Survey, maps: MapSet | None) -> dict[str, Any]:
    """What SetBuilder holds two builds against each other by."""
    source, frame = request.source, found.frame
    fingerprint = {**request.to_json(), "source": source.fingerprint, "encoder": encoder_versions()}
    if maps:
        fingerprint["maps"] = maps.fingerprint
    if found.setting:
        fingerprint["jpeg"] = str(found.setting)
    return {
        "name": source.name if source.name != "folder" else re.sub(r"\.tar$", "", source.path.resolve().name),
        "spec": ImageSpec(frame.height, frame.width, request.encoding, maps.storage if maps else "none"),
        "classes": source.classes,
        "fingerprint": fingerprint,
    }


def _build(builder: SetBuilder, request: Request, found: Survey, bad: BadItems, workers: int | None) -> BuildReport:
    plan = plan_shards([item.record.split for item in found.items], request.samples_per_shard)
    work = partial(to_sample, job=ImageJob(request.source, found.frame, found.setting))

    def read(positions: Sequence[int]) -> Iterator[ImageItem]:
        return (found.items[position] for position in positions)

    watch = images_watch(request.source, [item.record for item in found.items])
    return build_shards(builder, plan, read, work, images=len(found.items), bad=bad, watch=watch, workers=workers)


def _provenance(request: Request, found: Survey, maps: MapSet | None, report: BuildReport) -> dict[str, Any]:
    """The same in every run of the same command on the same source, on whatever machine."""
    source = request.source
    record: dict[str, Any] = {
        "command": request.command(source.options),
        "source": {"name": source.path.resolve().name, **source.fingerprint, "other_files": source.left_out},
        "resize": f"{request.fit}, PIL bilinear, antialiased" if request.size else "none, own size",
        "images": report.images,
        "bad_images": {"count": len(report.bad), "names": report.bad[:NAMED_IN_PROVENANCE]},
        "versions": {**encoder_versions(), "pyarrow": version("pyarrow")},
    }
    if maps:
        record |= maps.provenance
    if found.setting and report.psnr_db is not None:
        record |= {"jpeg": str(found.setting), "psnr_db": round(report.psnr_db, 3)}  # mean over images
    if report.odd:
        record["odd_images"] = {"count": len(report.odd), "names": report.odd[:NAMED_IN_PROVENANCE]}
        log.warning("%d images may be damaged, e.g. %s", len(report.odd), report.odd[0])
    if report.bad:
        log.warning("%d bad images were left out, e.g. %s", len(report.bad), report.bad[0])
    return record
