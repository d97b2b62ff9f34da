"""One image at a time, in a worker: read, check, fit together with its map, encode. Never imports torch."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.encode import JpegSetting
from pipelines.images.fit import Frame, fit_image, fit_map
from pipelines.images.maps import StoredMap
from pipelines.images.source import ImageRecord, ImageSource
from pipelines.jpeg import doubts
from pipelines.transform import Transformed, encode_image
from shards.errors import FormatError
from shards.saliency_map import encode_map
from shards.sample import ImageSample
from shards.stats import PixelStats


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
