"""What `seqjepa train` says on standard error while it trains: what is trained, how long it takes, a line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from tqdm import tqdm

from seqjepa.data.actions import action_name
from seqjepa.devices import device_name
from seqjepa.methods.base import Aggregating, Method
from seqjepa.methods.flops import forward_macs
from seqjepa.precision import training_precision
from seqjepa.training.data import TrainingData
from shards.machine.terminal import warn


def say_beside_bars(line: str) -> None:
    """Write a line to standard error above the progress bars that are there."""
    with tqdm.external_write_mode(file=sys.stderr):
        warn(line)


def summary(
    source: TrainingData, method: Method, device: torch.device, ranks: int, steps: int, epoch_steps: int, out: Any
) -> Iterator[str]:
    """What is about to be trained, in four lines. steps: of the whole run."""
    config, data = source.config, source.data
    made = f", patches of {data.height}×{data.width}" if data.fixating else ""
    made = made or (f", augmented by {data.augment}" if data.augment != "none" else "")
    height, width = (data.image_height or data.height), (data.image_width or data.width)
    action = f"action {action_name(config.data.action)} ({data.action_size})" if data.action_size else "no action"
    classes = f", {source.classes} classes" if source.classes else ""
    yield (
        f"data     {source.names['name']}, split {data.split}: {len(source.index):,} samples{classes}, "
        f"{height}×{width}{made}; M = {config.data.context}, {action}"
    )
    parameters = sum(p.numel() for p in method.parameters())
    learned = sum(p.numel() for p in method.parameters() if p.requires_grad)
    views = config.data.context if isinstance(method, Aggregating) else 1
    macs = forward_macs(method, data.action_size, (data.height, data.width), [views])[0]
    yield (
        f"method   {method.display_name or config.method} ({config.fidelity}), {config.model.backbone}: "
        f"{learned / 1e6:.3g} M parameters learn, {parameters / 1e6:.3g} M in all; {macs / 1e9:.3g} GMAC to represent "
        f"{'a sequence' if views > 1 else 'a view'}"
    )
    where = device_name(device)
    on = f"{ranks} × {where}" if ranks > 1 else where
    yield (
        f"training {config.optim.epochs:,} epochs of {epoch_steps:,} steps, batch {config.optim.batch_size}: "
        f"{steps:,} steps on {on} ({training_precision(config.train.precision, [where])})"
    )
    yield f"run      {out}"


def expected(left: int, seconds_a_step: float) -> str:
    """How long the rest of a run takes."""
    return f"about {duration(left * seconds_a_step)} for the {left:,} steps to go ({seconds_a_step:.3g} s a step)"


def epoch_line(line: Mapping[str, Any], epochs: int, seconds_left: float) -> str:
    """A line of metrics.jsonl for people: what is not in it is left out."""

    def pair(form: str, *names: str) -> str:
        return " / ".join(form.format(line[name]) for name in names if name in line)

    parts = [f"epoch {line['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {line['loss']:.4f}"]
    named = {
        "top-1": pair("{:.3f}", "probe_top1"),
        "R²": pair("{:.3f}", "probe_r2"),
        "k-NN": pair("{:.3f}", "z_knn", "agg_knn"),
        "RankMe": pair("{:.3g}", "z_rankme", "agg_rankme"),
        "τ": pair("{:.5g}", "tau"),
        "lr": pair("{:.2g}", "lr"),
    }
    parts += [f"{name} {said}" for name, said in named.items() if said]
    parts.append(f"{line['views_per_s']:,.0f} views/s")
    return "  ".join([*parts, f"{duration(seconds_left)} left"] if seconds_left else parts)


def duration(seconds: float) -> str:
    """In two units: "2 h 05 min", "3 min 20 s", "12 s", "4 d 03 h"."""
    whole = round(seconds)
    for unit, smaller, size, part in (("d", "h", 86400, 3600), ("h", "min", 3600, 60), ("min", "s", 60, 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part:02d} {smaller}"
    return f"{whole} s"
