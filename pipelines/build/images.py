"""STL-10, ImageNet or any folder of images → `image` shards; with the maps of the same source → `saliency` shards."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.encode import (
    Frame,
    JpegSetting,
    choose_setting,
    encode_image,
    encoder_versions,
    fit_image,
    fit_map,
)
from pipelines.build.fill import Records, Transformed
from pipelines.build.maps import MapSet, StoredMap
from pipelines.build.options import BuildOptions, look_first
from pipelines.build.plan import DIGITS, plan_shards
from pipelines.build.run_build import BuildReport, Prepared, named, outcome, run_build
from pipelines.build.source_watch import images_watch
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.content import short_digest
from pipelines.sources.decode import doubts, say_if_empty
from pipelines.sources.subset import limited
from shards.errors import FormatError, UsageError
from shards.saliency_map import encode_map
from shards.sample import ImageSample
from shards.schema import DatasetInfo, ImageSpec

log = logging.getLogger(__name__)

SAMPLE_IMAGES = 256
SIZES_SHOWN = 4


@dataclass(frozen=True)
class ImageItem:
    """An image and where its map lies, if maps are wanted."""

    record: ImageRecord
    stored_map: StoredMap | None = None

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True)
class ImageJob:
    """What becomes of every image. `setting` None keeps raw pixels."""

    source: ImageSource
    frame: Frame
    setting: JpegSetting | None


def shard_images(
    source: ImageSource,
    out: Path | str,
    *,
    maps: Path | None = None,
    max_bad: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    **options: Any,
) -> DatasetInfo:
    """Write a shard set of every split that `source` has.

    maps     a finished `maps` set of the same source; each map goes into its image's sample (same split, same key),
             cropped and resized together with it
    workers  None: one for each usable core; 0 or 1: in this process
    options  those of BuildOptions
    Bytes depend neither on `workers` nor on interruptions.

    Raises UsageError or FormatError for bad input, also for more than `max_bad` images that are corrupt, of another
    size than their map, or without one; FailureError if a worker fails. What is finished stays; the same call goes on.
    """
    asked, mapped = BuildOptions(**options), MapSet(maps) if maps else None
    look_first(Path(out), _request(asked), overwrite)
    if mapped:
        mapped.refuse_other_images(source)
    info = run_build(prepare_images(source, asked, mapped, workers), Path(out), max_bad=max_bad, overwrite=overwrite)
    source.others.warn(source.path)
    return info


def prepare_images(source: ImageSource, asked: BuildOptions, maps: MapSet | None, workers: int | None) -> Prepared:
    """Raises UsageError or FormatError: nothing to write, maps of others, images of several sizes without --size."""
    items, unmapped = _items(source, asked.limit, maps)
    if not items:
        raise UsageError(f"{source.path} has no image to write{f', and {unmapped[0]}' if unmapped else ''}")
    if maps is not None:
        _refuse_other_pictures(source, items, maps)
    sample = _sample(source, items)
    frame = _frame(source, asked, sample)
    setting = asked.setting(lambda: choose_setting([fit_image(image, frame) for image in sample]))
    job = ImageJob(source, frame, setting)
    plan = plan_shards([item.record.split for item in items], asked.samples_per_shard)
    planned = [items[position].record for shard in plan for position in shard.positions]
    work = Records(lambda positions: map(items.__getitem__, positions), partial(to_sample, job=job), workers)
    return Prepared(
        identity={
            "name": source.set_name,
            "spec": ImageSpec(frame.height, frame.width, asked.encoding, maps.storage if maps else "none"),
            "classes": source.classes,
            "fingerprint": _fingerprint(source, asked, maps, setting),
        },
        plan=plan,
        work=work,
        over_ray=work.over_ray,
        images=len(items),
        watch=images_watch(source, [item.record for item in items]),
        provenance=partial(_image_provenance, source, asked, maps, setting, planned),
        left_out=unmapped,
    )


def _request(asked: BuildOptions) -> dict[str, Any]:
    return {"pipeline": "images", **asked.to_json()}


def _fingerprint(
    source: ImageSource, asked: BuildOptions, maps: MapSet | None, setting: JpegSetting | None
) -> dict[str, Any]:
    fingerprint = {**_request(asked), "source": source.fingerprint, "encoder": encoder_versions()}
    if maps:
        fingerprint["maps"] = maps.fingerprint
    if setting:
        fingerprint["jpeg"] = str(setting)
    return fingerprint


def _image_provenance(
    source: ImageSource,
    asked: BuildOptions,
    maps: MapSet | None,
    setting: JpegSetting | None,
    planned: Sequence[ImageRecord],
    report: BuildReport,
) -> dict[str, Any]:
    if twice := _twice(planned, report.digests):
        log.warning("%d images are byte for byte those of another split or class, e.g. %s", len(twice), twice[0])
    return {
        "command": asked.command(source, maps.path if maps else None),
        "source": {"name": source.path.resolve().name, **source.fingerprint, "other_files": source.left_out},
        "resize": f"{asked.fit}, PIL bilinear, antialiased" if asked.size else "none, own size",
        "images": report.images,
        "bad_images": named(report.bad),
        "versions": {**encoder_versions(), "pyarrow": version("pyarrow")},
        **(maps.provenance if maps else {}),
        **outcome(report, setting, "images"),
        **({"images_in_several_splits_or_classes": named(twice)} if twice else {}),
    }


def _twice(records: Sequence[ImageRecord], digests: str) -> list[str]:
    """Names of images whose bytes an image of another split or class has too; none where shards of an earlier version
    do not say."""
    if len(digests) != DIGITS * len(records):
        return []
    numbers = np.frombuffer(bytes.fromhex(digests + short_digest(b"")[:DIGITS]), ">u8")
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    pairs = zip(records, first[group].tolist(), strict=False)
    return sorted(
        f"{record.name} (as {records[earlier].name})"
        for record, earlier in pairs
        if numbers[earlier] != numbers[-1] and _place(record) != _place(records[earlier])
    )


def _place(record: ImageRecord) -> tuple[str, int]:
    return record.split, record.label


def _items(source: ImageSource, limit: int | None, maps: MapSet | None) -> tuple[list[ImageItem], list[str]]:
    """(images to write, in the source's order; what is wrong with those that should have a map and have none)."""
    records = limited(source.records(), limit)
    if maps is None:
        return [ImageItem(record) for record in records], []
    found = [ImageItem(record, stored) for record, stored in zip(records, maps.find(records), strict=True)]
    unmapped = [maps.missing(item.record) for item in found if item.stored_map is None]
    return [item for item in found if item.stored_map is not None], unmapped


def _refuse_other_pictures(source: ImageSource, items: Sequence[ImageItem], maps: MapSet) -> None:
    """Before anything is written, where they all are others; of a single one it is said when it is its turn."""
    stored = [(item.record, item.stored_map) for item in _spread(items) if item.stored_map]
    if stored and not any(found.image_digest for _, found in stored):
        log.warning("%s does not say of which pictures its maps are: names alone are compared", maps.path)
    for record, found in stored:
        if found.image_digest not in ("", source.digest(record)):
            raise maps.other_images(source, record.split, record.name)


def _spread(items: Sequence[ImageItem]) -> list[ImageItem]:
    """Those whose keys hash lowest."""
    return sorted(items, key=lambda item: hashlib.sha256(item.record.key.encode()).digest())[:SAMPLE_IMAGES]


def _sample(source: ImageSource, items: Sequence[ImageItem]) -> list[np.ndarray]:
    """Images spread over the set. What is damaged is passed over; workers will name it. FormatError: all are."""
    sample, bad = [], []
    for item in _spread(items):
        try:
            sample.append(source.read(item.record))
        except ValueError as error:
            bad.append(f"{item.name}: {error}")
    if not sample:
        raise FormatError(f"{source.path}: not one of the images that were tried can be decoded, e.g. {bad[0]}")
    return sample


def _frame(source: ImageSource, asked: BuildOptions, sample: Sequence[np.ndarray]) -> Frame:
    if asked.size is not None:
        return Frame(asked.size, asked.size, asked.fit)
    sizes = Counter(image.shape[:2] for image in sample).most_common()
    if len(sizes) > 1:
        shown = ", ".join(f"{width}×{height}" for (height, width), _ in sizes[:SIZES_SHOWN])
        more = " …" if len(sizes) > SIZES_SHOWN else ""
        raise UsageError(
            f"the images of {source.path} are of different sizes ({shown}{more}); give --size, and --fit crop to keep "
            "their proportions"
        )
    return Frame(*sizes[0][0])


def to_sample(item: ImageItem, job: ImageJob) -> Transformed:
    """In a worker: the sample; or no sample and what is wrong, by the image's name. Never imports torch."""
    source = job.source.digest(item.record)
    try:
        if item.stored_map:
            item.stored_map.refuse_other(source)
        with doubts() as odd:
            pixels = job.source.read(item.record)
            say_if_empty(pixels)
        fitted = fit_image(pixels, job.frame)
        saliency = _map_members(item.stored_map, pixels.shape[:2], job.frame) if item.stored_map else ()
    except (ValueError, FormatError) as error:
        return Transformed.left_out(f"{item.name}: {error}", source)
    data, stats, psnr = encode_image(fitted, job.setting)
    record = item.record
    sample = ImageSample(record.key, data, saliency, record.label, record.meta)
    doubtful = tuple(f"{item.name}: {doubt}" for doubt in odd)
    return Transformed(sample, stats, psnr, odd=doubtful, source=source)


def _map_members(stored: StoredMap, size: tuple[int, int], frame: Frame) -> tuple[bytes, ...]:
    """Members as they are where nothing is resampled. FormatError: a map of another size than its image."""
    if (stored.height, stored.width) != size:
        raise FormatError(f"its map is {stored.width}×{stored.height}, the image {size[1]}×{size[0]}")
    if frame.keeps(*size):
        return stored.members()
    return encode_map(fit_map(stored.read(), frame), stored.storage)
