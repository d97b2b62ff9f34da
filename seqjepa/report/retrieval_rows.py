"""Figure 4: query images and their nearest neighbours by the encoder."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from seqjepa.evaluate.artefacts import artefacts_folder, load_arrays
from seqjepa.report.figure import Figure, Panel
from seqjepa.report.page import scrolling
from seqjepa.report.records import RunRecord
from seqjepa.report.run_groups import Group, at, is_whole

KEY, TITLE = "figure-4", "Figure 4: nearest neighbours of the encoder’s features"
MOST_QUERIES = 8
CAPTION = (
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
        panels.append(Panel(title, scrolling(title, _table(arrays)), wide=True))
    missing = "" if panels else "no run has stored neighbours; evaluate one on 3DIEBench or 3DIE-Synth, suite 3diebench"
    columns = ("run", "data", "same class", "same object", "angle to the query, degrees")
    return Figure(KEY, TITLE, CAPTION, tuple(panels), columns, tuple(rows), missing)


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


def _table(arrays: dict[str, np.ndarray]) -> str:
    heads = "".join(f"<th scope=col>{head}</th>" for head in ("query", "nearest", "second", "third"))
    queries = range(min(MOST_QUERIES, len(arrays["pictures"])))
    rows = "\n".join(f"<tr>{_row(arrays, q)}</tr>" for q in queries)
    return f"<table class=pictures>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>"


def _row(arrays: dict[str, np.ndarray], q: int) -> str:
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
