"""What has to be known before the first image is written: which there are, their maps, their size, the JPEG setting."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.encode import JpegSetting, choose_setting
from pipelines.images.fit import Frame, fit_image
from pipelines.images.maps import MapSet
from pipelines.images.request import Request
from pipelines.images.source import ImageSource, limited
from pipelines.images.to_sample import ImageItem
from shards.errors import FormatError, UsageError

log = logging.getLogger(__name__)

SAMPLE_IMAGES = 256
SIZES_SHOWN = 4


@dataclass(frozen=True)
class Survey:
    """`items` in the source's order; `unmapped` names the images that should have a map and have none."""

    items: list[ImageItem]
    unmapped: list[str]
    frame: Frame
    setting: JpegSetting | None


def survey(request: Request, maps: MapSet | None) -> Survey:
    """Raises UsageError or FormatError: nothing to write, images of several sizes without --size."""
    items, unmapped = _items(request, maps)
    if not items:
        why = f", and {unmapped[0]}" if unmapped else ""
        raise UsageError(f"{request.source.path} has no image to write{why}")
    if maps is not None:
        _refuse_other_pictures(request.source, items, maps)
    sample = _sample(request.source, items)
    frame = _frame(request, sample)
    return Survey(items, unmapped, frame, _setting(request, sample, frame))


def _items(request: Request, maps: MapSet | None) -> tuple[list[ImageItem], list[str]]:
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


def _frame(request: Request, sample: Sequence[np.ndarray]) -> Frame:
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


def _setting(request: Request, sample: Sequence[np.ndarray], frame: Frame) -> JpegSetting | None:
    if request.encoding == "raw":
        return None
    if request.jpeg_quality != "auto":
        return JpegSetting.parse(request.jpeg_quality)
    return choose_setting([fit_image(image, frame) for image in sample])
