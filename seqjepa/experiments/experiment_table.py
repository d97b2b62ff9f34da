"""The tables of an experiment, for a terminal and as Markdown, and its curves over steps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from seqjepa.experiments.compare_table import NO_NUMBER, aligned, as_markdown, number_cell, schedule_notes
from seqjepa.experiments.experiment import METHODS
from seqjepa.experiments.experiment_results import AGGREGATE, ORDERED, Results, Row
from shards.errors import UsageError
from shards.machine.files import OwnFile, refuse_foreign, write_own
from shards.stores.store import require_no_address

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = {
    "R² rel": ("r2_rel", 1, 3),
    "R² indiv": ("r2_indiv", 1, 3),
    "R² rel, map": ("map_r2_rel", 1, 3),
    "MRR": ("mrr", 1, 3),
    "blind": ("mrr_blind", 1, 3),
}
"""Head of a column → key of a score, factor, digits. Those that no row has are left out."""
CURVES = {
    "top1_z": "top-1 of z",
    f"{AGGREGATE}5": "top-1 of z_AGG, 5 views",
    "r2_rel": "R² of relative rotation",
    "r2_indiv": "R² of individual rotation",
    "mrr": "MRR",
}
ENDINGS = (".png", ".svg", ".pdf")
MAKER = "seqjepa sweep"
"""Signed with, so that a plot replaces one of before and nothing else."""
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
    if not results.rows:
        return []
    experiment = results.experiment
    views = experiment.at.compare.views_per_step
    found = [
        f"{experiment.shards.name}, scale {experiment.scale_name}, about {views} views a step; mean ± standard "
        "deviation over seeds, as many as the last column says"
    ]
    schedules = {row.name: row.schedule for row in results.rows if row.part == METHODS}
    return [*found, *schedule_notes(schedules), *_order_notes(results)]


def _order_notes(results: Results) -> list[str]:
    """Whether the order of methods after the longest training, of those that all seeds have, is that of every seed."""
    steps = max((row.steps for row in results.methods), default=0)
    found = []
    for key, label in ORDERED.items():
        ranked = {seed: names for seed, names in results.order(key).items() if len(names) > 1}
        both = set.intersection(*map(set, ranked.values())) if ranked else set()
        orders = {seed: " > ".join(name for name in names if name in both) for seed, names in ranked.items()}
        if len(both) < 2:
            continue
        if len(orders) > 1 and len(set(orders.values())) == 1:
            found.append(
                f"{label} after {steps:,} steps, the same order with every seed: {next(iter(orders.values()))}"
            )
        elif len(orders) > 1:
            each = "; ".join(f"seed {seed}: {order}" for seed, order in orders.items())
            found.append(f"{label} after {steps:,} steps, another order with other seeds: {each}")
    return found


def check_plot(file: Path) -> None:
    """UsageError: an address, another ending, or no place for a plot of ours."""
    require_no_address(file, "--plot")
    if file.suffix not in ENDINGS:
        raise UsageError(f"--plot {file}: give a file that ends in {', '.join(ENDINGS)}")
    refuse_foreign(file, MAKER.encode(), MAKER)


def draw_curves(results: Results, file: Path) -> None:
    """Scores over steps to an image: a line a method, means over seeds with their range. UsageError: as check_plot.

    Of a method with a cosine, finished runs alone; of others, weights on the way too.
    """
    from matplotlib.figure import Figure  # takes a second

    check_plot(file)
    rows = results.finished
    shown = {key: label for key, label in CURVES.items() if any(key in row.mean for row in rows)}
    if not shown:
        raise UsageError(f"--plot {file}: no run is evaluated yet")
    figure = Figure(figsize=(5.2 * len(shown), 4.2), layout="constrained")
    names = list(dict.fromkeys(row.name for row in rows))
    steps = sorted({row.steps for row in rows if row.length in results.experiment.lengths})
    for axes, (key, label) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown.items(), strict=True):
        for place, name in enumerate(names):
            _draw_line(axes, [row for row in rows if row.name == name and key in row.mean], key, place)
        axes.set(title=label, xlabel="optimizer steps", xscale="log")
        axes.set_xticks(steps, [f"{step:,}" for step in steps])
        axes.set_xticks([], minor=True)  # of a logarithm: their words would overlap
        axes.grid(alpha=0.3)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 9))
    drawn = io.BytesIO()
    signed = {"Software" if file.suffix == ".png" else "Creator": MAKER}
    figure.savefig(drawn, format=file.suffix[1:], dpi=110, metadata=signed)
    write_own([OwnFile(file, drawn.getvalue(), MAKER.encode(), MAKER)])


def _draw_line(axes: Axes, rows: Sequence[Row], key: str, place: int) -> None:
    rows = sorted(rows, key=lambda row: row.steps)
    steps, each = [row.steps for row in rows], [[one[key] for one in row.by_seed.values()] for row in rows]
    colour, dashes = f"C{place % 10}", "-" if place < 10 else "--"
    means = [row.mean[key] for row in rows]
    axes.plot(steps, means, dashes, color=colour, marker="o", markersize=3, label=rows[0].name if rows else None)
    axes.fill_between(steps, list(map(min, each)), list(map(max, each)), color=colour, alpha=0.15, lw=0)


def _of_methods(results: Results) -> Table:
    rows, initial = results.methods, results.untrained
    columns = _columns(rows)
    lines = [(row.name, f"{row.steps:,}", row.schedule, *_cells(row, columns)) for row in rows]
    lines += [("(untrained)", "0", NO_NUMBER, *_cells(initial, columns))] if initial and rows else []
    return [("method", "steps", "lr", *columns, "seeds"), *lines]


def _of_aggregates(results: Results) -> Table:
    rows = [row for row in results.methods if _sizes([row])]
    columns = {f"M_val {m}": _number(f"{AGGREGATE}{m}", 100, 1) for m in _sizes(rows)}
    lines = [(row.name, f"{row.steps:,}", *_cells(row, columns)) for row in rows]
    return [("method", "steps", *columns, "seeds"), *lines]


def _of_changes(results: Results, part: str) -> Table:
    """At each length the scores of the base, then those of each change beside the differences."""
    rows = results.changes(part)
    bases = {row.length: base for row in rows if (base := results.base(row.length))}
    columns = {head: cell for head, cell in _columns([*bases.values(), *rows], largest=True).items() if head != "blind"}
    lines: list[Sequence[str]] = [("change", "steps", *(word for head in columns for word in (head, "Δ")), "seeds")]
    for length, base in sorted(bases.items()):
        changed = [row for row in rows if row.length == length]
        for row, less in ((base, None), *((row, row.less(base)) for row in changed)):
            pairs = [word for cell in columns.values() for word in (cell(row), cell(less, "+") if less else "")]
            lines.append((row.name, f"{row.steps:,}", *pairs, _seeds(row)))
    return lines


def _of_schedules(results: Results) -> Table:
    rows, steps = results.schedules, results.experiment.at.experiment.steps
    columns = _columns(rows)
    lines = [(row.name, f"{row.schedule_length} × {steps:,}", f"{row.steps:,}", *_cells(row, columns)) for row in rows]
    return [("method", "schedule of", "trained", *columns, "seeds"), *lines]


Cell = Callable[..., str]
"""A row's cell, with a sign if a second argument says so."""


