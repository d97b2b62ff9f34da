"""The tables of an experiment, for a terminal and as Markdown, and its curves over steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqjepa.experiments.compare_table import aligned, as_markdown
from seqjepa.experiments.experiment import METHODS
from seqjepa.experiments.experiment_results import AGGREGATE, Results, Row
from shards.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = {"top-1 % z": ("top1_z", 100, 1)}
AFTER = {"R² rel": ("r2_rel", 1, 3), "R² indiv": ("r2_indiv", 1, 3), "MRR": ("mrr", 1, 3), "blind": ("mrr_blind", 1, 3)}
"""Head of a column → key of a score, factor, digits. Between the two groups: z_AGG over M_val."""
CURVES = {
    "top1_z": "top-1 of z",
    f"{AGGREGATE}5": "top-1 of z_AGG, 5 views",
    "r2_rel": "R² of relative rotation",
    "r2_indiv": "R² of individual rotation",
    "mrr": "MRR",
}
ENDINGS = (".png", ".svg", ".pdf")
Table = Sequence[Sequence[str]]


def as_text(results: Results) -> str:
    """Tables with aligned columns, each under its title, and what holds for all numbers."""
    parts = [f"{title}\n" + "\n".join(aligned(table)) for title, table in tables(results)]
    return "\n\n".join([*parts, "\n".join(notes(results))])


def as_markdown_tables(results: Results) -> str:
    """The same as GitHub's tables."""
    parts = [f"**{title}**\n\n" + as_markdown(table) for title, table in tables(results)]
    return "\n\n".join([*parts, "\n".join(f"* {note}" for note in notes(results))])


def tables(results: Results) -> list[tuple[str, Table]]:
    """(title, lines of cells with a head) of every table that has rows."""
    found = [("Methods over lengths of training", _of_methods(results)), ("z_AGG over M_val", _of_aggregates(results))]
    found += [
        (
            f"{part.capitalize()}: one change, and the difference to {results.experiment.runs.base}",
            _of_changes(results, part),
        )
        for part in results.experiment.runs.changes
    ]
    found += [("Length of the schedule and length of training, cosine", _of_schedules(results))]
    return [(title, table) for title, table in found if len(table) > 1]


def notes(results: Results) -> list[str]:
    """What holds for all numbers."""
    experiment = results.experiment
    if not results.rows:
        return []
    at, constant = (
        experiment.at,
        {row.name for row in results.rows if row.schedule == "constant" and row.part == METHODS},
    )
    found = [
        f"{experiment.shards.name}, scale {experiment.scale_name}, about {at.compare.views_per_step} views a step; "
        "mean ± standard deviation over seeds, the number of which is in the column “seeds”",
    ]
    if constant:
        found.append(
            f"constant learning rate, one run for all lengths: {', '.join(sorted(constant))}; moving averages rise to "
            "their last τ over the longest length there. The others have a cosine and a run for each length"
        )
    return found


def draw_curves(results: Results, file: Path) -> None:
    """Scores over steps to an image: a line a method, means over seeds with their range. UsageError: another ending.

    Of a method with a cosine, finished runs alone; of others, weights on the way too.
    """
    from matplotlib.figure import Figure  # takes a second

    if file.suffix not in ENDINGS:
        raise UsageError(f"--plot {file}: give a file that ends in {', '.join(ENDINGS)}")
    rows = [row for row in results.rows if row.part == METHODS and row.finished]
    shown = {key: label for key, label in CURVES.items() if any(key in row.mean for row in rows)}
    if not shown:
        raise UsageError(f"--plot {file}: no run is evaluated yet")
    figure = Figure(figsize=(5.2 * len(shown), 4.2), layout="constrained")
    names = list(dict.fromkeys(row.name for row in rows))
    for axes, (key, label) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for place, name in enumerate(names):
            _draw_line(axes, [row for row in rows if row.name == name and key in row.mean], key, place)
        axes.set(title=label, xlabel="optimizer steps", xscale="log")
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 9))
    figure.savefig(file, dpi=110)


