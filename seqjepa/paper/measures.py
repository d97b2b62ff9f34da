"""Which number of results.json a published value compares with, and what it is read from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqjepa.paper.metrics import METRICS, NAMED, Direction, better, metric_of
from seqjepa.paper.published import Published

CONTEXT_TOKENS = 126
"""Of ContextSSL's numbers in the tables."""
ODD_ONE_OUT = {"seq-JEPA (z_AGG)": "agg", "seq-JEPA (z_AGG) w/ autoregressor fine-tuning": "agg_tuned"}
"""Numbers of odd_one_out by the poster's variants; of all others "z"."""


@dataclass(frozen=True)
class Measure:
    """A number of results.json in the unit of the paper.

    key    in results.json, with a dot for each level
    what   the features or views in words, for the protocol of a cell
    minus  key of a number that is subtracted; "" for none
    """

    key: str
    what: str
    minus: str = ""

    def read(self, results: Mapping[str, Any]) -> float | None:
        """The number in the paper's unit; None where it was not measured or is not finite."""
        value = _finite(value_at(results, self.key))
        less = _finite(value_at(results, self.minus)) if self.minus else 0.0
        return None if value is None or less is None else (value - less) * self.factor

    def interval(self, results: Mapping[str, Any]) -> tuple[float, float] | None:
        """95 % bootstrap interval in the paper's unit; None without one, and for differences."""
        found = value_at(results, f"intervals.{self.key}")
        if self.minus or not isinstance(found, list | tuple) or len(found) != 2:
            return None
        low, high = map(_finite, found)
        return None if low is None or high is None else (low * self.factor, high * self.factor)

    @property
    def better(self) -> Direction:
        return better(self.key)

    @property
    def percent(self) -> bool:
        """Whether it is a fraction in results.json and percent in the paper."""
        metric = metric_of(self.key)
        return metric is not None and metric.scale.unit == "%"

    @property
    def factor(self) -> float:
        return 100.0 if self.percent else 1.0

    @property
    def is_cost(self) -> bool:
        return self.key.startswith("costs.")


def measure_of(row: Published) -> Measure:
    """The measure of a published value of a table, or of Figures 8 to 11. KeyError: no such metric."""
    if row.metric in NAMED:
        return _named(row)
    return _OTHERS[row.metric](row)


def value_at(results: Mapping[str, Any], key: str) -> Any:
    """What lies under a dotted key; None where there is nothing."""
    value: Any = results
    for level in key.split("."):
        value = value.get(level) if isinstance(value, Mapping) else None
    return value


def _named(row: Published) -> Measure:
    """R² and retrieval."""
    metric = NAMED[row.metric]
    if row.metric in ("MRR", "Hit@1", "Hit@5"):
        key = metric.key.replace("retrieval.", "retrieval_3.") if row.m_tr == 3 else metric.key
        return Measure(key, f"context of {row.m_tr} views, targets by the EMA encoder" if row.m_tr else "val–val")
    if row.method == "ContextSSL":
        key = f"in_context.rotation.{metric.key.removesuffix('avg')}pool.{CONTEXT_TOKENS}"
        return Measure(key, f"z after {CONTEXT_TOKENS} tokens, R² pooled (SIE)")
    return Measure(metric.key, metric.features)


def _accuracy(row: Published) -> Measure:
    if row.method == "seq-JEPA":
        return _of_aggregate(row)
    if row.method == "ContextSSL":
        return Measure(f"in_context.rotation.top1_z.{CONTEXT_TOKENS}", f"z after {CONTEXT_TOKENS} tokens")
    return _of_encoder(row)


def _of_encoder(row: Published) -> Measure:
    """z of a stored view, and of whole images, un-augmented, elsewhere."""
    metric = METRICS["top1_z" if row.dataset.startswith("3DIEBench") else "top1_z_image"]
    return Measure(metric.key, metric.features)


def _of_aggregate(row: Published) -> Measure:
    """At the printed M_val, but for Table 3, whose "M_val = 4" is 5 by Table 12 and Figure 9 (docs/report.md)."""
    m_val = 5 if row.source == "Table 3" and row.m_val == 4 else row.m_val
    return Measure(f"top1_agg.{m_val}", METRICS["top1_agg"].features.format(m_val))


def _out_of_distribution(row: Published) -> Measure:
    if row.metric.startswith("R2"):
        metric = NAMED[row.metric.removesuffix("_ood")]
        return Measure(f"ood.{metric.key}", f"OOD rotations, ID probes, {metric.features}")
    known = _of_aggregate(row) if row.method == "seq-JEPA" else _of_encoder(row)
    if row.metric == "top1_acc_drop_vs_id":
        return Measure(f"ood.{known.key}", f"OOD less ID, {known.what}", minus=known.key)
    return Measure(f"ood.{known.key}", f"OOD rotations, ID probes, {known.what}")


def _macs(row: Published) -> Measure:
    return Measure(f"costs.macs_g.{row.m_val or 1}", "counted, of one sample")


_OTHERS = {
    "top1_acc": _accuracy,
    "top1_acc_z_res": _of_encoder,
    "top1_acc_z_agg": _of_aggregate,
    "top1_acc_z_i": _of_encoder,
    "top1_acc_ood": _out_of_distribution,
    "top1_acc_drop_vs_id": _out_of_distribution,
    "R2_rel_rot_ood": _out_of_distribution,
    "R2_indiv_rot_ood": _out_of_distribution,
    "odd_one_out_acc": lambda row: Measure(f"odd_one_out.{ODD_ONE_OUT.get(row.variant, 'z')}", "protocol ours"),
    "A100_gpu_hours": lambda _: Measure("costs.gpu_hours", "by the clock"),
    "encoder_only_GFLOPs": _macs,
    "post_aggregator_GFLOPs": _macs,
}


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
