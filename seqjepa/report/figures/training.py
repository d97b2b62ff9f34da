"""How training went: loss, online probes and learning rate of each run, and whether its features stayed apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seqjepa.report.figures.drawing import CAPTIONS, MOST_LINES, Figure, Line, Panel, curve, ends, figure_of, line_chart
from seqjepa.report.groups import Group
from seqjepa.report.labels import method_name
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD

COLLAPSE = {
    "z_rank": "effective rank of z",
    "agg_rank": "effective rank of z_AGG",
    "z_std": "spread of z",
    "agg_std": "spread of z_AGG",
}
PROBES = {"probe_top1": "top-1 of the probe, 0 to 1", "probe_r2": "R² of the probe"}


def run_curves(groups: Sequence[Group]) -> list[Figure]:
    """Loss by method and data, then what is logged of features, probes and the learning rate by data.

    At most six runs a chart; no numbers, they are in the logs.
    """
    return [
        _figure("loss", groups, {"loss": "loss"}),
        _figure("collapse", groups, COLLAPSE, rank=COLLAPSED_RANK, std=COLLAPSED_STD),
        _figure("online-probes", groups, PROBES),
        _figure("learning-rate", groups, {"lr": "learning rate"}),
    ]


def _figure(key: str, groups: Sequence[Group], columns: Mapping[str, str], **values: Any) -> Figure:
    """Charts of columns of metrics.jsonl, by the names that they have on their axes, for each data set.

    Losses have a chart for each method too, since they have nothing to do with each other.
    """
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        method = method_name(group.config) if key == "loss" else ""
        found.setdefault((method, group.data), []).append(group)
    title = CAPTIONS[key]["title"]
    panels = [
        panel
        for (method, data), some in found.items()
        for column, shown in columns.items()
        for panel in _panels(title, f"{method} on {data}" if method else f"{shown}, {data}", column, shown, some)
    ]
    return figure_of(key, panels, missing=not panels, **values)


def _panels(figure: str, title: str, column: str, y_label: str, groups: Sequence[Group]) -> Iterator[Panel]:
    lines = [line for group in groups for line in _run_lines(group, column)]
    charts = [lines[k : k + MOST_LINES] for k in range(0, len(lines), MOST_LINES)]
    for k, chart in enumerate(charts, start=1):
        shown = f"{title} ({k} of {len(charts)})" if len(charts) > 1 else title
        alt = f"{figure}, {shown}: {ends(chart)}."
        yield Panel(shown, line_chart(chart, x_label="epoch", y_label=y_label, alt=alt))


def _run_lines(group: Group, key: str) -> Iterator[Line]:
    """One line a seed."""
    for run in group.runs:
        seed = f", seed {run.config.seed}" if len(group.runs) > 1 else ""
        if line := curve(run.epochs, key, f"{group.label}{seed}"):
            yield line
