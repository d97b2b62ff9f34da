"""What a run costs: multiply–accumulates of a sample, parameters, hours of training (paper, Tables 5 and 6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from seqjepa.config import RunConfig
from seqjepa.evaluate.studies import EvalContext, Study
from seqjepa.methods import build_method
from seqjepa.methods.base import Aggregating
from seqjepa.methods.flops import encoder_macs, forward_macs
from seqjepa.training import metrics_log
from seqjepa.training.run_files import METRICS

QUATERNION = 4
"""Numbers of an action; as many as there are change the count by less than a millionth."""


def macs_by_size(ctx: EvalContext) -> dict[str, float]:
    """10⁹ multiply–accumulates of one sample by M: M views through the encoder, then the aggregator.

    Methods without an aggregate read one view: M = 1 alone.
    """
    method, action_size = ctx.loaded.method, ctx.loaded.data.action_size
    sizes = ctx.config.m_val if isinstance(method, Aggregating) else (1,)
    return {str(m): forward_macs(method, action_size, _view_shape(ctx), m) / 1e9 for m in sizes}


def macs_of_networks(config: RunConfig, pixels: int, m: int | None) -> float:
    """10⁹ multiply–accumulates of a run's networks on square views of `pixels` a side, whatever it was trained on.

    m: views, through the encoder and then the aggregator where there is one; None: one view through the encoder alone.
    """
    with torch.device("meta"):
        method = build_method(config, QUATERNION)
    shape = (pixels, pixels)
    return (encoder_macs(method, shape) if m is None else forward_macs(method, QUATERNION, shape, m)) / 1e9


def training_time(metrics: Path) -> dict[str, Any]:
    """Of the epochs in metrics.jsonl: "hours" by the clock, and "device" and "gpu_hours" where the file says them.

    An epoch that was interrupted counts from when it was resumed. Empty where there are no epochs.
    """
    epochs = metrics_log.read_epochs(metrics)
    hours = [float(str(line["seconds"])) / 3600 for line in epochs if "seconds" in line]
    if not hours:
        return {}
    devices = [str(line["device"]) for line in epochs if "device" in line]
    found: dict[str, Any] = {"hours": sum(hours)}
    if len(devices) == len(hours):
        counts = [int(str(line.get("devices", 1))) for line in epochs]
        found["device"] = ", ".join(dict.fromkeys(devices))
        if "cpu" not in devices:
            found["gpu_hours"] = sum(h * n for h, n in zip(hours, counts, strict=True))
    return found


def _view_shape(ctx: EvalContext) -> tuple[int, int]:
    """Height and width of what goes through the encoder, in pixels."""
    views, data = ctx.splits.views, ctx.loaded.data
    return (data.height, data.width) if views is None else (views.side, views.side)


def _take(ctx: EvalContext) -> dict[str, Any]:
    parameters = sum(p.numel() for p in ctx.loaded.method.parameters())
    took = training_time(ctx.run / METRICS) if ctx.run is not None and not ctx.config.untrained else {}
    return {"costs": {"parameters": parameters, "macs_g": macs_by_size(ctx), **took}}


def as_line(costs: Mapping[str, Any]) -> str:
    """What `costs` in results.json says, in one line: it is the same for trained and untrained weights."""
    parts = [f"{costs['parameters'] / 1e6:.2f} M parameters, averages included"] if "parameters" in costs else []
    if macs := costs.get("macs_g"):
        least, most = min(macs, key=int), max(macs, key=int)
        spread = f"{macs[least]:.3g}" if least == most else f"{macs[least]:.3g} to {macs[most]:.3g}"
        parts.append(f"{spread} GMAC a sample ({f'M = {least}' if least == most else f'M = {least} to {most}'})")
    if "hours" in costs:
        parts.append(f"{costs['hours']:.3g} h of training" + (f" ({costs['device']})" if "device" in costs else ""))
    return f"costs: {'; '.join(parts)}"


COSTS = Study("costs", why_not=lambda ctx: "", take=_take)
