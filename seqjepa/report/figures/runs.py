"""How training went, and accuracy class by class: figures of our runs that the paper does not have.

Training: loss, online probes and learning rate of each run, and whether its features stayed apart. Classes: what each
class is taken for, of the number that the overview shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from seqjepa.evaluate.protocol import differences
from seqjepa.evaluate.results import CONFUSION, artefacts_folder, differently_measured, load_arrays
from seqjepa.paper.metrics import ROWS
from seqjepa.report.figures.drawing import (
    CAPTIONS,
    INK,
    MOST_LINES,
    SERIES,
    Chart,
    Datum,
    Figure,
    Line,
    Panel,
    curve,
    draw,
    ends,
    figure_of,
    figure_of_charts,
    line_chart,
)
from seqjepa.report.fill_template import fill
from seqjepa.report.groups import Group, accuracy, by_data, method_name
from seqjepa.report.runs import RunRecord
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD
from shards.errors import FormatError

COLLAPSE = {
    "z_rank": "effective rank of z",
    "agg_rank": "effective rank of z_AGG",
    "z_std": "spread of z",
    "agg_std": "spread of z_AGG",
}
OVER_STEPS = {
    "R² relative, avg": ("r2_rel_rot_avg", "r2_position_avg", "r2_crop_avg", "r2_rel_term1_avg"),
    "top-1 of z": ("top1_z", "top1_z_image", "top1_z_view"),
}
"""Of weights on the way: the first of these numbers that is there."""
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


def checkpoint_curves(groups: Sequence[Group]) -> Figure:
    """Top-1 and R² of weights on the way over optimizer steps, by data: a line a run, from its untrained weights to its
    last, where they were measured alike."""
    charts = []
    for data, some in by_data(groups).items():
        for label, keys in OVER_STEPS.items():
            lines = [line for group in some for line in _lines_over_steps(group, keys)]
            pages = _pages(f"{label}, {data}", lines)
            charts += [Chart(title, page, "optimizer steps", label) for title, page in pages]
    return figure_of_charts("checkpoints", charts, missing=not charts)


def _lines_over_steps(group: Group, keys: Sequence[str]) -> Iterator[Line]:
    for run in group.runs:
        measured = dict(_over_steps(run))
        key = next((key for key in keys if any(key in found for found in measured.values())), None)
        points = {step: found[key] for step, found in sorted(measured.items()) if key in found} if key else {}
        if len(points) > 1:
            yield Line(group.label_of(run), [float(step) for step in points], list(points.values()))


def _over_steps(run: RunRecord) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(optimizer steps, numbers): of the weights on the way, and of those before and after that were measured alike."""
    kept = [(found.step, found.results) for found in run.on_the_way if found.step is not None]
    if not kept:
        return
    steps = {line.get("epoch"): line.get("step") for line in run.epochs}
    ends = ((0, run.untrained), (steps.get(run.protocol.get("trained_epochs")), run.trained))
    protocol = kept[-1][1].get("protocol", {})
    for step, found in (*ends, *kept):
        # Across runs: a run that was extended since has more epochs planned, which its earlier weights know nothing of.
        if step is not None and found and not differences(protocol, found.get("protocol", {}), across_runs=True):
            yield step, found


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
    runs = [(group.label_of(run), run) for group in groups for run in group.runs]
    lines = [line for name, run in runs if (line := curve(run.epochs, column, name))]
    for shown, some in _pages(title, lines):
        alt = f"{figure}, {shown}: {ends(some)}."
        yield Panel(shown, line_chart(some, x_label="epoch", y_label=y_label, alt=alt))


def _pages(title: str, lines: Sequence[Line]) -> Iterator[tuple[str, Sequence[Line]]]:
    """As many lines at a time as one chart can tell apart, under "title (1 of 3)"; of one chart, under its title."""
    pages = [lines[k : k + MOST_LINES] for k in range(0, len(lines), MOST_LINES)]
    for k, page in enumerate(pages, start=1):
        yield f"{title} ({k} of {len(pages)})" if len(pages) > 1 else title, page


TITLE = CAPTIONS["class-by-class"]["title"]
MOST_BARS = 60
MOST_NAMES = 60
"""Classes whose names fit beside a matrix."""
PLAIN = ("top1_z", "top1_z_image", "top1_z_view")
"""Where there is no aggregate: the first of these that is there."""


@dataclass(frozen=True)
class Confusion:
    """Of one number of a run. counts: int [C, C], true classes by predicted ones, or [2, C], samples and hits."""

    number: str
    names: list[str]
    counts: np.ndarray

    @property
    def totals(self) -> np.ndarray:
        return self.counts[0] if self.is_short else self.counts.sum(axis=1)

    @property
    def is_short(self) -> bool:
        return len(self.counts) != len(self.names)

    @property
    def accuracies(self) -> np.ndarray:
        """Percent [C]; NaN for classes without samples."""
        hits = self.counts[1] if self.is_short else self.counts.diagonal()
        return np.divide(100.0 * hits, self.totals, out=np.full(len(self.names), np.nan), where=self.totals > 0)

    def shares(self) -> np.ndarray:
        """Of classes with samples, percent of each that is taken for each of them or of the others: [seen, C]."""
        seen = self.totals > 0
        return 100.0 * self.counts[seen] / self.totals[seen, None]


