"""SaccadeLoader: sequences of patches at fixations, exactly repeatable, made on the device (paper §A.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import actions_between
from seqjepa.data.epochs import Epochs
from seqjepa.data.fixations import Fixating, fixation_numbers, sample_fixations
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.order import Sampling
from seqjepa.data.patches import POSITION_NAMES, cut_patches, positions
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError

if TYPE_CHECKING:
    from shards.reader import ImageIndex


class SaccadeLoader(Epochs):
    """Endless epochs of ViewSequences, of T patches each, fixated anew in every epoch. ViewLoader's interface.

    index       a split of a `saliency` set; of an `image` set where fixations are uniform
    fixating    how patches are chosen and cut
    views       T, patches of a sequence; the last is the target
    device      where images may live, and where patches are cut and the batches are
    mean        per channel, in [0, 1]: what is outside the image where fixating.fill is "mean"
    resident, workers, prefetch  as for ImageFeed
    batch_size, seed, rank, world_size, shuffle, drop_last  as for ViewLoader: the same order of the same samples

    A batch's views are uint8 [B, T, 3, p, p] strided as channels-last (float32 in 0 … 255 for fidelity "author" over
    the mean), params are positions (x, y), actions their differences; they live as long as they are needed.

    Raises ConfigError where the split cannot give such batches; while iterating DamageError (names shard and sample)
    and FailureError (a worker died).
    """

    def __init__(
        self,
        index: ImageIndex,
        fixating: Fixating,
        *,
        views: int,
        batch_size: int,
        seed: int,
        action: str = "position",
        device: torch.device | str = "cpu",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        workers: int | None = None,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        resident: bool | None = None,
    ) -> None:
        self.sampling = Sampling(views, action, batch_size, seed, shuffle, drop_last, rank, world_size)
        self.index, self.fixating, self.mean = index, fixating, tuple(mean)
        check_fixating(index, fixating)
        actions_between(np.zeros((1, 2, 2)), POSITION_NAMES, action)  # an action that patches do not have shows now
        self._feed = ImageFeed(
            index,
            self.sampling,
            device=device,
            maps=fixating.fixations == "saliency",
            workers=workers,
            prefetch=prefetch,
            resident=resident,
        )
        identity = self.sampling.identity() | vars(fixating) | {"fingerprint": index.fingerprint()}
        super().__init__(self._feed.order.steps, identity)

    @property
    def resident(self) -> bool:
        """Whether the split lives on the device."""
        return self._feed.resident

    def close(self) -> None:
        """End the worker processes and let go of the images. Asking for another batch starts anew."""
        self._feed.close()

    def _batch(self, epoch: int, step: int) -> ViewSequence:
        batch = self._feed.batch(epoch, step)
        views, params = look(batch, self.fixating, self.sampling.views, self.sampling.seed, epoch, self.mean)
        return ViewSequence(views, params.diff(dim=1), params, batch.labels, batch.keys)


def check_fixating(index: ImageIndex, fixating: Fixating) -> None:
    """ConfigError unless patches can be chosen and cut as `fixating` says: maps are there, patches fit the images."""
    if fixating.fixations == "saliency" and index.saliency == "none":
        raise ConfigError(
            f"split {index.name!r} holds images without saliency maps; shard them with --maps, or use uniform fixations"
        )
    fixating.check_size(index.height, index.width)


def look(
    batch: ImageBatch, fixating: Fixating, views: int, seed: int, epoch: int, mean: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """The T = `views` patches of each image in one epoch, as cut_patches, and their positions float32 [B, T, 2]."""
    maps = batch.images[:, 0] if batch.maps is None else batch.maps  # for uniform fixations only their size counts
    numbers = fixation_numbers(seed, epoch, batch.rows, views).to(maps.device, non_blocking=True)
    fixations = sample_fixations(maps, numbers, fixating)
    size = (batch.images.shape[2], batch.images.shape[3])
    return cut_patches(batch.images, fixations, fixating, mean), positions(fixations, size, fixating)