def _draw_line(axes: Axes, rows: Sequence[Row], key: str, place: int) -> None:
    rows = sorted(rows, key=lambda row: row.steps)
    steps, each = (
        [row.steps for row in rows],
        [[one[key] for one in row.by_seed.values() if key in one] for row in rows],
    )
    colour, dashes = f"C{place % 10}", "-" if place < 10 else "--"
    means = [row.mean[key] for row in rows]
    axes.plot(steps, means, dashes, color=colour, marker="o", markersize=3, label=rows[0].name if rows else None)
    axes.fill_between(steps, list(map(min, each)), list(map(max, each)), color=colour, alpha=0.15, lw=0)


def _of_methods(results: Results) -> Table:
    sizes = _ends(_sizes(results.methods))
    heads = (
        "method",
        "steps",
        "lr",
        *COLUMNS,
        *([f"% z_AGG, M_val {' → '.join(sizes)}"] if sizes else []),
        *AFTER,
        "seeds",
    )
    lines = [(row.name, f"{row.steps:,}", row.schedule, *_cells(row, sizes), _seeds(row)) for row in results.methods]
    if results.untrained:
        lines.append(("(untrained)", "0", "–", *_cells(results.untrained, sizes), _seeds(results.untrained)))
    return [heads, *lines]


def _of_aggregates(results: Results) -> Table:
    rows = [row for row in results.methods if _sizes([row])]
    sizes = _sizes(rows)
    lines = [(row.name, f"{row.steps:,}", *(_cell(row, f"{AGGREGATE}{m}", 100, 1) for m in sizes)) for row in rows]
    return [("method", "steps", *(f"M_val {m}" for m in sizes)), *lines]


def _of_changes(results: Results, part: str) -> Table:
    base, rows = results.base, results.changes(part)
    if base is None or not rows:
        return []
    most = f"{AGGREGATE}{max(_sizes([base]), key=int)}" if _sizes([base]) else ""
    columns = {**COLUMNS, **({"% z_AGG": (most, 100, 1)} if most else {}), **AFTER}
    del columns["blind"]
    heads = ("change", "steps", *(word for head in columns for word in (head, "Δ")), "seeds")
    lines = [
        (base.name, f"{base.steps:,}", *(c for k in columns.values() for c in (_cell(base, *k), "")), _seeds(base))
    ]
    for row in rows:
        less = row.less(base)
        cells = [cell for key in columns.values() for cell in (_cell(row, *key), _cell(less, *key, sign="+"))]
        lines.append((row.name, f"{row.steps:,}", *cells, _seeds(row)))
    return [heads, *lines]


def _of_schedules(results: Results) -> Table:
    sizes = _ends(_sizes(results.schedules))
    times = results.experiment.at.experiment.steps
    heads = (
        "method",
        "schedule of",
        "trained",
        *COLUMNS,
        *([f"% z_AGG, M_val {' → '.join(sizes)}"] if sizes else []),
        *AFTER,
        "seeds",
    )
    lines = [
        (row.name, f"{row.schedule_length} × {times:,}", f"{row.steps:,}", *_cells(row, sizes), _seeds(row))
        for row in results.schedules
    ]
    return [heads, *lines]


def _cells(row: Row, sizes: Sequence[str]) -> list[str]:
    cells = [_cell(row, *key) for key in COLUMNS.values()]
    if sizes:
        means = [row.mean.get(f"{AGGREGATE}{m}") for m in sizes]
        cells.append(" → ".join("–" if mean is None else f"{100 * mean:.1f}" for mean in means) if any(means) else "–")
    return cells + [_cell(row, *key) for key in AFTER.values()]


def _ends(sizes: Sequence[str]) -> list[str]:
    """The first, a middle one and the last."""
    return [sizes[k] for k in sorted({0, len(sizes) // 2, len(sizes) - 1})] if sizes else []


def _sizes(rows: Iterable[Row]) -> list[str]:
    """M_val that some row has, ascending."""
    found = {key.removeprefix(AGGREGATE) for row in rows for key in row.mean if key.startswith(AGGREGATE)}
    return sorted(found, key=int)


def _cell(row: Row, key: str, factor: float, digits: int, sign: str = "") -> str:
    """ "0.71 ± 0.02"; "–" where there is no number."""
    if not row.by_seed or key not in row.mean:
        return "–"
    shown = f"{factor * row.mean[key]:{sign}.{digits}f}"
    return f"{shown} ± {factor * row.std[key]:.{digits}f}" if key in row.std else shown


def _seeds(row: Row) -> str:
    return str(len(row.seeds))
