"""AugmentedLoader: sequences of augmented views of images, exactly repeatable, made on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from seqjepa.data.actions import AUGMENTATION_PARTS
from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.augment.scaling import Scaling, ScalingMode, augmentation_actions, constants_for
from seqjepa.data.draws import Purpose
from seqjepa.data.epochs import Epochs
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.order import Sampling
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError

if TYPE_CHECKING:
    from shards.reader import ImageIndex


@dataclass(frozen=True)
class Augmenting:
    """How images become sequences of views, and views actions.

    recipe   what is drawn: the last view of a sequence has the target pipeline, all others the observation pipeline
    action   one of actions.AUGMENTATION_PARTS: which parameters the actions are differences of
    size     side of a view in pixels
    scaling  constants of the z-scores; None: the released scaling over a sample's views (docs/fidelity.md #22)

    Raises ConfigError for an action that augmentations do not have, or a size that is no size.
    """

    recipe: Recipe
    action: str
    size: int
    scaling: Scaling | None

    def __post_init__(self) -> None:
        if self.action not in AUGMENTATION_PARTS:
            raise ConfigError(
                f"augmented views have no action {self.action!r}; there are: {', '.join(AUGMENTATION_PARTS)}"
            )
        if self.size < 4:
            raise ConfigError(f"augmented views of {self.size} pixels; allowed is 4 and more")

    @classmethod
    def of(
        cls, index: ImageIndex, recipe: Recipe, action: str, normalisation: ScalingMode = "zscore", size: int = 0
    ) -> Augmenting:
        """For the images of a split; size 0: as large as they are. ConfigError: then they have to be square."""
        if not size and index.height != index.width:
            raise ConfigError(
                f"split {index.name!r} holds images of {index.height}×{index.width} pixels and augmented views are "
                "square; shard them with --size, or say how large views should be"
            )
        if normalisation not in ("zscore", "author"):
            raise ConfigError(f"unknown normalisation {normalisation!r} of actions; there are: zscore, author")
        scaling = constants_for(recipe, index.height, index.width) if normalisation == "zscore" else None
        return cls(recipe, action, size or index.height, scaling)


class AugmentedLoader(Epochs):
    """Endless epochs of ViewSequences, of T augmented views of each image, drawn anew in every epoch.

    index          a split of an `image` set (or `saliency`: maps are not read)
    recipe         one of augment.recipes.RECIPES, or build_recipe()
    views          T, views of a sequence; the last is the target and has the target pipeline, for T = 2 too
    action         "crop", "jitter", "blur" or "augmentation" (all nine parameters)
    device         where images may live, and where views are made and the batches are
    normalisation  of the parameters before they are subtracted: "zscore" or "author" (augment/scaling.py)
    size           side of a view; 0: of the images, which have to be square then
    resident, workers, prefetch  as for ImageFeed
    batch_size, seed, rank, world_size, shuffle, drop_last  as for ViewLoader: the same order of the same samples

    A batch's views are uint8 [B, T, 3, size, size] strided as channels-last, params float32 [B, T, 9] (columns
    actions.AUGMENTATION_COLUMNS, in pixels, factors and turns); they live as long as they are needed.

    Raises ConfigError where the split cannot give such batches; while iterating DamageError (names shard and sample)
    and FailureError (a worker died).
    """

    def __init__(
        self,
        index: ImageIndex,
        recipe: Recipe,
        *,
        views: int,
        batch_size: int,
        seed: int,
        action: str = "augmentation",
        normalisation: ScalingMode = "zscore",
        size: int = 0,
        device: torch.device | str = "cpu",
        workers: int | None = None,
        prefetch: int = 2,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        drop_last: bool = False,
        resident: bool | None = None,
    ) -> None:
        self.sampling = Sampling(views, action, batch_size, seed, shuffle, drop_last, rank, world_size)
        self.index, self.augmenting = index, Augmenting.of(index, recipe, action, normalisation, size)
        self._feed = ImageFeed(
            index, self.sampling, device=device, maps=False, workers=workers, prefetch=prefetch, resident=resident
        )
        own = {"recipe": str(recipe), "size": self.augmenting.size, "normalisation": normalisation}
        identity = self.sampling.identity() | own | {"fingerprint": index.fingerprint()}
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
        return augmented(batch, self.augmenting, self.sampling.views, self.sampling.seed, epoch)


def augmented(
    batch: ImageBatch, how: Augmenting, views: int, seed: int, epoch: int, purpose: Purpose = Purpose.AUGMENT
) -> ViewSequence:
    """T = `views` augmented views of each image, on the images' device; `purpose` for draws besides training's."""
    height, width = batch.images.shape[2:]
    drawn = draw_parameters(
        how.recipe, batch.rows, views, height=height, width=width, seed=seed, epoch=epoch, purpose=purpose
    )
    params = drawn.vector()
    actions = augmentation_actions(params, how.action, how.scaling)
    params, actions = (values.to(batch.images.device, non_blocking=True) for values in (params, actions))
    return ViewSequence(augment(batch.images, drawn, how.size), actions, params, batch.labels, batch.keys)


def augmented_on(
    images: np.ndarray, rows: np.ndarray, recipe: Recipe, views: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What a run of that seed sees in its first epoch, for pictures: `rows` of a split, images uint8 [n, s, s, 3].

    Returns views uint8 [n, T, s, s, 3] and parameters float32 [n, T, 9]. ConfigError: images are not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise ConfigError(f"images of {height}×{width} pixels, and augmented views are square; shard them with --size")
    drawn = draw_parameters(recipe, rows, views, height=height, width=width, seed=seed, epoch=0)
    made = augment(torch.from_numpy(images).permute(0, 3, 1, 2), drawn, height)
    return made.permute(0, 1, 3, 4, 2).numpy(), drawn.vector().numpy()
