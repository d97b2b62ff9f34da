"""Where in results.json the number is that a published value compares with, and what it was read from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seqjepa.paper.metrics import Direction, better
from seqjepa.paper.published import Published
from seqjepa.report.groups import at

CONTEXT_TOKENS = 126
RETRIEVAL = {"MRR": "mrr", "Hit@1": "h1", "Hit@5": "h5"}
REGRESSED = {
    "R2_rel_rot": "r2_rel_rot",
    "R2_indiv_rot": "r2_indiv_rot",
    "R2_color": "r2_hue",
    "R2_position": "r2_position",
    "R2_crop": "r2_crop",
    "R2_jitter": "r2_jitter",
    "R2_blur": "r2_blur",
}
ODD = {
    "seq-JEPA (z_AGG)": "agg",
    "seq-JEPA (z_AGG) w/ autoregressor fine-tuning": "agg_tuned",
}


@dataclass(frozen=True)
class Measure:
    """path: keys in results.json. minus: of what is subtracted. percent: a share there, percent in the paper.

    what   the features or views in words, for the protocol of a cell
    """

    path: tuple[str, ...]
    what: str
    percent: bool = False
    minus: tuple[str, ...] = ()

    def read(self, results: Mapping[str, Any]) -> float | None:
        """The number in the paper's unit; None where it was not measured or is not finite."""
        value = _number(at(results, *self.path))
        less = _number(at(results, *self.minus)) if self.minus else 0.0
        return None if value is None or less is None else (value - less) * self.scale

    def interval(self, results: Mapping[str, Any]) -> tuple[float, float] | None:
        """95 % bootstrap interval in the paper's unit; None without one, and for differences."""
        found = at(results, "intervals", *self.path)
        if self.minus or not isinstance(found, list | tuple) or len(found) != 2:
            return None
        low, high = map(_number, found)
        return None if low is None or high is None else (low * self.scale, high * self.scale)

    @property
    def better(self) -> Direction:
        return better(self.path)

    @property
    def scale(self) -> float:
        return 100.0 if self.percent else 1.0


def measure_of(row: Published) -> Measure:
    """The measure of a published value of a table, or of Figures 8 to 11. KeyError: no such metric."""
    if row.metric in REGRESSED:
        return _regressed(row)
    if row.metric in RETRIEVAL:
        context = "retrieval_3" if row.m_tr == 3 else "retrieval"
        what = f"context of {row.m_tr} views, targets by the EMA encoder" if row.m_tr else "val–val"
        return Measure((context, RETRIEVAL[row.metric]), what)
    return _OTHERS[row.metric](row)


def _regressed(row: Published) -> Measure:
    name = REGRESSED[row.metric]
    if row.method == "ContextSSL":
        path = ("in_context", "rotation", f"{name}_pool", str(CONTEXT_TOKENS))
        return Measure(path, f"z after {CONTEXT_TOKENS} tokens, R² pooled (SIE)")
    return Measure((f"{name}_avg",), "z, R² mean over dimensions (scikit-learn)")


def _accuracy(row: Published) -> Measure:
    if row.method == "seq-JEPA":
        return _aggregate(row)
    if row.method == "ContextSSL":
        path = ("in_context", "rotation", "top1_z", str(CONTEXT_TOKENS))
        return Measure(path, f"z after {CONTEXT_TOKENS} tokens", percent=True)
    return _encoder(row)


def _encoder(row: Published) -> Measure:
    """z of a stored view, and of whole images, un-augmented, elsewhere."""
    if row.dataset.startswith("3DIEBench"):
        return Measure(("top1_z",), "z", percent=True)
    return Measure(("top1_z_image",), "z of the whole image", percent=True)


def _aggregate(row: Published) -> Measure:
    m_val = measured_m_val(row)
    return Measure(("top1_agg", str(m_val)), f"z_AGG, M_val {m_val}", percent=True)


def measured_m_val(row: Published) -> int | None:
    """As printed, but for Table 3, whose "M_val = 4" is 5 by Table 12 and Figure 9 (docs/report.md)."""
    return 5 if row.source == "Table 3" and row.m_val == 4 else row.m_val


def _ood(row: Published) -> tuple[str, ...]:
    return ("top1_agg", str(row.m_val)) if row.method == "seq-JEPA" else ("top1_z",)


def _ood_accuracy(row: Published) -> Measure:
    return Measure(("ood", *_ood(row)), f"OOD rotations, ID probes, {_read_from(row)}", percent=True)


def _ood_drop(row: Published) -> Measure:
    what = f"OOD less ID, {_read_from(row)}"
    return Measure(("ood", *_ood(row)), what, percent=True, minus=_ood(row))


def _read_from(row: Published) -> str:
    return f"z_AGG, M_val {row.m_val}" if row.method == "seq-JEPA" else "z"


def _ood_regressed(row: Published) -> Measure:
    name = REGRESSED[row.metric.removesuffix("_ood")]
    return Measure(("ood", f"{name}_avg"), "OOD rotations, ID probes, z, R² mean over dimensions (scikit-learn)")


def _odd(row: Published) -> Measure:
    return Measure(("odd_one_out", ODD.get(row.variant, "z")), "protocol ours", percent=True)


def _macs(row: Published) -> Measure:
    return Measure(("costs", "macs_g", str(row.m_val or 1)), "counted, of one sample")


_OTHERS = {
    "top1_acc": _accuracy,
    "top1_acc_z_res": _encoder,
    "top1_acc_z_agg": _aggregate,
    "top1_acc_z_i": _encoder,
    "top1_acc_ood": _ood_accuracy,
    "top1_acc_drop_vs_id": _ood_drop,
    "R2_rel_rot_ood": _ood_regressed,
    "R2_indiv_rot_ood": _ood_regressed,
    "odd_one_out_acc": _odd,
    "A100_gpu_hours": lambda row: Measure(("costs", "gpu_hours"), "by the clock"),
    "encoder_only_GFLOPs": _macs,
    "post_aggregator_GFLOPs": _macs,
}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
