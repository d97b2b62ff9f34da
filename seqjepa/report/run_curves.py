"""How training went: loss, online probes and learning rate of each run, and whether its features stayed apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from seqjepa.report.figure import Figure, Panel
from seqjepa.report.figures import MOST_LINES, Line, curve, ends, line_chart
from seqjepa.report.run_groups import METHODS, Group, by_data
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD

LOSS_CAPTION = "Mean over each epoch. Losses of different methods have nothing to do with each other."
COLLAPSE_CAPTION = (
    "Of the features of one epoch, brought to length 1. Effective rank: over how many directions they spread; below "
    f"{COLLAPSED_RANK} is a collapse. Spread: 1 when even over all directions; below {COLLAPSED_STD} all inputs look "
    "alike."
)
COLLAPSE = {
    "z_rank": "effective rank of z",
    "agg_rank": "effective rank of z_AGG",
    "z_std": "spread of z",
    "agg_std": "spread of z_AGG",
}
PROBES = {"probe_top1": "top-1 of the probe, 0 to 1", "probe_r2": "R² of the probe"}
PROBES_TITLE, RATES_TITLE = "Online probes", "Learning rate"
PROBES_CAPTION = (
    "Linear heads that learn beside the method on detached features of the training split, mean over each epoch: a "
    "sign of progress, not the numbers of the tables. R² is of the relative action between two views."
)
RATES_CAPTION = "At the end of each epoch, as logged: warm-up, then as the schedule has it."
NO_PROBES = "no run has logged online probes"


def run_curves(groups: Sequence[Group]) -> list[Figure]:
    """Loss by method and data, then what is logged of features, probes and the learning rate by data.

    At most six runs a chart; no numbers, they are in the logs.
    """
    title, spread = "Loss over epochs", "Are the features alive?"
    losses = [
        panel
        for (method, data), found in _by_method(groups).items()
        for panel in _panels(title, f"{METHODS.get(method, method)} on {data}", "loss", "loss", found)
    ]
    diagnostics = list(_over_data(groups, spread, COLLAPSE))
    missing = "no run has a log of its epochs"
    probes = list(_over_data(groups, PROBES_TITLE, PROBES))
    rates = list(_over_data(groups, RATES_TITLE, {"lr": "learning rate"}))
    return [
        Figure("loss", title, LOSS_CAPTION, tuple(losses), missing="" if losses else missing),
        Figure("collapse", spread, COLLAPSE_CAPTION, tuple(diagnostics), missing="" if diagnostics else missing),
        Figure("online-probes", PROBES_TITLE, PROBES_CAPTION, tuple(probes), missing="" if probes else NO_PROBES),
        Figure("learning-rate", RATES_TITLE, RATES_CAPTION, tuple(rates), missing="" if rates else missing),
    ]


def _over_data(groups: Sequence[Group], title: str, columns: Mapping[str, str]) -> Iterator[Panel]:
    """Panels of columns of metrics.jsonl, by the names that they have on their axes, for each data set."""
    for data, found in by_data(groups).items():
        for key, shown in columns.items():
            yield from _panels(title, f"{shown}, {data}", key, shown, found)


def _by_method(groups: Sequence[Group]) -> dict[tuple[str, str], list[Group]]:
    found: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        found.setdefault((group.config.method, group.data), []).append(group)
    return found


def _panels(figure: str, title: str, key: str, y_label: str, groups: Sequence[Group]) -> Iterator[Panel]:
    lines = [line for group in groups for line in _lines(group, key)]
    charts = [lines[k : k + MOST_LINES] for k in range(0, len(lines), MOST_LINES)]
    for k, chart in enumerate(charts, start=1):
        shown = f"{title} ({k} of {len(charts)})" if len(charts) > 1 else title
        alt = f"{figure}, {shown}: {ends(chart)}."
        yield Panel(shown, line_chart(chart, x_label="epoch", y_label=y_label, alt=alt))


def _lines(group: Group, key: str) -> Iterator[Line]:
    """One line a seed."""
    for run in group.runs:
        seed = f", seed {run.config.seed}" if len(group.runs) > 1 else ""
        if line := curve(run.epochs, key, f"{group.label}{seed}"):
            yield line
