"""What features look like: nearest neighbours (Figure 4), and maps by UMAP (Figures 5 and 12–14)."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from seqjepa.evaluate.results import artefacts_folder, load_arrays
from seqjepa.paper.figures import UmapCase
from seqjepa.paper.measures import value_at
from seqjepa.report.figures.drawing import Figure, Panel, draw, figure_of
from seqjepa.report.fill_template import fill
from seqjepa.report.groups import Group, aggregates, is_whole
from seqjepa.report.runs import RunRecord

MOST_QUERIES = 8


class Picture(NamedTuple):
    """style: "object", "class" or "neither", by what it shares with the query; data: WebP in base64."""

    style: str
    text: str
    data: str


def neighbours(name: str, groups: Sequence[Group]) -> Figure:
    """A panel for every kind of run, of its first seed that has pictures; numbers: agreement over all queries.

    name: of its captions, "figure-4" or, of runs on own data, "neighbours".
    """
    panels, rows = [], []
    for group in sorted(groups, key=_shown_first):
        run, arrays = _first_with(group, "neighbours", {"pictures", "same_class", "same_object", "angle_deg"})
        if run is None:
            continue
        found = run.trained.get("neighbours", {})
        rows.append((group.label, group.data, found.get("class"), found.get("object"), found.get("angle_deg")))
        title = f"{group.label} on {group.data}{_agreement(found)}"
        pictures = [_neighbours_of(arrays, q) for q in range(min(MOST_QUERIES, len(arrays["pictures"])))]
        panels.append(Panel(title, fill("pictures.html", title=title, rows=pictures), wide=True))
    return figure_of(name, panels, rows, missing=not panels)


def _shown_first(group: Group) -> tuple[bool, int]:
    """seq-JEPA as published before all else, of M_tr 3 first."""
    return not is_whole(group.config), abs(group.config.data.context - 3) if is_whole(group.config) else 0


def _first_with(group: Group, name: str, needed: set[str]) -> tuple[RunRecord | None, dict[str, np.ndarray]]:
    """The first run that has the `needed` arrays in the file `name` of its trained weights, and its numbers: a later
    evaluation that did not measure them leaves the arrays of weights that may be older."""
    for run in (run for run in group.runs if name in run.trained):
        arrays = load_arrays(artefacts_folder(run.path, "trained"), name)
        if needed <= set(arrays):
            return run, arrays
    return None, {}


def _agreement(found: dict[str, Any]) -> str:
    if "class" not in found:
        return ""
    angle = f", {found['angle_deg']:.0f}° apart" if found.get("angle_deg") is not None else ""
    objects = f", {found['object']:.0%} the same object" if found.get("object") is not None else ""
    return f": of all neighbours {found['class']:.0%} the same class{objects}{angle}"


def _neighbours_of(arrays: dict[str, np.ndarray], q: int) -> list[Picture]:
    """A query itself, then its neighbours from the nearest on."""
    query, *nearest = arrays["pictures"][q]
    row = [Picture("", f"query {q + 1}", _webp(query))]
    for k, pixels in enumerate(nearest):
        same = "object" if arrays["same_object"][q, k] else "class" if arrays["same_class"][q, k] else "neither"
        angle = float(arrays["angle_deg"][q, k])
        words = {"object": "same object", "class": "same class", "neither": "another class"}[same]
        row.append(Picture(same, words + (f", {angle:.0f}°" if np.isfinite(angle) else ""), _webp(pixels)))
    return row


def _webp(pixels: np.ndarray) -> str:
    """uint8 [s, s, 3] in base64; WebP, as thirty pictures in PNG are a megabyte."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "WEBP", quality=88)
    return base64.b64encode(buffer.getvalue()).decode()


# Ten colours that stay apart for colour-blind readers (Petroff 2021), on light and on dark paper, with a shape each.
CLASS_COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
MARKERS = "osD^vPX<>*"
MOST_POINTS = 6000


def umap_figure(case: UmapCase, groups: Sequence[Group]) -> Figure:
    """Of the run with a map whose M_tr is nearest to the paper's."""
    fitting = sorted((g for g in groups if _fits(case, g)), key=lambda g: abs(g.config.data.context - case.m_tr))
    for group in fitting:
        run, arrays = _first_with(group, "umap", {"view_xy", "view_class", "class_names"})
        if run is not None:
            kept = [value_at(run.trained, f"umap.trustworthiness_{part}") for part in ("view", "agg")]
            panels = _umap_panels(arrays, f"{case.title}, {run.name}")
            row, values = (run.name, group.data, *kept), {"run": run.name, "data": group.data}
            return figure_of("umap", panels, [row], missing=False, key=case.key, title=case.title, **values)
    return figure_of("umap", [], missing=True, key=case.key, title=case.title)


def _fits(case: UmapCase, group: Group) -> bool:
    """Whether a run is what the case shows. Told is aggregator and predictor: ablations that leave out one of them are
    neither."""
    config, condition = group.config, "both" if case.told else "none"
    return aggregates(config) and group.kind == case.kind and config.model.condition == condition


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
