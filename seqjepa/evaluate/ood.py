"""Rotations outside the range of training (paper §B.3, Table 9): the probes of the ID numbers, shown an OOD set.

Nothing is fitted to it: these are the very heads that gave the ID numbers, trained on the ID training bank. Where the
bench does not keep one, it is fitted as it was, with the same seed, which gives the same head.

A second set of shards, seen as the one that a run is evaluated on: which split, and the same classes by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import AUGMENTATION_PARTS, ROTATION_COLUMNS, actions_between
from seqjepa.evaluate import inputs
from seqjepa.evaluate.bootstrap import Resampling
from seqjepa.evaluate.encode import PixelStats, encode_views
from seqjepa.evaluate.features import Features
from seqjepa.evaluate.heads import StackedLinear, predict
from seqjepa.evaluate.probes import NO_SCORES, Scores, fit_and_score, nested, shown_and_wanted
from seqjepa.evaluate.splits import decoding_threads, statistics
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.evaluate.tasks import ProbeTask, accuracy_by_size, tasks_for
from seqjepa.methods.base import Aggregating, EncodesInContext, Method
from shards.errors import ConfigError
from shards.reader import ShardSet, SplitIndex
from shards.schema import ViewSpec

BY_SIZE = "top1_agg"
MEASURED = ("top1_z", BY_SIZE, "r2_rel_rot", "r2_indiv_rot")


def _why_no_ood(case: EvalContext) -> str:
    if not set(ROTATION_COLUMNS) <= set(case.banks.train.param_names):
        return "the samples have no rotations"
    if isinstance(case.loaded.method, EncodesInContext):
        return "its views are probed after a context"
    return "" if case.ood else "no OOD shards were named: --ood SHARDS"


def _ood_scores(case: EvalContext) -> dict[str, Any]:
    """Scores and intervals by the names of the ID numbers; `objects`: how many. ConfigError: see open_ood."""
    assert case.ood is not None, "asked for in why_not"
    stats = statistics(case.loaded, case.stored, case.banks.normalisation)
    bank = encode_ood(
        case.loaded.method, case.stored, case.ood, stats, case.bench.device,
        threads=decoding_threads(), progress=case.progress,
    )  # fmt: skip
    taken = NO_SCORES
    for measure in _measures(case, bank):
        taken = taken.joined(_scored(case, measure, bank))
    scores, intervals = nested(taken.last), nested(taken.intervals)
    return {"ood": {**scores, "objects": len(bank)}, **({"intervals": {"ood": intervals}} if intervals else {})}


def _measures(case: EvalContext, bank: Features) -> Iterator[ProbeTask]:
    """Those of the ID battery that OOD samples have views and labels for."""
    labelled = int(bank.labels.min()) >= 0
    for measure in tasks_for(case.subject, case.protocol.m_val, case.protocol.lengths)[0]:
        if measure.name not in MEASURED or not (labelled or measure.name.startswith("r2")):
            continue
        if measure.name == BY_SIZE:
            yield from _fewer_sizes(case, measure, bank.most_views)
        elif measure.views <= bank.most_views:
            yield measure


def _fewer_sizes(case: EvalContext, measure: ProbeTask, most_views: int) -> Iterator[ProbeTask]:
    """Top-1 on z_AGG for the sizes M that there are views for: 3DIEBench-OOD may have but two to four."""
    method = case.loaded.method
    assert isinstance(method, Aggregating), "or the battery would not have the measure"
    sizes = [m for m in case.protocol.m_val if m <= min(most_views, case.subject.most_views)]
    if sizes:
        shown = inputs.label_of_prefixes(method, case.subject.action, sizes)
        yield accuracy_by_size(BY_SIZE, shown, sizes, max(sizes), case.subject.classes, measure.epochs, measure.draws)


def _scored(case: EvalContext, measure: ProbeTask, bank: Features) -> Scores:
    bench = case.bench
    shown, wanted = shown_and_wanted(measure, bench, bank)
    if measure.name in (skipped := measure.constant(wanted)):
        return Scores({}, {}, {}, skipped)
    predicted = _predicted(_head(case, measure.name), shown)
    intervals = {}
    if bench.resampling is not None:
        resampling = Resampling.of(len(bank), bench.seed, bench.device)
        intervals = {name: resampling.interval(a) for name, a in measure.averaged(predicted, wanted).items()}
    return Scores(measure.score(predicted, wanted), {}, intervals)


def _predicted(head: nn.Module, shown: Tensor) -> Tensor:
    """A stacked head has a layer for each size M of the ID numbers; OOD samples may be shown in fewer [n, K, W]."""
    if not isinstance(head, StackedLinear):
        return predict(head, shown)
    sizes = shown.shape[1]
    return predict(head, F.pad(shown, (0, 0, 0, len(head.weight) - sizes)))[:, :sizes]


def _head(case: EvalContext, name: str) -> nn.Module:
    if name not in case.bench.heads:
        measures = tasks_for(case.subject, case.protocol.m_val, case.protocol.lengths)[0]
        fit_and_score(next(measure for measure in measures if measure.name == name), case.bench)
    return case.bench.heads[name]


def _rows() -> dict[str, str]:
    rows = {"ood.top1_z": "OOD: top-1, z", "ood.top1_agg": "OOD: top-1, z_AGG, M_val = {}"}
    for name, shown in (("rel_rot", "relative rotation"), ("indiv_rot", "individual rotation")):
        rows |= {
            f"ood.r2_{name}_avg": f"OOD: R² {shown}, avg",
            f"ood.r2_{name}_pool": f"OOD: R² {shown}, pooled",
            f"ood.{name}_deg": f"OOD: {shown}, mean error in degrees",
            f"ood.{name}_deg_median": f"OOD: {shown}, median error in degrees",
        }
    return rows


OOD = Study(name="ood", why_not=_why_no_ood, take=_ood_scores, rows=_rows())


SPLIT = "ood"


def open_ood(stored: ShardSet, ood: ShardSet, action: str = "rotation") -> SplitIndex:
    """The OOD split of `ood`: "ood", or the only one there is.

    ConfigError: views of another size than those of `stored`, no rotations or nothing that an `action` of the run is
    made of, no such split. Cheap; ask before encoding.
    """
    here, there = _rendered(stored), _rendered(ood)
    if (there.height, there.width) != (here.height, here.width):
        raise ConfigError(
            f"{ood.path} holds views of {there.height}×{there.width}, {stored.path} of {here.height}×{here.width}; "
            "build both at the same size"
        )
    index = ood.split(_split_of(ood))
    if absent := [name for name in ROTATION_COLUMNS if name not in index.param_names]:
        raise ConfigError(f"{ood.path} has no {', '.join(absent)}; --ood is a set of views whose rotations are known")
    if action not in AUGMENTATION_PARTS:
        actions_between(np.zeros((1, 2, len(index.param_names))), index.param_names, action)
    labels_by_name(index.labels, ood, stored)
    return index


def _rendered(stored: ShardSet) -> ViewSpec:
    spec = stored.info.spec
    if not isinstance(spec, ViewSpec):
        raise ConfigError(f"{stored.path} holds {spec.kind} shards; --ood compares two sets of rendered views")
    return spec


def _split_of(ood: ShardSet) -> str:
    names = ood.splits
    if SPLIT not in names and len(names) != 1:
        raise ConfigError(f"{ood.path} has the splits {', '.join(names)}; an OOD set has one, or one named {SPLIT!r}")
    return SPLIT if SPLIT in names else next(iter(names))


def labels_by_name(labels: np.ndarray, ood: ShardSet, stored: ShardSet) -> np.ndarray:
    """Labels int64 [S] of `ood`, numbered as in `stored`: the class of the same name. −1 (none) stays.

    ConfigError: a class with samples in `ood` that `stored` does not name.
    """
    names, known = ood.info.classes, {name: number for number, name in enumerate(stored.info.classes)}
    used = [names[label] if label < len(names) else f"number {label}" for label in np.unique(labels[labels >= 0])]
    if unknown := [name for name in used if name not in known]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ConfigError(
            f"{ood.path} has classes that {stored.path} has not ({', '.join(unknown[:3])}{more}); "
            "classes are matched by name: build both sets with the same names"
        )
    table = np.full(len(names) + 1, -1, np.int64)  # the last entry is where −1 points
    table[: len(names)] = [known.get(name, -1) for name in names]
    return table[labels]


def encode_ood(
    method: Method,
    stored: ShardSet,
    ood: ShardSet,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    threads: int,
    progress: bool,
) -> Features:
    """Every view of the OOD split through the same frozen encoder, labels numbered as in `stored`. Errors: open_ood."""
    index = open_ood(stored, ood)
    bank = encode_views(method, index, pixel_stats, device, threads=threads, progress=progress)
    labels = labels_by_name(np.asarray(index.labels, np.int64), ood, stored)
    return replace(bank, labels=torch.from_numpy(labels).to(bank.labels.device))
