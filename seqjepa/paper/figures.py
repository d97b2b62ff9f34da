"""What the paper's figures show: of which data and runs, by the names that results.csv and results.json have for them.

A kind of data is "rotation" (stored views), "position" (fixations) or "augmentation".
"""

from __future__ import annotations

from dataclasses import dataclass

CONDITIONS = ("crop+jitter+blur", "crop", "jitter", "blur")
"""What runs on CIFAR-100 and Tiny ImageNet are told, in the order of Figures 10 and 11."""
LIKE = {"rotation": "3DIEBench", "position": "STL-10", "augmentation": "CIFAR100"}
"""The paper's data set that other data of a kind are shown like."""
USUAL_M_TR = {"rotation": 3, "position": 4, "augmentation": 2}
"""Of the curves over M_val in Figure 7, by kind of data."""


@dataclass(frozen=True)
class Plane:
    """Axes of Figure 3 for one data set: where it is published, and which R² stands for it."""

    source: str
    metric: str
    key: str
    x_label: str


PLANES = {
    "3DIEBench": Plane("Table 1", "R2_rel_rot", "r2_rel_rot_avg", "R² of the relative rotation"),
    "STL-10": Plane("Table 3", "R2_position", "r2_position_avg", "R² of the way between patches"),
    "CIFAR100": Plane("Table 2", "R2_crop", "r2_crop_avg", "R² of the crop"),
    "TinyImageNet": Plane("Table 2", "R2_crop", "r2_crop_avg", "R² of the crop"),
}
TOLD_ALL = ("", "rotation", "rotation (context)", "position", "crop+jitter+blur")
"""Methods of Figure 3: told nothing, or all that their data have."""


@dataclass(frozen=True)
class UmapCase:
    """A panel of Figures 5 and 12–14: the kind of data, whether the run is told actions, and the paper's M_tr."""

    key: str
    title: str
    kind: str
    told: bool
    m_tr: int


UMAP_CASES = (
    UmapCase("umap-a", "Figures 5, 12–14 (a): views of objects, told rotations", "rotation", True, 3),
    UmapCase("umap-b", "Figures 5, 12–14 (b): views of objects, told nothing", "rotation", False, 3),
    UmapCase("umap-c", "Figures 5, 12–14 (c): saccades, told positions", "position", True, 4),
    UmapCase("umap-d", "Figures 5, 12–14 (d): saccades, told nothing", "position", False, 4),
)


@dataclass(frozen=True)
class PathCurves:
    """Published curves of Figure 6: of which kind of data, their source, and the paper's word for them."""

    kind: str
    source: str
    word: str
    dataset: str


PATH_CURVES = (
    PathCurves("position", "Figure 6-visual", "visual", "STL-10"),
    PathCurves("rotation", "Figure 6-angular", "angular", "3DIEBench"),
)
PATH_VARIANTS = {"vision+action": "both", "vision, no action": "no_action", "no vision, action": "no_vision"}
"""What heads of Figure 6 are shown, as results.csv and results.json call it."""

SCALING_R2 = {
    "rotation": {"R2_rel_rot": "rotation"},
    "position": {"R2_position": "position"},
    "augmentation": {"R2_crop": "crop", "R2_jitter": "jitter", "R2_blur": "blur"},
}
"""Metrics on the left of Figure 7 by kind of data, with their names there."""


@dataclass(frozen=True)
class HeatMap:
    """Figures 8–11: one data set, and what its runs are told."""

    key: str
    source: str
    dataset: str
    conditions: tuple[str, ...]


HEAT_MAPS = (
    HeatMap("heat-map-8", "Figure 8", "3DIEBench", ("rotation",)),
    HeatMap("heat-map-9", "Figure 9", "STL-10", ("position",)),
    HeatMap("heat-map-10", "Figure 10", "CIFAR100", CONDITIONS),
    HeatMap("heat-map-11", "Figure 11", "TinyImageNet", CONDITIONS),
)
TRANSFER_PIXELS, TRANSFER_PATCHES = 224, (32, 84)
"""Of the images and patches of Figure 15, STL-10 to ImageNet-1k."""
