"""Small pictures of validation views for figures."""

from __future__ import annotations

import cv2
import numpy as np

from shards.reader import ShardSet, SplitIndex
from shards.schema import ViewSpec

MOST_PIXELS = 96


def pictures_of(stored: ShardSet, split: str, samples: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Stored views by sample and slot, int64 [q, k] each, or images by sample: uint8 [q, k, h, w, 3] RGB, at most 96
    pixels a side. DamageError: one does not decode."""
    of_views = isinstance(stored.info.spec, ViewSpec)
    index = stored.split(split) if of_views else stored.images(split)
    shrink = min(1.0, MOST_PIXELS / max(index.height, index.width))
    size = round(index.width * shrink), round(index.height * shrink)
    pictures = np.empty((*samples.shape, size[1], size[0], 3), np.uint8)
    for place in np.ndindex(samples.shape):
        sample, slot = int(samples[place]), int(slots[place])
        pixels = index.read_view(sample, slot) if isinstance(index, SplitIndex) else index.read_image(sample)
        pictures[place] = pixels if shrink == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return pictures
