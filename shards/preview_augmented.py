"""Augmented views on a sheet: a row a sample, first the image with the crops of its views, then these views.

Crops are numbered in the order of the views; what makes views of images is given, as nothing here knows how.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shards.errors import ConfigError
from shards.image_index import ImageIndex
from shards.marks import draw_boxes
from shards.preview_views import Row, Rows, class_of
from shards.schema import DatasetInfo, ParamField
from shards.sheet import Sheet

_CROP = ("crop_top", "crop_left", "crop_height", "crop_width")


@dataclass(frozen=True)
class Augmentation:
    """What makes views: images uint8 [n, H, W, 3] and their rows in the split int64 [n] → views, parameters.

    make    gives views uint8 [n, T, h, w, 3] and float32 [n, T, P], the columns being `params`
    params  of which the crop's four, if all are there, are drawn on the image
    """

    make: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    params: tuple[ParamField, ...]


def draw_augmented(info: DatasetInfo, index: ImageIndex, chosen: np.ndarray, augmentation: Augmentation) -> Sheet:
    """A row for each of the samples `chosen`. ConfigError: the set holds maps without images."""
    if index.encoding == "none":
        raise ConfigError(f"{info.name} holds maps without images; augmentations are shown of images")
    images = np.stack([index.read_image(sample) for sample in chosen.tolist()])
    views, params = augmentation.make(images, chosen)
    about = f"{len(index):,} samples, {index.height} x {index.width} px; the last view is the target"
    size = (views.shape[3], views.shape[2])
    page = Rows(f"{info.name} · {index.name}", about, size, augmentation.params, len(chosen))
    page.open(1 + views.shape[1], apart=0)
    for number, sample in enumerate(chosen.tolist()):
        image = draw_boxes(images[number], _boxes(params[number], augmentation.params), page.tile)
        pictures = [(image, "image and crops"), *zip(views[number], params[number], strict=True)]
        label = class_of(info, int(index.labels[sample]))
        page.draw(number, Row((label, index.keys[sample], f"{len(views[number])} views"), pictures))
    return page.sheet


def _boxes(params: np.ndarray, fields: tuple[ParamField, ...]) -> np.ndarray:
    """float32 [T, P] → [T, 4] top, left, height, width; none if there are no crops."""
    names = [field.name for field in fields]
    if not set(_CROP) <= set(names):
        return np.empty((0, 4))
    return params[:, [names.index(name) for name in _CROP]]
