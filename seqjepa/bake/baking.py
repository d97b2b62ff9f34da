"""Baking: how many sequences of each image, of what, from which seed, stored how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from seqjepa.bake.ways import Way
from seqjepa.data.augment.recipes import Recipe
from seqjepa.data.fixations import Fixating
from seqjepa.data.images import ImageBatch
from shards.errors import ConfigError
from shards.schema import MAX_VIEWS, ViewSpec

_SHARD_BYTES = 64 << 20
_MOST_IN_A_SHARD = 256  # which is also what is read and made at once


@dataclass(frozen=True)
class Baking:
    """What is made of each image: E = `sequences` of T = `views` views, drawn from `seed` as `how` says.

    how       Fixating: patches at fixations. Recipe: augmentations, the last view by the target pipeline
    encoding  raw: bit-equal to what the loader makes. jpeg: smaller, quality 95 without chroma subsampling

    Raises ConfigError for more views than a set can hold.
    """

    sequences: int
    views: int
    how: Fixating | Recipe
    seed: int = 0
    encoding: Literal["raw", "jpeg"] = "raw"

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.views < 1 or self.total > MAX_VIEWS:
            raise ConfigError(
                f"{self.sequences} sequences of {self.views} views; allowed are 1 or more of each, and at most "
                f"{MAX_VIEWS} views in all"
            )
        if self.encoding not in ("raw", "jpeg"):
            raise ConfigError(f"encoding is {self.encoding!r}; allowed are raw, jpeg")

    @property
    def total(self) -> int:
        """Views of a sample."""
        return self.sequences * self.views

    def spec(self, way: Way) -> ViewSpec:
        return ViewSpec(self.total, way.side, way.side, self.encoding, way.params, sequence=self.views)

    def samples_per_shard(self, way: Way) -> int:
        """Some 64 MiB of raw pixels."""
        return max(1, min(_MOST_IN_A_SHARD, _SHARD_BYTES // (self.total * way.side**2 * 3)))

    def make(self, batch: ImageBatch, way: Way) -> tuple[np.ndarray, np.ndarray]:
        """Views uint8 [B, E·T, s, s, 3] and parameters float32 [B, E·T, P] of images."""
        made = [way.make(batch, self.views, self.seed, epoch) for epoch in range(self.sequences)]
        views, params = (torch.cat(parts, 1) for parts in zip(*made, strict=True))
        return views.permute(0, 1, 3, 4, 2).cpu().numpy(), params.cpu().numpy()

    def record(self, way: Way) -> dict[str, Any]:
        """What determines the content besides the images, as JSON values."""
        plain = {name: getattr(self, name) for name in ("sequences", "views", "seed", "encoding")}
        return plain | way.record()
