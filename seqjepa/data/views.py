"""Views: how the samples of a split become sequences of views and actions. One interface for all kinds:

StoredViews  some of a sample's stored views (stored.py)            sets of kind views
Patches      patches at fixations, cut on the device (paper §A.1)   saliency; image where fixations are uniform
Augmented    augmented images, made on the device                   image, saliency (maps are not read)

The trainer, baking, evaluation and previews all draw through it. All kinds have
kind         what results.json calls them
action       what takes a view to the next: a preset's name in actions.PRESETS, or terms
scaling      of the parameters of augmentations before they are subtracted; None: by their norm, or there are none
open         the batches of a split, read and drawn; ConfigError where the split cannot give them
and those that are made of whole images (ImageViews)
side         s, pixels a side of a view
params       the P parameters of a view
needs_maps   whether saliency maps play a part
independent  whether the views of a sequence are drawn independently of each other
make         the sequences of one draw, on the images' device. View t depends on (draw, row, t) and the image alone;
             more views extend fewer. ConfigError where the images are too small
settings     what determines the views, field by field, for the protocol of an evaluation: JSON values without nulls
record       the same for a set that is baked, with what training on it needs to know
Letters: B samples, T views of a sequence, P parameters of a view, A numbers of an action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import (
    AUGMENTATION_COLUMNS,
    AUGMENTATION_FIELDS,
    POSITION_COLUMNS,
    PRESETS,
    action_name,
    actions_between,
    as_spec,
    is_augmentation,
)
from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import (
    Scaling,
    ScalingMode,
    check_scaling_mode,
    constants_for,
    draw_parameters,
    scaled,
)
from seqjepa.data.augment.recipes import RECIPES, Recipe
from seqjepa.data.decode_ahead import Reading
from seqjepa.data.draws import Draw, Purpose
from seqjepa.data.fixations import Fixating, cut_patches, fixation_numbers, fused_patches, positions, sample_fixations
from seqjepa.data.images import ImageBatch, ImageReader
from seqjepa.data.sampling import Sampling
from seqjepa.data.sequence import Drawn, KindOfViews
from seqjepa.data.stored import StoredViews
from seqjepa.devices import to_device
from shards.errors import ConfigError
from shards.reading.split_index import ImageIndex
from shards.schema import ActionSpec, ParamField


@dataclass(frozen=True)
class Patches:
    """Patches at fixations; parameters are positions (x, y) in [0, 1), actions their differences.

    how      how fixations are drawn and patches are cut
    mean     per channel, in [0, 1]: what is outside the image where how.fill is "mean"
    compile  on a GPU, in a few kernels (fused_patches)

    Patches are uint8; float32 for fidelity "author" over the mean. Raises ConfigError for another action than position
    or none.
    """

    how: Fixating
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    action: str | ActionSpec = "position"
    compile: bool = False
    kind: ClassVar[KindOfViews] = "patches"
    params = tuple(ParamField(name, "1") for name in POSITION_COLUMNS)
    scaling = None
    independent = False  # inhibition of return ties the fixations of a sequence to each other

    def __post_init__(self) -> None:
        if (name := action_name(self.action)) not in ("position", "none"):
            raise ConfigError(f"patches at fixations have the actions position, none, not {name!r}; use one of these")

    @property
    def side(self) -> int:
        return self.how.patch

    @property
    def needs_maps(self) -> bool:
        return self.how.fixations == "saliency"

    def check(self, index: ImageIndex) -> None:
        """ConfigError unless patches can be chosen and cut: maps are there, patches fit the images."""
        if self.needs_maps and index.saliency == "none":
            raise ConfigError(
                f"split {index.name!r} holds images without saliency maps; shard them with --maps, or use uniform "
                "fixations"
            )
        self.how.check_size(index.height, index.width)

    def open(self, index: ImageIndex, sampling: Sampling, reading: Reading) -> MadeOfImages:
        self.check(index)
        return MadeOfImages(self, index, sampling, reading)

    def make(self, images: ImageBatch, draw: Draw) -> Drawn:
        maps = images.images[:, 0] if images.maps is None else images.maps  # if uniform, only their size counts
        purpose = draw.numbers(Purpose.FIXATIONS)
        numbers = fixation_numbers(draw.seed, draw.epoch, images.rows, draw.views, purpose)
        fixations, patches = self._looks(images.images, maps, to_device(numbers, maps.device))
        height, width = images.images.shape[2:]
        places = positions(fixations, (height, width), self.how)
        return Drawn(images.rows, patches, places.diff(dim=1)[..., : as_spec(self.action).size], places)

    def _looks(self, images: Tensor, maps: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        if self.compile and images.is_cuda:
            looks = fused_patches(images, maps, numbers, self.how, self.mean)
            if looks is not None:
                return looks
        fixations = sample_fixations(maps, numbers, self.how)
        return fixations, cut_patches(images, fixations, self.how, self.mean)

    def settings(self) -> dict[str, Any]:
        return asdict(self.how)

    def record(self) -> dict[str, Any]:
        return {"fixating": self.settings()}


@dataclass(frozen=True)
class Augmented:
    """Augmented images; parameters are the nine recorded ones, in pixels, factors and turns.

    recipe   what is drawn: the last view of a sequence has the target pipeline, also of two, all others the observation
             pipeline
    action   which of the parameters the actions are differences of: crop, jitter, blur, augmentation (all) or none
    scaling  constants of the z-scores; None: the released scaling over a sample's views (docs/fidelity.md #22)
    compile  on a GPU, in a few kernels (fused_views)

    Raises ConfigError for an action that augmentations do not have, or a size that is no size.
    """

    recipe: Recipe
    action: str | ActionSpec
    side: int
    scaling: Scaling | None
    compile: bool = False
    kind: ClassVar[KindOfViews] = "augmentations"
    params = AUGMENTATION_FIELDS
    needs_maps = False
    independent = True

    def __post_init__(self) -> None:
        if as_spec(self.action).terms and not is_augmentation(self.action):
            allowed = ", ".join(name for name in PRESETS if is_augmentation(name))
            raise ConfigError(f"augmented views have no action {action_name(self.action)!r}; there are: {allowed}")
        if self.side < 4:
            raise ConfigError(f"augmented views of {self.side} pixels; allowed is 4 and more")

    @classmethod
    def of(
        cls,
        index: ImageIndex,
        recipe: Recipe,
        action: str | ActionSpec = "augmentation",
        normalisation: ScalingMode = "zscore",
        size: int = 0,
    ) -> Augmented:
        """For the images of a split; size 0: as large as they are. ConfigError: then they have to be square."""
        if not size and index.height != index.width:
            raise ConfigError(
                f"split {index.name!r} holds images of {index.height}×{index.width} pixels and augmented views are "
                "square; shard them with --size, or say how large views should be"
            )
        check_scaling_mode(normalisation)
        scaling = constants_for(recipe, index.height, index.width) if normalisation == "zscore" else None
        return cls(recipe, action, size or index.height, scaling)

    def open(self, index: ImageIndex, sampling: Sampling, reading: Reading) -> MadeOfImages:
        return MadeOfImages(self, index, sampling, reading)

    def make(self, images: ImageBatch, draw: Draw) -> Drawn:
        (height, width), device = images.images.shape[2:], images.images.device
        drawn = draw_parameters(
            self.recipe,
            images.rows,
            draw.views,
            height=height,
            width=width,
            seed=draw.seed,
            epoch=draw.epoch,
            purpose=draw.numbers(Purpose.AUGMENT),
        )
        params = drawn.vector()
        actions = actions_between(params.numpy(), AUGMENTATION_COLUMNS, scaled(self.action, self.scaling))
        params, actions = (to_device(values, device) for values in (params, torch.from_numpy(actions)))
        return Drawn(images.rows, augment(images.images, drawn, self.side, self.compile), actions, params)

    def settings(self) -> dict[str, Any]:
        """What is not done is "none"."""

        def plain(value: Any) -> Any:
            return "none" if value is None else list(value) if isinstance(value, tuple) else value

        pipelines = {
            which: {name: plain(value) for name, value in fields.items()}
            for which, fields in asdict(self.recipe).items()
        }
        return {**pipelines, "size": self.side, "conditioned_on": action_name(self.action)}

    def record(self) -> dict[str, Any]:
        """The views are z-scored: the released scaling has no constants to record."""
        assert self.scaling is not None, "of() gives z-scores their constants"
        name = next((name for name, known in RECIPES.items() if known == self.recipe), "custom")
        pipelines = {
            which: {field: value for field, value in values.items() if value is not None}
            for which, values in asdict(self.recipe).items()
        }
        return {"augmenting": {"recipe": name, **pipelines, "scaling": self.scaling.as_json()}}


ImageViews = Patches | Augmented
Views = StoredViews | ImageViews


def augmented_on(
    images: np.ndarray, rows: np.ndarray, recipe: Recipe, count: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """What a run of that seed sees in its first epoch, for pictures: `rows` of a split, images uint8 [n, s, s, 3].

    Returns T = `count` views of each uint8 [n, T, s, s, 3] and parameters float32 [n, T, 9]. ConfigError: images are
    not square.
    """
    height, width = images.shape[1:3]
    if height != width:
        raise ConfigError(f"images of {height}×{width} pixels, and augmented views are square; shard them with --size")
    views = Augmented(recipe, "augmentation", height, scaling=None)
    drawn = views.make(ImageBatch(rows, torch.from_numpy(images).permute(0, 3, 1, 2)), Draw(count, seed, 0))
    return drawn.views.permute(0, 1, 3, 4, 2).numpy(), drawn.params.numpy()


class MadeOfImages:
    """Batches of views of images that are resident on the device or read ahead; they live as long as needed.

    What a batch holds depends on (epoch, step) alone: views uint8 or float in 0 … 255 [B, T, 3, s, s], strided as
    channels-last. One after the other is fast. Raises DamageError (names shard and sample) and FailureError (a worker
    died).
    """

    def __init__(self, views: ImageViews, index: ImageIndex, sampling: Sampling, reading: Reading) -> None:
        self._views, self._sampling = views, sampling
        self._reader = ImageReader(index, sampling, reading, maps=views.needs_maps)
        self.steps, self.resident = self._reader.order.steps, self._reader.resident

    def batch(self, epoch: int, step: int) -> Drawn:
        draw = Draw(self._sampling.views, self._sampling.seed, epoch)
        return self._views.make(self._reader.batch(epoch, step), draw)

    def close(self) -> None:
        self._reader.close()
