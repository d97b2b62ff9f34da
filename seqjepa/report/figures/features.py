"""Figure 4: query images and their nearest neighbours by the encoder.

Figures 5 and 12–14: the features on a plane by UMAP, by class and by what the views show.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from seqjepa.evaluate.artefacts import artefacts_folder, load_arrays
from seqjepa.report.figures.drawing import draw
from seqjepa.report.figures.figure import Figure, Panel
from seqjepa.report.groups import Group, at, is_whole, seen
from seqjepa.report.render.page import scrolling
from seqjepa.report.runs import RunRecord

NEIGHBOURS_KEY, NEIGHBOURS_TITLE = "figure-4", "Figure 4: nearest neighbours of the encoder’s features"
MOST_QUERIES = 8
NEIGHBOURS_CAPTION = (
    "Each row: a query from the validation split, then the three views whose encoder features are nearest (cosine) "
    "among all validation views without the query itself. Solid frame: the same object; dashed: another object of the "
    "same class; none: another class. Angles are between the two poses. The paper shows such rows for 3DIEBench; it "
    "gives no numbers."
)


def retrieval_rows(groups: list[Group]) -> Figure:
    """A panel for every kind of run, of its first seed that has pictures; numbers: agreement over all queries."""
    panels, rows = [], []
    for group in sorted(groups, key=_shown_first):
        run, arrays = _first_with_pictures(group)
        if run is None:
            continue
        found = at(run.results, "trained", "neighbours") or {}
        rows.append((group.label, group.data, found.get("class"), found.get("object"), found.get("angle_deg")))
        title = f"{group.label} on {group.data}{_agreement(found)}"
        panels.append(Panel(title, scrolling(title, _pictures_table(arrays)), wide=True))
    missing = "" if panels else "no run has stored neighbours; evaluate one on 3DIEBench or 3DIE-Synth, suite 3diebench"
    columns = ("run", "data", "same class", "same object", "angle to the query, degrees")
    return Figure(NEIGHBOURS_KEY, NEIGHBOURS_TITLE, NEIGHBOURS_CAPTION, tuple(panels), columns, tuple(rows), missing)


def _shown_first(group: Group) -> tuple[bool, int]:
    """seq-JEPA as published before all else, of M_tr 3 first."""
    return not is_whole(group.config), abs(group.config.data.context - 3) if is_whole(group.config) else 0


def _first_with_pictures(group: Group) -> tuple[RunRecord | None, dict[str, np.ndarray]]:
    for run in group.runs:
        arrays = load_arrays(artefacts_folder(run.path, "trained"), "neighbours")
        if {"pictures", "same_class", "same_object", "angle_deg"} <= set(arrays):
            return run, arrays
    return None, {}


def _agreement(found: dict[str, Any]) -> str:
    if "class" not in found:
        return ""
    angle = f", {found['angle_deg']:.0f}° apart" if found.get("angle_deg") is not None else ""
    objects = f", {found['object']:.0%} the same object" if found.get("object") is not None else ""
    return f": of all neighbours {found['class']:.0%} the same class{objects}{angle}"


def _pictures_table(arrays: dict[str, np.ndarray]) -> str:
    heads = "".join(f"<th scope=col>{head}</th>" for head in ("query", "nearest", "second", "third"))
    queries = range(min(MOST_QUERIES, len(arrays["pictures"])))
    rows = "\n".join(f"<tr>{_pictures_row(arrays, q)}</tr>" for q in queries)
    return f"<table class=pictures>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _pictures_row(arrays: dict[str, np.ndarray], q: int) -> str:
    pictures = arrays["pictures"][q]
    cells = [f"<td>{_image(pictures[0], f'query {q + 1}')}</td>"]
    for k in range(len(pictures) - 1):
        same = "object" if arrays["same_object"][q, k] else "class" if arrays["same_class"][q, k] else "neither"
        angle = float(arrays["angle_deg"][q, k])
        words = {"object": "same object", "class": "same class", "neither": "another class"}[same]
        words += f", {angle:.0f}°" if np.isfinite(angle) else ""
        cells.append(f"<td class='{same}'>{_image(pictures[k + 1], words)}<small>{words}</small></td>")
    return "".join(cells)


def _image(pixels: np.ndarray, alt: str) -> str:
    """uint8 [s, s, 3] as an <img>; WebP, as thirty pictures in PNG are a megabyte."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/webp;base64,{data}" alt="{escape(alt)}" width=96 height=96>'


# Ten colours that stay apart for colour-blind readers (Petroff 2021), on light and on dark paper, with a shape each.
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = "osD^vPX<>*"
MOST_POINTS = 6000
NO_MAP = "no such run has a stored map; evaluate one with the suite that holds the UMAP study"
UMAP_CAPTION = (
    "{run} on {data}. z of single views, and z_AGG where it was mapped. The paper’s Figures 5 and 12–14 show these "
    "four cases; it gives neither UMAP’s settings nor the classes, ours: 15 neighbours, min_dist 0.1, ≤ 10 classes. "
    "Trustworthiness: how far neighbours on the map are neighbours among the features, at most 1."
)
UMAP_COLUMNS = ("run", "data", "trustworthiness of the map of z", "of z_AGG")


@dataclass(frozen=True)
class UmapCase:
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


UMAP_CASES = (
    UmapCase("umap-a", "Figures 5, 12–14 (a): views of objects, told rotations", "rotation", True, 3),
    UmapCase("umap-b", "Figures 5, 12–14 (b): views of objects, told nothing", "rotation", False, 3),
    UmapCase("umap-c", "Figures 5, 12–14 (c): saccades, told positions", "position", True, 4),
    UmapCase("umap-d", "Figures 5, 12–14 (d): saccades, told nothing", "position", False, 4),
)


def umap_figures(groups: Sequence[Group]) -> list[Figure]:
    """One figure for each of CASES, of the run with a map whose M_tr is nearest to the paper's."""
    return [_umap_figure(case, groups) for case in UMAP_CASES]


def _umap_figure(case: UmapCase, groups: Sequence[Group]) -> Figure:
    fitting = sorted(filter(case.fits, groups), key=lambda g: abs(g.config.data.context - case.m_tr))
    for group in fitting:
        for run in group.runs:
            arrays = load_arrays(artefacts_folder(run.path, "trained"), "umap")
            if {"view_xy", "view_class", "class_names"} <= set(arrays):
                caption = UMAP_CAPTION.format(run=run.name, data=group.data)
                kept = [at(run.trained, "umap", f"trustworthiness_{part}") for part in ("view", "agg")]
                panels = tuple(_umap_panels(arrays, f"{case.title}, {run.name}"))
                return Figure(case.key, case.title, caption, panels, UMAP_COLUMNS, ((run.name, group.data, *kept),))
    return Figure(case.key, case.title, "", missing=NO_MAP)


def _umap_panels(arrays: dict[str, np.ndarray], what: str) -> list[Panel]:
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
