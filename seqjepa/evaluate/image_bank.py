"""The bank of a split of images: K draws of V views of every image through the encoder once, and the image itself.

Letters: S images of H × W pixels, K draws, V views of a draw, P parameters, D width of z.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.drawn_views import DrawnViews
from seqjepa.evaluate.encode import Embedding, PixelStats, embed, room, views_per_pass
from seqjepa.evaluate.image_chunks import image_chunks
from shards.reader import ImageIndex

FEWEST_IMAGES, MOST_IMAGES = 64, 1024  # at once: sampling fixations costs least in batches


def encode_images(
    method: Embedding,
    index: ImageIndex,
    drawn: DrawnViews,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int = 2,
    progress: bool = False,
) -> FeatureBank:
    """Makes all views on the device and runs them, and the whole images as they are, through `method.embed` once.

    The bank's slots are K runs of V views. Raises ConfigError where views cannot be made of the images.
    """
    store: _Store | None = None
    chunk = _images_at_once(drawn, device)
    bar = tqdm(
        total=len(index), desc=f"encode {index.name}", unit="image", disable=None if progress else True, leave=False
    )
    with bar:
        for rows, pixels, saliency in image_chunks(index, chunk, threads, maps=drawn.needs_maps):
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
            maps = torch.from_numpy(saliency).to(device)
            whole = embed(method, images, pixel_stats)
            store = store or _Store(len(index), drawn, whole.shape[-1], device)
            store.put_images(rows, whole)
            for draw in range(drawn.draws.count):
                views, params = drawn.see(rows, images, maps, draw)
                store.put_views(rows, draw, embed(method, views.flatten(0, 1), pixel_stats), params)
            bar.update(len(rows))
    assert store is not None, "a split has at least one image"
    return store.bank(index)


def _images_at_once(drawn: DrawnViews, device: torch.device) -> int:
    """As many as give the encoder at least one full pass of views."""
    views = views_per_pass(device, drawn.side, drawn.side)
    return min(MOST_IMAGES, max(FEWEST_IMAGES, views // drawn.draws.views))


class _Store:
    """Where features and parameters are put as they come."""

    def __init__(self, images: int, drawn: DrawnViews, width: int, device: torch.device) -> None:
        self.drawn, self.views = drawn, drawn.draws.views
        slots = drawn.draws.count * self.views
        self.z = room((images, slots, width), device)
        self.z_image = room((images, width), device).to(self.z.device)
        self.params = np.zeros((images, slots, len(drawn.param_names)), np.float32)

    def put_images(self, rows: np.ndarray, z: Tensor) -> None:
        self.z_image[rows[0] : rows[-1] + 1] = z.to(self.z_image)

    def put_views(self, rows: np.ndarray, draw: int, z: Tensor, params: Tensor) -> None:
        """z [b·V, D] and params [b, V, P] of one draw of the consecutive images `rows`."""
        images = slice(rows[0], rows[-1] + 1)
        slots = slice(draw * self.views, (draw + 1) * self.views)
        self.z[images, slots] = z.to(self.z).unflatten(0, (-1, self.views))
        self.params[images, slots] = params.cpu().numpy()

    def bank(self, index: ImageIndex) -> FeatureBank:
        return FeatureBank(
            self.z,
            np.full(len(index), self.z.shape[1]),
            self.params,
            self.drawn.param_names,
            torch.from_numpy(np.asarray(index.labels, np.int64)).to(self.z.device),
            run_length=self.views,
            independent=self.drawn.independent,
            z_image=self.z_image,
            scaling=self.drawn.scaling,
        )
