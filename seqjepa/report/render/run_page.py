"""One run as one page: no network, no script, readable on a phone, in the dark and on paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from seqjepa.evaluate.results import protocol_lines, table_rows
from seqjepa.paper.metrics import PATHS
from seqjepa.report.details import numbers_table, shown
from seqjepa.report.figures.drawing import Line, curve, line_chart
from seqjepa.report.render.page import Section, document, listing, scrolling

WEIGHTS = ("trained", "untrained")
RANK_CAPTION = "Effective rank of the features; near 1 it would mean collapse"


@dataclass(frozen=True)
class Page:
    """What the page shows.

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


def render(page: Page) -> str:
    """The whole document as HTML text, a few hundred kilobytes with its pictures inside."""
    sections = [
        Section("seen", "What the encoder sees", _sheet(page)),
        Section("learning", "Learning, and what more views bring", _charts(page)),
        Section("numbers", "Numbers on unseen objects", numbers_table(page.results)),
        Section("made", "How it was made", listing([*protocol_lines(dict(page.results)), *page.notes])),
    ]
    header = f"<h1>{escape(page.title)}</h1>\n<p class=lead>{escape(page.lead)}</p>\n{_headline_numbers(page)}"
    return document(page.title, header, sections)


HEADLINES = {
    "top-1, z": "Top-1 from one view",
    "top-1, z of the whole image": "Top-1 from the whole image",
    "R² relative rotation, avg": "R² of the rotation between two views",
    "R² position difference, avg": "R² of the way between two patches",
    "R² crop difference, avg": "R² of the crop between two views",
    "R² jitter difference, avg": "R² of the colour jitter between two views",
    "R² blur difference, avg": "R² of the blur between two views",
}


def _headline_numbers(page: Page) -> str:
    """Cards: a number of the trained weights, and the same of the untrained and of others beside it."""
    rows, wanted = dict(table_rows(dict(page.results))), dict(HEADLINES)
    largest = max((label for label in rows if "z_AGG" in label), key=_size, default=None)
    if largest:
        wanted[largest] = f"Top-1 from {_size(largest)} views (z_AGG)"
    others = {name: dict(table_rows({"trained": scores})) for name, scores in page.others.items()}
    cards = []
    for label, name in wanted.items():
        if label in rows:
            trained, untrained, _ = rows[label]
            beside = {"untrained": untrained} | {other: of.get(label, [None])[0] for other, of in others.items()}
            cards.append(_card(name, trained, beside))
    return f"<dl class=numbers>\n{''.join(cards)}</dl>" if cards else ""


def _size(label: str) -> int:
    return int(label.rpartition("=")[2])


def _card(name: str, value: float | None, beside: Mapping[str, float | None]) -> str:
    quiet = "".join(f"<dd class=quiet>{escape(of)} {shown(x)}</dd>" for of, x in beside.items() if x is not None)
    return f"<div><dt>{escape(name)}</dt><dd>{shown(value)}</dd>{quiet}</div>\n"


def _sheet(page: Page) -> str:
    data = base64.b64encode(page.sheet).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{escape(page.sheet_alt)}">'
    return (
        f"<figure>\n{scrolling('Contact sheet', image)}\n<figcaption>{escape(page.sheet_alt)}</figcaption>\n</figure>"
    )


def _charts(page: Page) -> str:
    figures = [
        _over_epochs(page.epochs, {"loss": "loss"}, "1 − cos", "Prediction loss, mean over each epoch"),
        _over_epochs(page.epochs, {"z_rank": "z", "agg_rank": "z_AGG"}, "effective rank", RANK_CAPTION),
        _over_views({**{name: page.results.get(name, {}) for name in WEIGHTS}, **page.others}),
        _over_paths(page.results),
    ]
    return f"<div class=figures>\n{''.join(figures)}</div>" if any(figures) else ""


def _over_epochs(epochs: Sequence[Mapping[str, Any]], columns: Mapping[str, str], y_label: str, caption: str) -> str:
    """A figure of columns of metrics.jsonl, by the names that they have in the chart; empty if none was logged."""
    lines = [line for key, name in columns.items() if (line := curve(epochs, key, name))]
    if not lines:
        return ""
    ends = "; ".join(f"{line.name} from {line.y[0]:.3g} to {line.y[-1]:.3g}" for line in lines)
    alt = f"{caption}, over {len(lines[0].x)} epochs: {ends}."
    return _figure(line_chart(lines, x_label="epoch", y_label=y_label, alt=alt), f"{caption}.")


def _over_views(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A figure of the accuracy over M_val, on z_AGG or else on mean z, for all by name that have it."""
    key, what = "top1_agg", "z_AGG, the aggregate of M_val views and the actions between them"
    if not any(scores.get(key) for scores in results.values()):
        key, what = "top1_z_mean", "the mean z of M_val views"
    measured = {name: scores[key] for name, scores in results.items() if scores.get(key)}
    if not measured:
        return ""
    lines = [Line(name, [float(m) for m in scores], list(scores.values())) for name, scores in measured.items()]
    ends = "; ".join(f"{line.name} {line.y[0]:.1%} to {line.y[-1]:.1%}" for line in lines)
    alt = f"Top-1 accuracy from {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} views: {ends}."
    chart = line_chart(lines, x_label="views seen, M_val", y_label="top-1, %", alt=alt, markers=True, percent=True)
    return _figure(chart, f"A linear classifier on {what}.")


def _over_paths(results: Mapping[str, Any]) -> str:
    """A figure of path integration with both ablations, as the paper's Figure 6; of the trained weights alone."""
    paths = results.get("trained", {}).get("r2_path", {})
    lines = [
        Line(shown, [float(m) for m in paths[name]], list(paths[name].values()))
        for name, shown in PATHS.items()
        if paths.get(name)
    ]
    if not lines:
        return ""
    ends = "; ".join(f"{line.name} {line.y[0]:.2f} to {line.y[-1]:.2f}" for line in lines)
    alt = f"R² of the whole way over {lines[0].x[0]:.0f} to {lines[0].x[-1]:.0f} steps: {ends}."
    chart = line_chart(lines, x_label="steps, M", y_label="R²", alt=alt, markers=True)
    caption = "Path integration: the way from the first view to the one after the last, read from z_AGG and e_M."
    return _figure(chart, f"{caption} Each head was trained on what it is shown.")


def _figure(svg: str, caption: str) -> str:
    return f"<figure>\n{svg}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"
