"""Rotations outside the range of training (paper §B.3, Table 9): the probes of the ID numbers, shown an OOD set.

Nothing is fitted to it: these are the very heads that gave the ID numbers, trained on the ID training bank. Where the
bench does not keep one, it is fitted as it was, with the same seed, which gives the same head.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.actions import ROTATION_COLUMNS
from seqjepa.evaluate import inputs
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.banks import decoding_threads
from seqjepa.evaluate.battery import battery_for
from seqjepa.evaluate.fit_and_score import fit_and_score, shown_and_wanted
from seqjepa.evaluate.intervals import Resampling
from seqjepa.evaluate.measure import Measure, accuracy_by_size
from seqjepa.evaluate.ood_set import encode_ood
from seqjepa.evaluate.probes import StackedLinear, predict
from seqjepa.evaluate.seeing import statistics
from seqjepa.evaluate.study import Case, Study
from seqjepa.evaluate.taken import NOTHING, Taken, nested
from seqjepa.methods.base import Aggregating
from seqjepa.methods.context_ssl import ContextSSL

BY_SIZE = "top1_agg"
MEASURED = ("top1_z", BY_SIZE, "r2_rel_rot", "r2_indiv_rot")


def _why_not(case: Case) -> str:
    if not set(ROTATION_COLUMNS) <= set(case.banks.train.param_names):
        return "the samples have no rotations"
    if isinstance(case.loaded.method, ContextSSL):
        return "its views are probed after a context"
    return "" if case.ood else "no OOD shards were named: --ood SHARDS"


def _take(case: Case) -> dict[str, Any]:
    """Scores and intervals by the names of the ID numbers; `objects`: how many. ConfigError: see open_ood."""
    assert case.ood is not None, "asked for in why_not"
    stats = statistics(case.loaded, case.stored, case.banks.normalisation)
    bank = encode_ood(
        case.loaded.method, case.stored, case.ood, stats, case.bench.device,
        threads=decoding_threads(), progress=case.progress,
    )  # fmt: skip
    taken = NOTHING
    for measure in _measures(case, bank):
        taken = taken.joined(_scored(case, measure, bank))
    scores, intervals = nested(taken.last), nested(taken.intervals)
    return {"ood": {**scores, "objects": len(bank)}, **({"intervals": {"ood": intervals}} if intervals else {})}


def _measures(case: Case, bank: FeatureBank) -> Iterator[Measure]:
    """Those of the ID battery that OOD samples have views and labels for."""
    labelled = int(bank.labels.min()) >= 0
    for measure in battery_for(case.subject, case.protocol.m_val, case.protocol.lengths)[0]:
        if measure.name not in MEASURED or not (labelled or measure.name.startswith("r2")):
            continue
        if measure.name == BY_SIZE:
            yield from _fewer_sizes(case, measure, bank.most_views)
        elif measure.views <= bank.most_views:
            yield measure


def _fewer_sizes(case: Case, measure: Measure, most_views: int) -> Iterator[Measure]:
    """Top-1 on z_AGG for the sizes M that there are views for: 3DIEBench-OOD may have but two to four."""
    method = case.loaded.method
    assert isinstance(method, Aggregating), "or the battery would not have the measure"
    sizes = [m for m in case.protocol.m_val if m <= min(most_views, case.subject.most_views)]
    if sizes:
        shown = inputs.label_of_prefixes(method, case.subject.action, sizes)
        yield accuracy_by_size(BY_SIZE, shown, sizes, max(sizes), case.subject.classes, measure.epochs, measure.draws)


def _scored(case: Case, measure: Measure, bank: FeatureBank) -> Taken:
    bench = case.bench
    shown, wanted = shown_and_wanted(measure, bench, bank)
    if measure.name in (skipped := measure.constant(wanted)):
        return Taken({}, {}, {}, skipped)
    predicted = _predicted(_head(case, measure.name), shown)
    intervals = {}
    if bench.resampling is not None:
        resampling = Resampling.of(len(bank), bench.seed, bench.device)
        intervals = {name: resampling.interval(a) for name, a in measure.averaged(predicted, wanted).items()}
    return Taken(measure.score(predicted, wanted), {}, intervals)


def _predicted(head: nn.Module, shown: Tensor) -> Tensor:
    """A stacked head has a layer for each size M of the ID numbers; OOD samples may be shown in fewer [n, K, W]."""
    if not isinstance(head, StackedLinear):
        return predict(head, shown)
    sizes = shown.shape[1]
    return predict(head, F.pad(shown, (0, 0, 0, len(head.weight) - sizes)))[:, :sizes]


def _head(case: Case, name: str) -> nn.Module:
    if name not in case.bench.heads:
        measures = battery_for(case.subject, case.protocol.m_val, case.protocol.lengths)[0]
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


OOD = Study(name="ood", why_not=_why_not, take=_take, rows=_rows())
