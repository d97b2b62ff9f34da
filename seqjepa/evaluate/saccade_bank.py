"""The bank of a split of images with saliency maps: K sequences of V fixations of every image, and the image itself.

Letters: S images of H × W pixels, K draws, V fixations of a draw, p the side of a patch, D width of z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.draws import Purpose, uniform
from seqjepa.data.fixations import Fixating, sample_fixations
from seqjepa.data.patches import POSITION_NAMES, cut_patches, positions
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.encode import PixelStats, embed, room, views_per_pass
from seqjepa.evaluate.image_chunks import image_chunks
from seqjepa.methods.base import Method
from shards.reader import ImageIndex

FEWEST_IMAGES, MOST_IMAGES = 64, 1024  # at once: sampling fixations costs least in batches


@dataclass(frozen=True)
class Glances:
    """Which fixations: `draws` sequences of `views` each, drawn as `how` says from numbers of (seed, draw, purpose)."""

    how: Fixating
    draws: int
    views: int
    seed: int
    purpose: Purpose

    def of(self, rows: np.ndarray, maps: Tensor, draw: int) -> Tensor:
        """Fixations int64 [b, V, 2], (row, col), of images `rows` [b] with maps float32 [b, H, W]."""
        numbers = uniform(self.seed, draw, self.purpose, rows, 2 * self.views).reshape(-1, self.views, 2)
        return sample_fixations(maps, torch.from_numpy(numbers).to(maps.device), self.how)


def encode_glances(
    method: Method,
    index: ImageIndex,
    glances: Glances,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int = 2,
    progress: bool = False,
) -> FeatureBank:
    """Samples and cuts all patches on the device and runs them, and the whole images, through `method.embed` once.

    The bank's slots are K runs of V patches; params are positions (x, y) in [0, 1). Raises ConfigError where patches
    are larger than the images.
    """
    glances.how.check_size(index.height, index.width)
    store: _Store | None = None
    chunk = _images_at_once(index, glances, device)
    maps_needed = glances.how.fixations == "saliency"
    bar = tqdm(
        total=len(index), desc=f"encode {index.name}", unit="image", disable=None if progress else True, leave=False
    )
    with bar:
        for rows, pixels, saliency in image_chunks(index, chunk, threads, maps=maps_needed):
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
            whole = embed(method, images, pixel_stats)
            store = store or _Store(len(index), glances, whole.shape[-1], device)
            store.put_images(rows, whole)
            maps = torch.from_numpy(saliency).to(device)
            for draw in range(glances.draws):
                fixations = glances.of(rows, maps, draw)
                patches = cut_patches(images, fixations, glances.how, pixel_stats[0]).flatten(0, 1)
                where = positions(fixations, (index.height, index.width), glances.how)
                store.put_glances(rows, draw, embed(method, patches, pixel_stats), where)
            bar.update(len(rows))
    assert store is not None, "a split has at least one image"
    return store.bank(index)


def _images_at_once(index: ImageIndex, glances: Glances, device: torch.device) -> int:
    """As many as give the encoder at least one full pass of patches."""
    patches = views_per_pass(device, glances.how.patch, glances.how.patch)
    return min(MOST_IMAGES, max(FEWEST_IMAGES, patches // glances.views))


class _Store:
    """Where features and positions are put as they come."""

    def __init__(self, images: int, glances: Glances, width: int, device: torch.device) -> None:
        self.views = glances.views
        self.z = room((images, glances.draws * glances.views, width), device)
        self.z_image = room((images, width), device).to(self.z.device)
        self.where = np.zeros((images, glances.draws * glances.views, 2), np.float32)

    def put_images(self, rows: np.ndarray, z: Tensor) -> None:
        self.z_image[rows[0] : rows[-1] + 1] = z.to(self.z_image)

    def put_glances(self, rows: np.ndarray, draw: int, z: Tensor, where: Tensor) -> None:
        """z [b·V, D] and positions [b, V, 2] of one draw of the consecutive images `rows`."""
        images = slice(rows[0], rows[-1] + 1)
        slots = slice(draw * self.views, (draw + 1) * self.views)
        self.z[images, slots] = z.to(self.z).unflatten(0, (-1, self.views))
        self.where[images, slots] = where.cpu().numpy()

    def bank(self, index: ImageIndex) -> FeatureBank:
        labels = torch.from_numpy(np.asarray(index.labels, np.int64)).to(self.z.device)
        n_views = np.full(len(index), self.z.shape[1])
        return FeatureBank(
            self.z, n_views, self.where, POSITION_NAMES, labels, run_length=self.views, z_image=self.z_image
        )
