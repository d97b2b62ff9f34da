"""The first thing a reader sees: where each kind of run stands against the paper, and whether to trust it.

Warnings are what speaks against a run's numbers: grave ones first, then in what they are not measured as the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqjepa.evaluate.protocol import LINEARLY_REGRESSED
from seqjepa.evaluate.results import differently_measured, few_objects, few_steps, keyed_rows, regressors_of
from seqjepa.paper.measures import measure_of, value_at
from seqjepa.paper.metrics import NAMED, better, declared_metric, judged
from seqjepa.paper.published import Published, published
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.report.cells import Cell, beside_published, of_runs, signed, some_of
from seqjepa.report.groups import TABLES_M_VAL, Group, Mean, accuracy, by_data, resolution
from seqjepa.report.match import is_on_set_of, is_row_of, trained_samples
from seqjepa.report.runs import RunRecord
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD
from shards.errors import few

SOURCES = ("Table 1", "Table 11", "Table 7", "Table 8", "Table 4", "Table 2", "Table 3", "Table 12")
SOURCES += ("Figure 8", "Figure 9", "Figure 10", "Figure 11", "Figure 7-left", "Poster STL10", "Poster STL10-ablation")
"""Where a run's headline numbers are looked for, in this order."""
SHOWN_WORSE = 3
VERDICTS = {"yes": ("✓", "sound"), "with limits": ("△", "limited"), "no": ("✕", "grave")}
"""Whether to trust a run: its sign, and the class of its style."""
ACCURACY = ("top1_acc", "top1_acc_z_agg")
EQUIVARIANCE = ("R2_rel_rot", "R2_position", "R2_crop", "R2_jitter", "R2_blur")
FEATURES = {"z": "z", "agg": "z_AGG"}
FIRST = ("top1_", "r2_", "rel_", "indiv_")
"""Beginnings of the keys of what single views, aggregates and pairs tell, but for paths."""


@dataclass(frozen=True)
class Headline:
    """A number of a run with the paper's. comparable: whether it was measured on the paper's own data."""

    cell: Cell
    row: Published
    comparable: bool


@dataclass(frozen=True)
class Compared:
    """Three cells of a row: ours with what is below it, the paper's, the difference; as text, "" for none.

    verdict  "better" or "worse" of the difference
    """

    ours: str
    spread: str = ""
    untrained: str = ""
    paper: str = ""
    comparable: bool = False
    difference: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class OverviewRow:
    """A kind of run. measured: what its numbers were read from, and where they stand in the paper.

    worse: names of numbers that were clearly better before training, in words; "" for none
    """

    group: Group
    trust: str
    top1: Compared
    r2: Compared
    measured: list[str]
    worse: str
    warnings: list[RunWarning]

    @property
    def sign(self) -> str:
        return VERDICTS[self.trust][0]

    @property
    def style(self) -> str:
        return VERDICTS[self.trust][1]


def headline(group: Group, metrics: Iterable[str]) -> Headline | None:
    """Of the first table that has the run: the value at the largest M_val that was measured; None if there is none."""
    wanted = tuple(metrics)
    run = group.runs[0]
    for source in SOURCES:
        rows = [r for r in published() if r.source == source and r.metric in wanted and is_row_of(run, r)]
        found = [row for row in rows if group.measured(measure_of(row))]
        if found:
            row = max(found, key=_preference)
            comparable, measure = is_on_set_of(run, row), measure_of(row)
            cell = beside_published(row, group) if comparable else of_runs(group.measured(measure), measure)
            return Headline(cell, row, comparable)
    return None


def _preference(row: Published) -> tuple[int, int]:
    """Largest M_val, but 5 before all larger ones: what the paper's tables are about."""
    m_val = row.m_val or 0
    return (
        -EQUIVARIANCE.index(row.metric) if row.metric in EQUIVARIANCE else 0,
        m_val if m_val <= TABLES_M_VAL else -m_val,
    )


def counts(groups: Sequence[Group]) -> dict[str, int]:
    """What there is, in numbers."""
    runs = [run for group in groups for run in group.runs]
    papers = [run for run in runs if not run.is_own]
    return {
        "runs": len(runs),
        "kinds of run": len(groups),
        "evaluated": sum(bool(run.trained) for run in runs),
        **({"runs at the paper’s scale": sum(at_scale(run) for run in papers)} if papers else {}),
        "kinds not to be trusted": sum(any(w.grave for w in warnings_of(group)) for group in groups),
    }


def rows_by_data(groups: Sequence[Group]) -> Mapping[str, list[OverviewRow]]:
    """A row for each kind of run under the name of its data, the paper's own sets first."""
    by_home = sorted(by_data(groups).items(), key=lambda item: not item[1][0].home)
    return {_data_title(data, found): [_row(group) for group in found] for data, found in by_home}