def _columns(rows: Sequence[Row], *, largest: bool = False) -> Mapping[str, Cell]:
    """Heads → cells, of what some row has. largest: z_AGG of the most views alone, with its deviation."""
    sizes = _sizes(rows)
    columns: dict[str, Cell] = {"top-1 % z": _number("top1_z", 100, 1)}
    if sizes and largest:
        columns[f"% z_AGG, M_val {sizes[-1]}"] = _number(f"{AGGREGATE}{sizes[-1]}", 100, 1)
    elif sizes:
        columns[f"% z_AGG, M_val {' → '.join(_ends(sizes))}"] = _means_of(_ends(sizes))
    columns |= {head: _number(*how) for head, how in NUMBERS.items()}
    return {head: cell for head, cell in columns.items() if any(cell(row) != NO_NUMBER for row in rows)}


def _cells(row: Row, columns: Mapping[str, Cell]) -> list[str]:
    return [*(cell(row) for cell in columns.values()), _seeds(row)]


def _means_of(sizes: Sequence[str]) -> Cell:
    """ "60.1 → 71.9 → 75.0"."""

    def cell(row: Row) -> str:
        means = [row.mean.get(f"{AGGREGATE}{m}") for m in sizes]
        return NO_NUMBER if None in means else " → ".join(f"{100 * (mean or 0):.1f}" for mean in means)

    return cell


def _number(key: str, factor: float, digits: int) -> Cell:
    def cell(row: Row, sign: str = "") -> str:
        return number_cell(row.mean.get(key), row.std.get(key), factor, digits, sign) if row.by_seed else NO_NUMBER

    return cell


def _ends(sizes: Sequence[str]) -> list[str]:
    """The first, a middle one and the last."""
    return [sizes[k] for k in sorted({0, len(sizes) // 2, len(sizes) - 1})] if sizes else []


def _sizes(rows: Iterable[Row]) -> list[str]:
    """M_val that some row has, ascending."""
    found = {key.removeprefix(AGGREGATE) for row in rows for key in row.mean if key.startswith(AGGREGATE)}
    return sorted(found, key=int)


def _seeds(row: Row) -> str:
    return str(len(row.seeds))
