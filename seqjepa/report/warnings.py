"""What speaks against the numbers of a run: grave warnings first, then in what they are not measured as the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seqjepa.evaluate.protocol import LINEARLY_REGRESSED
from seqjepa.evaluate.results import differently_measured, few_objects, keyed_rows, regressors_of
from seqjepa.paper.measures import value_at
from seqjepa.paper.metrics import better, judged
from seqjepa.paper.sets import SETS_BY_NAME
from seqjepa.report.groups import Group, resolution
from seqjepa.report.match import trained_samples
from seqjepa.report.runs import RunRecord
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD

FEATURES = {"z": "z", "agg": "z_AGG"}
FIRST = ("top1_", "r2_", "rel_", "indiv_")
"""Beginnings of the keys of what single views, aggregates and pairs tell, but for paths."""


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
    if few := few_objects(dict(record.protocol)):
        yield RunWarning(few)
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
