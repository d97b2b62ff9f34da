"""View sequences of a split's samples: stored views, patches at fixations, or augmented images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_COLUMNS, AUGMENTATION_PARTS, actions_between, columns
from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import Scaling, ScalingMode, augmentation_actions, constants_for, draw_parameters
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.decode_worker import ROW
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.data.fixations import POSITION_NAMES, Fixating, cut_patches, fixation_numbers, positions, sample_fixations
from seqjepa.data.images import ImageBatch, ImageFeed
from seqjepa.data.sampling import EpochOrder, Epochs, Sampling
from seqjepa.data.sequence import ViewSequence
from shards.errors import ConfigError

if TYPE_CHECKING:
    from shards.reader import ImageIndex, SplitIndex


# Batches are planned this many samples at a time: the fixed cost of some hundred numpy calls is paid once per block,
# and a trainer whose Python holds the GIL (each numpy call may wait 5 ms for it) delays planning rarely.
_BLOCK_SAMPLES = 32_768


@dataclass(frozen=True)
class BatchPlan:
    """One rank's piece of one batch, B samples of T views.

    samples  int64 [B]                 rows of the split's index
    views    int64 [B, T]              view slots of each sample, distinct: in random order, or a stored sequence
    table    ROW [B·T]                 where the bytes of each view are
    actions  float32 [B, T-1, A]       params float32 [B, T, P]       labels int64 [B]
    """

    samples: NDArray[np.int64]
    views: NDArray[np.int64]
    table: np.ndarray
    actions: NDArray[np.float32]
    params: NDArray[np.float32]
    labels: NDArray[np.int64]

    def part(self, start: int, stop: int) -> BatchPlan:
        """Samples start … stop of this plan, without copying."""
        T = self.views.shape[1]
        rows = self.table[start * T : stop * T]
        s = slice(start, stop)
        return BatchPlan(self.samples[s], self.views[s], rows, self.actions[s], self.params[s], self.labels[s])


def check_views(index: SplitIndex, views: int) -> None:
    """Raises ConfigError where stored sequences cannot give `views` views, or a sample (named) has fewer.

    Of baked augmentations, a shorter sequence would lack the target pipeline's view, which is the last.
    """
    if 0 < index.sequence < views:
        raise ConfigError(
            f"sequences of {views} views were asked for, but split {index.name!r} holds sequences of {index.sequence}; "
            "use fewer views, or bake with more"
        )
    if index.sequence > views and AUGMENTATION_COLUMNS[0] in index.param_names:
        raise ConfigError(
            f"sequences of {views} views were asked for, but split {index.name!r} holds augmented sequences of "
            f"{index.sequence}, whose last view is the target: use {index.sequence} views (data.context = "
            f"{index.sequence - 1}), or bake with --views {views}"
        )
    poorest = int(np.argmin(index.n_views))
    if index.n_views[poorest] < views:
        raise ConfigError(
            f"sequences of {views} views need as many per sample, but {index.keys[poorest]!r} in split {index.name!r} "
            f"has {index.n_views[poorest]}; use fewer views or other shards"
        )


def drawn_views(index: SplitIndex, samples: NDArray[np.int64], views: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Slots int64 [B, T] of samples int64 [B]: drawn for (seed, epoch, sample), or the epoch's stored sequence."""
    if index.sequence:
        run = epoch % (index.offsets.shape[1] // index.sequence)
        return np.tile(run * index.sequence + np.arange(views), (len(samples), 1))
    return choose_distinct(index.n_views[samples], draw_u32(seed, epoch, Purpose.VIEWS, samples, views))


def sequence_actions(
    params: NDArray[np.float32], names: Sequence[str], kind: str, scaling: Scaling | None
) -> NDArray[np.float32]:
    """float32 [B, T, P] → [B, T-1, A]; of baked augmentations by the same code, to the bit, as on the fly.

    scaling  of augmentation parameters, for actions of these; None: by their norm (author)
    """
    if kind not in AUGMENTATION_PARTS:
        return actions_between(params, names, kind)
    nine = torch.from_numpy(params[..., columns(names, AUGMENTATION_COLUMNS)])
    return augmentation_actions(nine, kind, scaling).numpy()


class Planner:
    """Plans batches of one split for one rank. Raises ConfigError where the split cannot give such batches.

    scaling  of augmentation parameters, for actions of these; None: by their norm (author)
    """

    def __init__(self, index: SplitIndex, sampling: Sampling, scaling: Scaling | None = None) -> None:
        self.index, self.sampling, self.scaling = index, sampling, scaling
        self.order = EpochOrder(index.name, len(index.keys), sampling)
        check_views(index, sampling.views)
        self._block_steps = max(1, _BLOCK_SAMPLES // self.order.local_batch)
        self._block = lru_cache(maxsize=2)(self._plan_block)
        self._plan(np.zeros(1, np.int64), 0)  # a missing parameter column shows now, not at the first batch

    def batch(self, epoch: int, step: int) -> BatchPlan:
        """This rank's piece of batch `step` of an epoch."""
        position = step % self._block_steps
        start = position * self.order.local_batch
        return self._block(epoch, step - position).part(start, start + self.order.size(step))

    def _plan_block(self, epoch: int, first: int) -> BatchPlan:
        last = min(first + self._block_steps, self.order.steps)
        return self._plan(self.order.rows(epoch, first, last), epoch)

    def _plan(self, samples: NDArray[np.int64], epoch: int) -> BatchPlan:
        index = self.index
        views = drawn_views(index, samples, self.sampling.views, self.sampling.seed, epoch)
        rows = samples[:, None]
        table = np.empty(views.shape, ROW)
        table["offset"], table["length"] = index.offsets[rows, views], index.lengths[rows, views]
        table["shard"] = index.shard[samples][:, None]
        params = index.params[rows, views].astype(np.float32, copy=False)
        labels = index.labels[samples].astype(np.int64)
        actions = sequence_actions(params, index.param_names, self.sampling.action, self.scaling)
        return BatchPlan(samples, views, table.reshape(-1), actions, params, labels)


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
