"""Whether to trust the numbers of a run: what speaks against it, the grave things first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from seqjepa.data.known_sets import PAPER_SAMPLES
from seqjepa.evaluate.results import differently_measured, few_objects
from seqjepa.report.details import standardised
from seqjepa.report.groups import RESOLUTION, Group, at, resolution
from seqjepa.report.match import trained_samples
from seqjepa.report.runs import RunRecord
from seqjepa.training.monitor import COLLAPSED_RANK, COLLAPSED_STD

PAPER_EPOCHS = {"3DIEBench": 1000, "CIFAR100": 2000, "TinyImageNet": 2000, "STL-10": 2000}
FEATURES = {"z": "z", "agg": "z_AGG"}


@dataclass(frozen=True)
class RunWarning:
    """grave: the numbers mean nothing, or there are none; else they mean less than the paper's."""

    text: str
    grave: bool = False


def warnings_of(group: Group) -> list[RunWarning]:
    """Of all runs of a group, each once, grave ones first."""
    found = [doubt for run in group.runs for doubt in _run_warnings(run, several=len(group.runs) > 1)]
    return sorted(dict.fromkeys(found), key=lambda doubt: not doubt.grave)


def at_scale(record: RunRecord) -> bool:
    """Whether a run has the paper's data, resolution and epochs."""
    return not list(_smaller(record))


def _run_warnings(record: RunRecord, several: bool) -> Iterator[RunWarning]:
    who = f"seed {record.config.seed}: " if several else ""
    yield from (RunWarning(f"{who}{text}", grave=True) for text in _grave(record))
    yield from (RunWarning(text) for text in _smaller(record))
    if skipped := record.protocol.get("skipped"):
        yield RunWarning(f"not measured: {len(skipped)}, listed with the run")
    yield from _measured_unlike_the_papers(record)
    if record.config.fidelity != "paper":
        yield RunWarning(f"fidelity {record.config.fidelity}, not the paper’s text")


def _measured_unlike_the_papers(record: RunRecord) -> Iterator[RunWarning]:
    """Numbers by a regressor that is not the paper's, and few objects."""
    if standardised(record.trained):
        yield RunWarning("R² by linear regressors on standardised features, which the paper’s are not (§A.2)")
    if said := few_objects(dict(record.protocol)):
        yield RunWarning(said)


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
        trained, before = record.trained.get(key), at(record.results, "untrained", key)
        if isinstance(trained, int | float) and isinstance(before, int | float) and trained <= before:
            yield f"top-1 of z is no better than before training ({trained:.1%} against {before:.1%})"


def _smaller(record: RunRecord) -> Iterator[str]:
    """In what a run is not at the paper's scale."""
    if not record.paper_set:
        yield f"other data: {resolution(record)} px, {record.epochs_done} epochs, {trained_samples(record):,} samples"
        return
    wanted = RESOLUTION[record.paper_set], PAPER_EPOCHS[record.paper_set], PAPER_SAMPLES[record.paper_set]
    has = resolution(record), record.epochs_done, trained_samples(record)
    for mine, paper, unit in zip(has, wanted, ("px", "epochs", "training samples"), strict=True):
        if mine and mine < paper:
            yield f"{mine:,} {unit} (paper {paper:,})"
