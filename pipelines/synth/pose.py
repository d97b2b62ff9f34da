"""An object's parts in the world for V rotations at once, and as a pencil of rays meets them (float64, small)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.synth.parts import Solid
from pipelines.synth.scene import Rays


@dataclass(frozen=True)
class Pose:
    """P parts in V views. frame [P, V, 3, 3]: local axes in the world, as columns; centre [P, V, 3] in the world."""

    solid: Solid
    frame: np.ndarray
    centre: np.ndarray

    @property
    def views(self) -> int:
        return self.frame.shape[1]

    @property
    def axes(self) -> np.ndarray:
        """Half axes in the world, as columns [P, V, 3, 3]."""
        return self.frame * self.solid.half[:, None, None, :]

    def to_local(self, vectors: np.ndarray) -> np.ndarray:
        """World vectors [V, ..., 3] along each part's axes, in units of its half axes: [P, V, ..., 3]."""
        turned = np.einsum("v...j,pvjk->pv...k", vectors, self.frame)
        half = self.solid.half.reshape(len(self.solid), *[1] * (turned.ndim - 2), 3)
        return turned / half

    def seen_from(self, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
        """Rays where each part is the unit solid: eye [P, V, 3], basis [P, V, 3, 3]."""
        offset = np.einsum("pvj,pvjk->pvk", rays.eye - self.centre, self.frame)
        return offset / self.solid.half[:, None], self.to_local(rays.basis)


def pose(solid: Solid, rotation: np.ndarray) -> Pose:
    """rotation [V, 3, 3]: the object's frame → the world."""
    frame = np.einsum("vij,pjk->pvik", rotation, solid.turn)
    return Pose(solid, frame, np.einsum("vij,pj->pvi", rotation, solid.at))