def _data_title(data: str, groups: Sequence[Group]) -> str:
    evaluated = [run for group in groups for run in group.runs if run.trained and not run.is_own]
    foreign = bool(evaluated) and not any(run.paper_set for run in evaluated)
    return f"{data} – not a data set of the paper; no difference is meaningful" if foreign else data


def _row(group: Group) -> OverviewRow:
    top1, r2 = headline(group, ACCURACY), headline(group, EQUIVARIANCE)
    found = warnings_of(group)
    worse = list(dict.fromkeys(name for run in group.runs for name in clearly_lost(run.results)))
    trust = "no" if any(warning.grave for warning in found) else "with limits" if found else "yes"
    return OverviewRow(
        group,
        trust,
        _with_papers(top1, 1) if top1 else _alone(*_own_top1(group), 1),
        _with_papers(r2, 2) if r2 else _alone(*_own_r2(group), 2),
        _measured(group, top1, r2),
        f"worse than untrained: {few(worse, SHOWN_WORSE, '; ')}" if worse else "",
        found,
    )


def _with_papers(found: Headline, digits: int) -> Compared:
    cell = found.cell
    spread = "" if cell.std is None else f"± {cell.std:.{digits}f}"
    if cell.std is None and cell.low is not None and cell.high is not None:
        spread = f"[{signed(cell.low, digits)}, {signed(cell.high, digits)}]"
    return Compared(
        ours=signed(cell.ours, digits),
        spread=spread,
        untrained="" if cell.floor is None else signed(cell.floor, digits) + some_of(cell.floored, cell.seeds),
        paper=signed(found.row.value, digits),
        comparable=found.comparable,
        difference=signed(cell.difference, digits, "+"),
        verdict=judged(cell.difference, measure_of(found.row).better),
    )


def _alone(own: Mean | None, before: Mean | None, digits: int) -> Compared:
    """A number of which the paper has none. before: that of the untrained weights."""
    if own is None:
        return Compared("")
    spread = "" if own.std is None else f"± {own.std:.{digits}f}"
    untrained = signed(before.value, digits) + some_of(before.seeds, own.seeds) if before else ""
    return Compared(signed(own.value, digits), spread, untrained)


def _own_top1(group: Group) -> tuple[Mean | None, Mean | None]:
    """Of a group that is in no table, trained and untrained, percent."""
    found, before = accuracy(group), accuracy(group, "untrained")
    key = f"top1_agg.{found[0]}" if found and found[0] is not None else "top1_z"
    alike = found and before and found[0] == before[0] and _measured_alike(group, key)
    return found[1].times(100) if found else None, before[1].times(100) if before and alike else None


def _own_r2(group: Group) -> tuple[Mean | None, Mean | None]:
    """Of what the run's kind of data is about, trained and untrained."""
    for key in (_declared_r2(group),) if group.is_own else (NAMED[metric].key for metric in EQUIVARIANCE):
        if found := group.mean(key):
            return found, group.mean(key, "untrained") if _measured_alike(group, key) else None
    return None, None


def _declared_r2(group: Group) -> str:
    """Key of the R² that stands for own data: of the first term of its action that has one, else of its columns."""
    found = [key for key in group.runs[0].trained if key.startswith(("r2_rel_", "r2_indiv_")) and key.endswith("_avg")]
    return next((key for key in found if key.startswith("r2_rel_")), found[0] if found else "r2")


def _measured_alike(group: Group, key: str) -> bool:
    return not any(differently_measured(dict(run.results), key) for run in group.runs)


def _measured(group: Group, *found: Headline | None) -> list[str]:
    """Which features, and which value of the paper: the whole protocol is in the tables."""
    if not any(run.trained for run in group.runs):
        return ["not measured yet"]
    if group.is_own:
        metric = declared_metric(_declared_r2(group), group.runs[0].protocol.get("targets"))
        return [metric.label] if metric else []
    return [f"{measure_of(h.row).what} ({h.row.source})" for h in found if h] or ["no row of the paper’s"]


@dataclass(frozen=True)
class RunWarning:
    """grave: the numbers mean nothing, or there are none; else they mean less than the paper's."""

    text: str
    grave: bool = False


def warnings_of(group: Group) -> list[RunWarning]:
    """Of all runs of a group, each once, grave ones first."""
    found = [warning for run in group.runs for warning in _run_warnings(run, several=len(group.runs) > 1)]
    return sorted(dict.fromkeys(found), key=lambda warning: not warning.grave)


def at_scale(record: RunRecord) -> bool:
    """Whether a run has the paper's data, resolution and epochs."""
    return not list(_smaller_than_the_papers(record))


