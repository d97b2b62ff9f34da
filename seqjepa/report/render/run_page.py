"""One run as one page, as the demos write it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from seqjepa.evaluate.results import keyed_rows, protocol_lines
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import PATHS
from seqjepa.report.figures.drawing import Line, curve, line_chart
from seqjepa.report.render import fill
from seqjepa.report.render.html import PageSection, numbers_table, page_html, shown_number


@dataclass(frozen=True)
class Page:
    """What the page of one run shows.

    epochs   the run's metrics.jsonl
    results  {"trained": …, "untrained": …} as in results.json
    sheet    a contact sheet, PNG, and what it shows in words
    notes    short sentences on how it was made (commands, timings)
    others   further results, by what they are, that stand beside these: in the cards, and in the chart of accuracy over
             views
    """

    title: str
    lead: str
    sheet: bytes
    sheet_alt: str
    epochs: Sequence[Mapping[str, object]]
    results: Mapping[str, Any]
    notes: Sequence[str] = field(default_factory=tuple)
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


WEIGHTS = ("trained", "untrained")
CARDS = {
    "top1_z": "Top-1 from one view",
    "top1_z_image": "Top-1 from the whole image",
    "r2_rel_rot_avg": "R² of the rotation between two views",
    "r2_position_avg": "R² of the way between two patches",
    "r2_crop_avg": "R² of the crop between two views",
    "r2_jitter_avg": "R² of the colour jitter between two views",
    "r2_blur_avg": "R² of the blur between two views",
}
"""Keys of results.json that have a card, and what it is called."""
RANK_CAPTION = "Effective rank of the features; near 1 it would mean collapse"
PATH_CAPTION = (
    "Path integration: the way from the first view to the one after the last, read from z_AGG and e_M. Each head was "
    "trained on what it is shown."
)


def render(page: Page) -> str:
    """The page of one run as HTML text, a few hundred kilobytes with its pictures inside."""
    charts = [
        _over_epochs(page.epochs, {"loss": "loss"}, "1 − cos", "Prediction loss, mean over each epoch"),
        _over_epochs(page.epochs, {"z_rank": "z", "agg_rank": "z_AGG"}, "effective rank", RANK_CAPTION),
        _over_views({**{name: page.results.get(name, {}) for name in WEIGHTS}, **page.others}),
        _over_paths(page.results.get("trained", {})),
    ]
    made = [*protocol_lines(dict(page.results)), *page.notes]
    sheet = {"data": base64.b64encode(page.sheet).decode(), "text": page.sheet_alt}
    values = {"sheet": sheet, "charts": [chart for chart in charts if chart], "made": made}
    values |= {"page": page, "cards": _cards(page)}
    sections = [
        PageSection("seen", "What the encoder sees", fill("run.html", part="sheet", **values)),
        PageSection("learning", "Learning, and what more views bring", fill("run.html", part="charts", **values)),
        PageSection("numbers", "Numbers on unseen objects", numbers_table(page.results)),
        PageSection("made", "How it was made", fill("run.html", part="made", **values)),
    ]
    return page_html(page.title, fill("run.html", part="header", **values), sections)


def _cards(page: Page) -> list[tuple[str, str, dict[str, str]]]:
    """Names and numbers of the trained weights, and the same of the untrained and of others beside them."""
    rows = {key: cells for key, _, cells in keyed_rows(dict(page.results))}
    wanted, sizes = dict(CARDS), [int(key.removeprefix("top1_agg.")) for key in rows if key.startswith("top1_agg.")]
    if sizes:
        wanted[f"top1_agg.{max(sizes)}"] = f"Top-1 from {max(sizes)} views (z_AGG)"
    cards = []
    for key, name in wanted.items():
        if key in rows:
            trained, untrained, _ = rows[key]
            beside = {"untrained": untrained} | {other: value_at(scores, key) for other, scores in page.others.items()}
            shown = {other: shown_number(value) for other, value in beside.items() if value is not None}
            cards.append((name, shown_number(trained), shown))
    return cards


Chart = tuple[str, str]
"""An <svg> and its caption."""


def _over_epochs(
    epochs: Sequence[Mapping[str, Any]], columns: Mapping[str, str], y_label: str, caption: str
) -> Chart | None:
    """Columns of metrics.jsonl, by the names that they have in the chart; None if none was logged."""
    lines = [line for key, name in columns.items() if (line := curve(epochs, key, name))]
    if not lines:
        return None
    ends = "; ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    alt = f"{caption}, over {len(lines[0].x)} epochs: {ends}."
    return line_chart(lines, x_label="epoch", y_label=y_label, alt=alt), f"{caption}."


def _over_views(results: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """The accuracy over M_val, on z_AGG or else on mean z, for all by name that have it."""
    key, what = "top1_agg", "z_AGG, the aggregate of M_val views and the actions between them"
    if not any(scores.get(key) for scores in results.values()):
        key, what = "top1_z_mean", "the mean z of M_val views"
    lines = [_by_size(name, scores[key]) for name, scores in results.items() if scores.get(key)]
    if not lines:
        return None
    ends = "; ".join(f"{line.name} {line.y[0]:.1%} to {line.y[-1]:.1%}" for line in lines)
    alt = f"Top-1 accuracy from {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} views: {ends}."
    chart = line_chart(lines, x_label="views seen, M_val", y_label="top-1, %", alt=alt, markers=True, percent=True)
    return chart, f"A linear classifier on {what}."


def _over_paths(trained: Mapping[str, Any]) -> Chart | None:
    """Path integration with both ablations, as the paper's Figure 6."""
    paths = trained.get("r2_path", {})
    lines = [_by_size(shown, paths[name]) for name, shown in PATHS.items() if paths.get(name)]
    if not lines:
        return None
    ends = "; ".join(f"{line.name} {line.y[0]:.2f} to {line.y[-1]:.2f}" for line in lines)
    alt = f"R² of the whole way over {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} steps: {ends}."
    return line_chart(lines, x_label="steps, M", y_label="R²", alt=alt, markers=True), PATH_CAPTION


def _by_size(name: str, scores: Mapping[str, float]) -> Line:
    return Line(name, [float(size) for size in scores], list(scores.values()))
