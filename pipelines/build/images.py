"""STL-10, ImageNet or any folder of images → `image` shards; with the maps of the same source → `saliency` shards.

One image at a time, in a worker: read, check, fit together with its map, encode. Never imports torch.

What has to be known before the first image is written: which there are, their maps, their size, the JPEG setting.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.archives import warn_of
from pipelines.build.encode import Fit, Frame, JpegSetting, choose_setting, encoder_versions, fit_image, fit_map
from pipelines.build.maps import MapSet, StoredMap
from pipelines.build.options import ImageRequest, look_first
from pipelines.build.stage import BadItems, BuildReport, build_shards, plan_shards, taken_back_if_empty
from pipelines.build.transform import Transformed, encode_image
from pipelines.sources.decode import doubts
from pipelines.sources.source import ImageRecord, ImageSource, images_watch, limited
from shards.errors import FormatError, UsageError
from shards.saliency_map import encode_map
from shards.sample import ImageSample
from shards.schema import DatasetInfo, Encoding, ImageSpec
from shards.stats import PixelStats
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
    request = ImageRequest(source, maps, size, fit, encoding, jpeg_quality, samples_per_shard, limit)
    mapped = MapSet(maps) if maps else None
    look_first(out, request.to_json(), overwrite)
    if mapped:
        mapped.refuse_other_images(source)
    found, bad = survey_images(request, mapped), BadItems(max_bad)
    bad.add(found.unmapped)
    with taken_back_if_empty(out), SetBuilder(out, overwrite=overwrite, **_identity(request, found, mapped)) as builder:
        if builder.info is None:
            report = _build(builder, request, found, bad, workers)
            builder.finish(_provenance(request, found, mapped, report))
        assert builder.info is not None
        warn_of(source.others, source.path)
        return builder.info


def _identity(request: ImageRequest, found: ImageSurvey, maps: MapSet | None) -> dict[str, Any]:
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


def _build(
    builder: SetBuilder, request: ImageRequest, found: ImageSurvey, bad: BadItems, workers: int | None
) -> BuildReport:
    plan = plan_shards([item.record.split for item in found.items], request.samples_per_shard)
    work = partial(to_sample, job=ImageJob(request.source, found.frame, found.setting))

    def read(positions: Sequence[int]) -> Iterator[ImageItem]:
        return (found.items[position] for position in positions)

    watch = images_watch(request.source, [item.record for item in found.items])
    return build_shards(builder, plan, read, work, images=len(found.items), bad=bad, watch=watch, workers=workers)


def _provenance(request: ImageRequest, found: ImageSurvey, maps: MapSet | None, report: BuildReport) -> dict[str, Any]:
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


@dataclass(frozen=True)
class ImageItem:
    """An image and where its map lies, if maps are wanted."""

    record: ImageRecord
    stored_map: StoredMap | None = None
    images: int = 1

    @property
    def name(self) -> str:
        return self.record.name


@dataclass(frozen=True)
class ImageJob:
    """What becomes of every image. `setting` None keeps raw pixels."""

    source: ImageSource
    frame: Frame
    setting: JpegSetting | None


def to_sample(item: ImageItem, job: ImageJob) -> Transformed:
    """The sample; or no sample and what is wrong, by the image's name."""
    source = job.source.digest(item.record)
    try:
        if item.stored_map:
            item.stored_map.refuse_other(source)
        with doubts() as odd:
            pixels = job.source.read(item.record)
        fitted = fit_image(pixels, job.frame)
        saliency = _map_members(item.stored_map, pixels.shape[:2], job.frame) if item.stored_map else ()
    except (ValueError, FormatError) as error:
        return Transformed(None, PixelStats(), bad=(f"{item.name}: {error}",), images=0, source=source)
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


SAMPLE_IMAGES = 256
SIZES_SHOWN = 4


@dataclass(frozen=True)
class ImageSurvey:
    """`items` in the source's order; `unmapped` names the images that should have a map and have none."""

    items: list[ImageItem]
    unmapped: list[str]
    frame: Frame
    setting: JpegSetting | None


def survey_images(request: ImageRequest, maps: MapSet | None) -> ImageSurvey:
    """Raises UsageError or FormatError: nothing to write, images of several sizes without --size."""
    items, unmapped = _items(request, maps)
    if not items:
        why = f", and {unmapped[0]}" if unmapped else ""
        raise UsageError(f"{request.source.path} has no image to write{why}")
    if maps is not None:
        _refuse_other_pictures(request.source, items, maps)
    sample = _sample(request.source, items)
    frame = _frame(request, sample)
    return ImageSurvey(items, unmapped, frame, _setting(request, sample, frame))


def _items(request: ImageRequest, maps: MapSet | None) -> tuple[list[ImageItem], list[str]]:
    records = limited(request.source.records(), request.limit)
    if maps is None:
        return [ImageItem(record) for record in records], []
    found = maps.find(records)
    unmapped = [
        f"{record.name} has no map in {maps.path} ({record.split}/{record.key})"
        for record, stored in zip(records, found, strict=True)
        if stored is None
    ]
    items = [ImageItem(record, stored) for record, stored in zip(records, found, strict=True) if stored is not None]
    return items, unmapped


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
            bad.append(f"{item.record.name}: {error}")
    if not sample:
        raise FormatError(f"{source.path}: not one of the images that were tried can be decoded, e.g. {bad[0]}")
    return sample


def _frame(request: ImageRequest, sample: Sequence[np.ndarray]) -> Frame:
    if request.size is not None:
        return Frame(request.size, request.size, request.fit)
    sizes = Counter(image.shape[:2] for image in sample).most_common()
    if len(sizes) > 1:
        shown = ", ".join(f"{width}×{height}" for (height, width), _ in sizes[:SIZES_SHOWN])
        more = " …" if len(sizes) > SIZES_SHOWN else ""
        raise UsageError(
            f"the images of {request.source.path} are of different sizes ({shown}{more}); give --size, and --fit crop "
            "to keep their proportions"
        )
    return Frame(*sizes[0][0])


def _setting(request: ImageRequest, sample: Sequence[np.ndarray], frame: Frame) -> JpegSetting | None:
    if request.encoding == "raw":
        return None
    if request.jpeg_quality != "auto":
        return JpegSetting.parse(request.jpeg_quality)
    return choose_setting([fit_image(image, frame) for image in sample])
