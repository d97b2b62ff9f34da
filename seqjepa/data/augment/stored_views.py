"""Stored views, augmented beside what their actions say: other colours, blur or crops, drawn anew in every epoch.

Actions and parameters stay those of the set: what is drawn here is what the encoder should not care about.
"""

from __future__ import annotations

from typing import Protocol

import torch

from seqjepa.data.actions import are_augmented
from seqjepa.data.augment.apply import augment
from seqjepa.data.augment.parameters import draw_parameters
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.sequence import Drawn
from shards.reading.split_index import SplitIndex
from shards.schema import ActionSpec, ViewSpec


class Source(Protocol):
    """Batches of a split, as stored.StoredSource has them."""

    steps: int
    resident: bool

    def batch(self, epoch: int, step: int) -> Drawn: ...
    def close(self) -> None: ...


def augment_problem(of: ViewSpec | SplitIndex, action: ActionSpec, recipe: Recipe) -> str:
    """What keeps stored views from being augmented, as the end of a sentence that names their set; "" for nothing."""
    if of.features:
        return "holds features, and data.augment is for pixels; set data.augment=none, or give the set that they are of"
    if are_augmented(of.param_names):
        return "holds views that are augmented already; set data.augment=none, or give the set of images"
    if of.height != of.width:
        return f"holds views of {of.height}×{of.width}, and augmented views are square; shard them with --size"
    if action.terms and max(recipe.observation.flip, recipe.target.flip):
        return (
            "holds views with actions, which are others between views that are flipped, as data.augment has it; set "
            "data.augment=colour (or crop), or data.action=none"
        )
    return ""


class AugmentedSource:
    """The batches of `source`, each view augmented on `device` by its own draw of (seed, epoch, sample, view).

    Views are uint8 [B, T, 3, s, s] of the stored size. compile: on a GPU, in a few kernels.
    """

    def __init__(self, source: Source, recipe: Recipe, seed: int, device: torch.device, compile: bool) -> None:
        self._source, self._recipe, self._seed = source, recipe, seed
        self._device, self._compile = device, compile
        self.steps, self.resident = source.steps, source.resident

    def batch(self, epoch: int, step: int) -> Drawn:
        drawn = self._source.batch(epoch, step)
        views = drawn.views.to(self._device, non_blocking=True)
        height, width = views.shape[3:]
        params = draw_parameters(
            self._recipe, drawn.rows, views.shape[1], height=height, width=width, seed=self._seed, epoch=epoch
        )
        made = augment(views.flatten(0, 1), params.as_samples(), height, self._compile)
        return drawn._replace(views=made.view_as(views))

    def close(self) -> None:
        self._source.close()
