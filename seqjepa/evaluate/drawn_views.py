"""What is seen of whole images when they are evaluated: K draws of V views each, of patches or of augmentations.

Letters: S images of H × W pixels in a split, b of a chunk, V views of a draw, h the side of a view, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_COLUMNS
from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import Scaling, draw_parameters
from seqjepa.data.draws import Purpose, uniform
from seqjepa.data.fixations import POSITION_NAMES, Fixating, cut_patches, positions, sample_fixations
from seqjepa.data.views import Augmented


@dataclass(frozen=True)
class Draws:
    """How many: `count` draws (K) of `views` views (V), from numbers of (seed, draw, purpose, image)."""

    count: int
    views: int
    seed: int
    purpose: Purpose


class DrawnViews(Protocol):
    """One kind of views, and how many. A longer draw extends a shorter one."""

    @property
    def draws(self) -> Draws: ...

    @property
    def side(self) -> int:
        """Pixels a side of a view."""
        ...

    @property
    def param_names(self) -> tuple[str, ...]: ...

    @property
    def scaling(self) -> Scaling | None:
        """See FeatureBank."""
        ...

    @property
    def needs_maps(self) -> bool:
        """Whether saliency maps play a part."""
        ...

    @property
    def independent(self) -> bool:
        """See FeatureBank."""
        ...

    def see(self, rows: np.ndarray, images: Tensor, maps: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """One draw of images `rows` [b] of a split, uint8 [b, 3, H, W] with maps float32 [b, H, W], where they are:
        views [b, V, 3, h, h], uint8 or float in 0…255, and their parameters float32 [b, V, P]. ConfigError where the
        images are too small."""
        ...


@dataclass(frozen=True)
class Glances:
    """Patches at fixations; params are positions (x, y) in [0, 1). `mean` is what fill "mean" puts beyond the image."""

    how: Fixating
    draws: Draws
    mean: Sequence[float] = (0.5, 0.5, 0.5)
    param_names = POSITION_NAMES
    scaling = None
    independent = False  # inhibition of return ties the fixations of a draw to each other

    @property
    def side(self) -> int:
        return self.how.patch

    @property
    def needs_maps(self) -> bool:
        return self.how.fixations == "saliency"

    def see(self, rows: np.ndarray, images: Tensor, maps: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """As DrawnViews says."""
        d = self.draws
        numbers = uniform(d.seed, draw, d.purpose, rows, 2 * d.views).reshape(-1, d.views, 2)
        fixations = sample_fixations(maps, torch.from_numpy(numbers).to(maps.device), self.how)
        height, width = images.shape[2:]
        return cut_patches(images, fixations, self.how, self.mean), positions(fixations, (height, width), self.how)


@dataclass(frozen=True)
class Augmentations:
    """Augmented images; params are the nine recorded ones. A draw is what a training sequence is: V − 1 views of the
    observation pipeline, then one of the target pipeline."""

    how: Augmented
    draws: Draws
    param_names = AUGMENTATION_COLUMNS
    needs_maps = False
    independent = True

    @property
    def side(self) -> int:
        return self.how.size

    @property
    def scaling(self) -> Scaling | None:
        return self.how.scaling

    def see(self, rows: np.ndarray, images: Tensor, maps: Tensor, draw: int) -> tuple[Tensor, Tensor]:
        """As DrawnViews says; maps are not looked at."""
        d, (height, width) = self.draws, images.shape[2:]
        drawn = draw_parameters(
            self.how.recipe, rows, d.views, height=height, width=width, seed=d.seed, epoch=draw, purpose=d.purpose
        )
        return augment(images, drawn, self.how.size), drawn.vector()
