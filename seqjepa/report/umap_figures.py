"""Figures 5 and 12–14: the features on a plane by UMAP, by class and by what the views show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from seqjepa.evaluate.artefacts import artefacts_folder, load_arrays
from seqjepa.report.canvas import draw
from seqjepa.report.figure import Figure, Panel
from seqjepa.report.run_groups import Group, at, seen

# Ten colours that stay apart for colour-blind readers (Petroff 2021), on light and on dark paper, with a shape each.
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = "osD^vPX<>*"
MOST_POINTS = 6000
MISSING = "no such run has a stored map; evaluate one with the suite that holds the UMAP study"
CAPTION = (
    "{run} on {data}. z of single views, and z_AGG where it was mapped. The paper’s Figures 5 and 12–14 show these "
    "four cases; it gives neither UMAP’s settings nor the classes, ours: 15 neighbours, min_dist 0.1, ≤ 10 classes. "
    "Trustworthiness: how far neighbours on the map are neighbours among the features, at most 1."
)
COLUMNS = ("run", "data", "trustworthiness of the map of z", "of z_AGG")


@dataclass(frozen=True)
class Case:
    """What a run has to be to be shown: its kind of data, whether it is told actions, and best the paper's M_tr.

    Told is aggregator and predictor: ablations that leave out one of them are neither.
    """

    key: str
    title: str
    kind: str
    told: bool
    m_tr: int

    def fits(self, group: Group) -> bool:
        config = group.config
        condition = "both" if self.told else "none"
        return config.method == "seq_jepa" and seen(config) == self.kind and config.model.condition == condition


CASES = (
    Case("umap-a", "Figures 5, 12–14 (a): views of objects, told rotations", "rotation", True, 3),
    Case("umap-b", "Figures 5, 12–14 (b): views of objects, told nothing", "rotation", False, 3),
    Case("umap-c", "Figures 5, 12–14 (c): saccades, told positions", "position", True, 4),
    Case("umap-d", "Figures 5, 12–14 (d): saccades, told nothing", "position", False, 4),
)


def umap_figures(groups: Sequence[Group]) -> list[Figure]:
    """One figure for each of CASES, of the run with a map whose M_tr is nearest to the paper's."""
    return [_figure(case, groups) for case in CASES]


def _figure(case: Case, groups: Sequence[Group]) -> Figure:
    fitting = sorted(filter(case.fits, groups), key=lambda g: abs(g.config.data.context - case.m_tr))
    for group in fitting:
        for run in group.runs:
            arrays = load_arrays(artefacts_folder(run.path, "trained"), "umap")
            if {"view_xy", "view_class", "class_names"} <= set(arrays):
                caption = CAPTION.format(run=run.name, data=group.data)
                kept = [at(run.trained, "umap", f"trustworthiness_{part}") for part in ("view", "agg")]
                panels = tuple(_panels(arrays, f"{case.title}, {run.name}"))
                return Figure(case.key, case.title, caption, panels, COLUMNS, ((run.name, group.data, *kept),))
    return Figure(case.key, case.title, "", missing=MISSING)


def _panels(arrays: dict[str, np.ndarray], what: str) -> list[Panel]:
    names = [str(name) for name in arrays["class_names"]]
    xy = arrays["view_xy"]
    panels = [_by_class("views by class", xy, arrays["view_class"], names, what)]
    if "view_angle_deg" in arrays:
        panels.append(_by_value("views by angle of rotation, degrees", xy, arrays["view_angle_deg"], what))
    if "view_position" in arrays:
        for axis, name in enumerate("XY"):
            panels.append(_by_value(f"views by {name} of the fixation", xy, arrays["view_position"][:, axis], what))
    if "agg_xy" in arrays:
        panels.append(_by_class("z_AGG by class", arrays["agg_xy"], arrays["agg_class"], names, what))
    return panels


def _by_class(title: str, xy: np.ndarray, classes: np.ndarray, names: Sequence[str], what: str) -> Panel:
    """Points by class in colour and shape; named at the side, as classes that overlap leave no room for names."""

    def paint(axes: Axes) -> None:
        keep = _thinned(len(xy))
        for k, c in enumerate(sorted({int(c) for c in classes})):
            points = xy[keep][classes[keep] == c]
            style: dict[str, Any] = {
                "color": CLASS_COLOURS[k % len(CLASS_COLOURS)],
                "marker": MARKERS[k % len(MARKERS)],
            }
            axes.scatter(*points.T, s=7, linewidths=0, rasterized=True, **style)
            axes.scatter([], [], s=40, label=names[c] if c < len(names) else str(c), **style)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, handletextpad=0.2, borderpad=0)
        _bare(axes)

    return Panel(title, draw(paint, f"{what}: {title}, {len(xy)} points, classes {', '.join(names)}.", size=(5, 4)))


def _by_value(title: str, xy: np.ndarray, values: np.ndarray, what: str) -> Panel:
    """Points coloured from dark (small) to light (large) by a number, with a bar that says which."""

    def paint(axes: Axes) -> None:
        keep = _thinned(len(xy))
        drawn = axes.scatter(*xy[keep].T, s=4, c=values[keep], cmap="cividis", linewidths=0, rasterized=True)
        figure = axes.figure
        bar = figure.colorbar(drawn, ax=axes, orientation="horizontal", fraction=0.05, pad=0.02)
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        _bare(axes)

    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return Panel(title, draw(paint, f"{what}: {title}, {len(xy)} points, {low:.3g} to {high:.3g}.", size=(5, 4.4)))


def _thinned(n: int) -> np.ndarray:
    """At most MOST_POINTS indices of n, evenly: the stored order has no meaning."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_POINTS)).astype(int))


def _bare(axes: Axes) -> None:
    """Neither ticks nor frame: distances on such a map have no unit."""
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