def class_by_class(groups: Sequence[Group]) -> Figure:
    """A panel of accuracies and one of confusions for each kind of run, of its first seed that has them.

    Of several kinds each pair is closed behind its name, as a page of forty matrices is read by nobody.
    """
    drawn: list[list[Panel]] = []
    rows: list[tuple[Datum, ...]] = []
    for group in groups:
        for run in group.runs:
            if found := _confusion(run, _numbers_wanted(group)):
                before = _before(run, found)
                drawn.append(list(_class_panels(f"{group.label} on {group.data}", run, found, before)))
                rows += _class_rows(run, found, before)
                break
    panels = (
        drawn[0]
        if len(drawn) == 1
        else [Panel("", fill("closed_panels.html", panels=pair), wide=True) for pair in drawn]
    )
    return figure_of("class-by-class", panels, rows, missing=not panels)


def _numbers_wanted(group: Group) -> tuple[str, ...]:
    """Keys of the number that the overview shows, then of others that may stand for it."""
    found = accuracy(group)
    return (f"top1_agg.{found[0]}", *PLAIN) if found and found[0] is not None else PLAIN


def _confusion(run: RunRecord, numbers: Sequence[str], weights: str = "trained") -> Confusion | None:
    """The first of `numbers` that confusion.npz has; None without one. FormatError: it is not what evaluate writes."""
    folder = artefacts_folder(run.path, weights)
    arrays = load_arrays(folder, CONFUSION)
    number = next((key for key in numbers if key in arrays), None)
    if number is None:
        return None
    names, counts = arrays.get("class_names", np.array([])), arrays[number]
    shapes = ((len(names), len(names)), (2, len(names))) if names.ndim == 1 else ()
    if counts.shape not in shapes or counts.dtype.kind not in "iu" or (counts < 0).any():
        where = folder / f"{CONFUSION}.npz"
        raise FormatError(f"{where}: {number} is no confusion matrix of its classes; remove it and evaluate again")
    return Confusion(number, [str(name) for name in names], counts)


def _before(run: RunRecord, found: Confusion) -> np.ndarray | None:
    """Accuracies of the untrained weights, percent [C], where they were measured as `found` was."""
    if not run.untrained or differently_measured(dict(run.results), found.number):
        return None
    other = _confusion(run, (found.number,), "untrained")
    return other.accuracies if other and other.names == found.names else None


def _class_panels(kind: str, run: RunRecord, found: Confusion, before: np.ndarray | None) -> Iterator[Panel]:
    what = f"{kind} ({run.name}), {_number_label(found.number)}"
    order = [int(k) for k in np.argsort(found.accuracies, kind="stable") if found.totals[k] > 0]
    shown = order[:MOST_BARS]
    some = f", the {len(shown)} lowest of {len(order)} classes" if len(shown) < len(order) else ""
    ends = "; ".join(f"{found.names[k]} {found.accuracies[k]:.0f} %" for k in dict.fromkeys((order[0], order[-1])))
    size = (5.0, 1.0 + 0.2 * len(shown))
    drawing = draw(lambda axes: _bars(axes, found, before, shown), f"{TITLE}, {what}: {ends}.", size=size)
    yield Panel(f"{what}{some}", drawing)
    if not found.is_short:
        named = len(order) <= MOST_NAMES
        side = max(5.0, 2.4 + 0.16 * len(order)) if named else 6.0
        alt = f"{TITLE}, {what}: confusion matrix of {len(order)} classes."
        drawing = draw(lambda axes: _matrix(axes, found, named), alt, size=(side, side))
        yield Panel(f"{what}: confusions, percent", drawing, wide=len(order) > 25)


def _bars(axes: Axes, found: Confusion, before: np.ndarray | None, shown: Sequence[int]) -> None:
    """The lowest accuracy at the top."""
    places = np.arange(len(shown))
    axes.barh(places, found.accuracies[list(shown)], color=SERIES[0], height=0.6)
    if before is not None:
        axes.plot(before[list(shown)], places, "o", markersize=5, markerfacecolor="none", color=INK)
    axes.set_yticks(places, [_shortened(found.names[k]) for k in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1, %")
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def _matrix(axes: Axes, found: Confusion, named: bool) -> None:
    """Classes with samples alone, in both directions."""
    seen = np.flatnonzero(found.totals)
    drawn = axes.imshow(found.shares()[:, seen], cmap="cividis", vmin=0, vmax=100, interpolation="nearest")
    names = [_shortened(found.names[k]) for k in seen] if named else []
    size = 9 if len(names) <= 20 else 7
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.grid(visible=False)
    bar = axes.figure.colorbar(drawn, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]


def _class_rows(run: RunRecord, found: Confusion, before: np.ndarray | None) -> Iterator[tuple[Datum, ...]]:
    for k in np.flatnonzero(found.totals).tolist():
        untrained = None if before is None or np.isnan(before[k]) else float(before[k])
        counted = (int(found.totals[k]), float(found.accuracies[k]), untrained)
        yield (run.name, _number_label(found.number), found.names[k], *counted, *_mistaken(found, k))


def _mistaken(found: Confusion, k: int) -> tuple[str | None, float | None]:
    """The other class that class `k` is most often taken for, and in percent of it; None, None if never."""
    if found.is_short:
        return None, None
    others = found.counts[k].copy()
    others[k] = 0
    most = int(others.argmax())
    return (found.names[most], 100.0 * int(others[most]) / int(found.totals[k])) if others[most] else (None, None)


def _number_label(number: str) -> str:
    """ "top-1, z_AGG, M_val = 5"."""
    name, _, size = number.partition(".")
    return ROWS[name].format(size)


def _shortened(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"
