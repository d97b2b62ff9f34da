"""An object's parts in the world for V rotations at once, and as a pencil of rays meets them (float64, small)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.synth.parts import KINDS, Solid
from pipelines.synth.scene import Rays
from pipelines.synth.stage import CLUTTER, Stage


@dataclass(frozen=True)
class Pose:
    """P parts in V views. frame [P, V, 3, 3]: local axes in the world, as columns; centre [P, V, 3] in the world.

    half, colour, behind [P, 1 or V, 3]: in place of the solid's, for clutter differs from view to view.
    """

    solid: Solid
    frame: np.ndarray
    centre: np.ndarray
    half: np.ndarray
    colour: np.ndarray
    behind: np.ndarray

    @property
    def views(self) -> int:
        return self.frame.shape[1]

    @property
    def axes(self) -> np.ndarray:
        """Half axes in the world, as columns [P, V, 3, 3]."""
        return self.frame * self.half[:, :, None, :]

    def to_local(self, vectors: np.ndarray) -> np.ndarray:
        """World vectors [V, ..., 3] along each part's axes, in units of its half axes: [P, V, ..., 3]."""
        turned = np.einsum("v...j,pvjk->pv...k", vectors, self.frame)
        half = self.half.reshape(*self.half.shape[:2], *[1] * (turned.ndim - 3), 3)
        return turned / half

    def seen_from(self, rays: Rays) -> tuple[np.ndarray, np.ndarray]:
        """Rays where each part is the unit solid: eye [P, V, 3], basis [P, V, 3, 3]."""
        offset = np.einsum("pvj,pvjk->pvk", rays.eye - self.centre, self.frame)
        return offset / self.half, self.to_local(rays.basis)


def pose(solid: Solid, rotation: np.ndarray) -> Pose:
    """rotation [V, 3, 3]: the object's frame → the world."""
    frame = np.einsum("vij,pjk->pvik", rotation, solid.turn)
    centre = np.einsum("vij,pj->pvi", rotation, solid.at)
    return Pose(solid, frame, centre, solid.half[:, None], solid.colour[:, None], solid.behind[:, None])


def with_clutter(pose: Pose, stage: Stage) -> Pose:
    """The same, with the stage's pieces among the parts, each kind's parts still neighbours."""
    solid, count = pose.solid, len(CLUTTER)
    kinds = [*solid.kind, *(kind for kind, _ in CLUTTER)]
    order = np.array(sorted(range(len(kinds)), key=lambda part: KINDS.index(kinds[part])))

    def both(own: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        return np.concatenate([np.broadcast_to(own, (len(solid), *pieces.shape[1:])), pieces])[order]

    merged = Solid(
        kind=tuple(kinds[part] for part in order),
        at=both(solid.at, np.zeros((count, 3))),
        half=both(solid.half, np.ones((count, 3))),
        turn=both(solid.turn, np.broadcast_to(np.eye(3), (count, 3, 3))),
        tip=both(solid.tip, np.array([tip for _, tip in CLUTTER])),
        colour=both(solid.colour, np.ones((count, 3))),
        behind=both(solid.behind, np.ones((count, 3))),
        coat=solid.coat,
    )
    return Pose(
        merged,
        frame=both(pose.frame, stage.frame),
        centre=both(pose.centre, stage.centre),
        half=both(pose.half, stage.half),
        colour=both(pose.colour, stage.colour),
        behind=both(pose.behind, stage.colour),
    )