def standardised(scores: Mapping[str, Any]) -> list[str]:
    """Keys of the numbers of one side of results.json that linear regressors on standardised features gave: of
    positions also those of paths. The paper's regressors see features as they are (§A.2)."""
    protocol = scores.get("protocol", {})
    if regressors_of(protocol) == "plain":
        return []
    names = (*LINEARLY_REGRESSED, *(("r2_path",) if "position" in protocol.get("probe_epochs", {}) else ()))
    keys = (key for key, _, _ in keyed_rows({"trained": scores}))
    return [key for key in keys if any(part.startswith(names) for part in key.split("."))]


def lost_to_untrained(results: Mapping[str, Any]) -> dict[str, str]:
    """Keys and labels of the numbers that were better before training, where both were measured alike."""
    rows = keyed_rows(dict(results))
    return {key: name for key, name, (_, _, gain) in rows if judged(gain, better(key)) == "worse"}


def clearly_lost(results: Mapping[str, Any]) -> list[str]:
    """Labels of those that are `is_first` and whose interval, where they have one, leaves out the untrained number."""
    return [
        name
        for key, name in lost_to_untrained(results).items()
        if is_first(key)
        and not _holds(value_at(results, f"trained.intervals.{key}"), value_at(results, f"untrained.{key}"))
    ]


def is_first(key: str) -> bool:
    """Whether a number is of those that a reader looks for first: of single views, aggregates and pairs."""
    return key.startswith(FIRST) and not key.startswith("r2_path")


def _holds(interval: Any, value: float) -> bool:
    return isinstance(interval, list) and len(interval) == 2 and interval[0] <= value <= interval[1]


def _run_warnings(record: RunRecord, several: bool) -> Iterator[RunWarning]:
    who = f"seed {record.config.seed}: " if several else ""
    yield from (RunWarning(f"{who}{text}", grave=True) for text in _grave(record))
    if not record.is_own:
        yield from map(RunWarning, _smaller_than_the_papers(record))
    if skipped := record.protocol.get("skipped"):
        yield RunWarning(f"not measured: {len(skipped)}, listed with the run")
    if standardised(record.trained):
        yield RunWarning("R² by linear regressors on standardised features, which the paper’s are not (§A.2)")
    scarce = (few_objects(dict(record.protocol)), few_steps(dict(record.protocol)))
    yield from (RunWarning(text) for text in scarce if text)
    if record.config.fidelity != "paper":
        yield RunWarning(f"fidelity {record.config.fidelity}, not the paper’s text")


def _grave(record: RunRecord) -> Iterator[str]:
    if record.trained and record.epochs_measured < record.epochs_done:
        yield f"evaluated at epoch {record.epochs_measured:g} of {record.epochs_done}; evaluate again"
    if record.epochs and len(record.epochs) < record.config.optim.epochs:
        yield f"training stopped at epoch {len(record.epochs)} of {record.config.optim.epochs}"
    yield from _collapsed(record)
    if not record.trained:
        yield "not evaluated"
    yield from _learned_nothing(record)


def _collapsed(record: RunRecord) -> Iterator[str]:
    """By the last epoch of the log."""
    last = record.epochs[-1] if record.epochs else {}
    for key, shown in FEATURES.items():
        rank, std = last.get(f"{key}_rank"), last.get(f"{key}_std")
        if isinstance(std, float) and std < COLLAPSED_STD:
            yield f"{shown} has collapsed: spread {std:.4f}"
        elif isinstance(rank, float) and rank < COLLAPSED_RANK:
            yield f"{shown} has collapsed: effective rank {rank:.2f}"


def _learned_nothing(record: RunRecord) -> Iterator[str]:
    """No better than the same network before training, where that was measured."""
    for key in ("top1_z", "top1_z_image"):
        if "protocol" in record.untrained and differently_measured(dict(record.results), key):
            continue
        trained, before = record.trained.get(key), record.untrained.get(key)
        if isinstance(trained, int | float) and isinstance(before, int | float) and trained <= before:
            yield f"top-1 of z is no better than before training ({trained:.1%} against {before:.1%})"


def _smaller_than_the_papers(record: RunRecord) -> Iterator[str]:
    if not record.paper_set:
        yield f"other data: {resolution(record)} px, {record.epochs_done} epochs, {trained_samples(record):,} samples"
        return
    known = SETS_BY_NAME[record.paper_set]
    wanted = known.resolution, known.epochs, known.samples
    has = resolution(record), record.epochs_done, trained_samples(record)
    for mine, paper, unit in zip(has, wanted, ("px", "epochs", "training samples"), strict=True):
        if mine and mine < paper:
            yield f"{mine:,} {unit} (paper {paper:,})"
