"""Everything that watches a run and changes nothing of it: the bar and lines on the terminal, loggers, pictures.

Rank 0 watches; on the others nothing happens. What goes wrong here is said once and left out from then on.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from tqdm import tqdm

from seqjepa import recipes
from seqjepa.data.actions import action_name
from seqjepa.data.sequence import VECTORS, ViewSequence
from seqjepa.devices import device_name
from seqjepa.methods.base import Aggregating, Method
from seqjepa.methods.flops import forward_macs
from seqjepa.precision import training_precision
from seqjepa.training import metrics_log, run_files
from seqjepa.training.data import TrainingData
from seqjepa.training.distributed import World
from seqjepa.training.loggers import Status
from seqjepa.training.loggers.process import Loggers, Say
from seqjepa.training.representation import EncodedSample, RepresentationMonitor
from seqjepa.training.stopping import Interrupted
from shards.errors import reason_of
from shards.machine.files import write_atomic
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


PICTURES = "pictures"
TIMED_STEPS = 100
"""After so many steps, or an epoch, the time that is left is told; the first few of them are not counted."""
logger = logging.getLogger(__name__)


class Watch:
    """Enter it around the steps of a run. say: hears lines for people; None: nothing is said but warnings."""

    def __init__(
        self,
        source: TrainingData,
        shards: Path,
        out: Path,
        world: World,
        device: torch.device,
        epoch_steps: int,
        say: Say | None,
        progress: bool,
    ) -> None:
        self.source, self.config, self.shards, self.out = source, source.config, shards, out
        self.world, self.device, self.epoch_steps = world, device, epoch_steps
        self.total_steps = epoch_steps * self.config.optim.epochs
        self._say = say if world.main else None
        self._progress = progress and world.main
        names = dict.fromkeys(self.config.train.loggers if world.main else ())
        self._loggers = Loggers(tuple(names), self._say or (lambda line: None))
        self._monitor: RepresentationMonitor | None = None
        self._off: set[str] = set()

    def begin(self, step: int, method: Method) -> Self:
        """Say what is trained from `step` on, and open the loggers: they get what metrics.jsonl holds already."""
        self._first, self._last = step, step
        if self._say and step < self.total_steps:
            self._summarise(self._say, step, method)
        if self._loggers:
            self._loggers.start(self.out, recipes.flatten(self.config.model_dump(mode="json")), step)
            for line in metrics_log.read_epochs(self.out / run_files.METRICS):
                self._loggers.scalars(line)
        self._bar = tqdm(
            total=self.total_steps,
            initial=step,
            desc=self.config.name,
            unit="step",
            smoothing=0.05,
            disable=None if self._progress else True,
        )
        self._timed = (step, time.monotonic())
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.close()
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        status: Status = "finished" if error is None else "interrupted" if stopped else "failed"
        self._loggers.finish(status)

    def step(self, step: int, seq: ViewSequence) -> None:
        """After each step, which was of `seq`. Steps count from 1 here."""
        self._last = step
        self._bar.update()
        if step == 1 and self._pictures and seq.views.ndim > VECTORS + 1:  # features are no pictures
            sheet_of = (seq, self.source.data, self.config.data.action, self.config.name)
            self._draw("sequences", lambda pictures: pictures.sequence_sheet(*sheet_of))
        done = step - self._first
        if done == min(10, self.epoch_steps // 2):  # what is slow at first is over
            self._timed = (step, time.monotonic())
        if self._say and done == min(TIMED_STEPS, self.epoch_steps) and step < self.total_steps:
            self._say(f"         {expected(self.total_steps - step, self._seconds_a_step())}")

    def measure(self, epoch: int, method: Method) -> tuple[dict[str, float], EncodedSample | None]:
        """k-NN and RankMe, in the epochs that train.monitor_epochs names."""
        every = self.config.train.monitor_epochs
        if not every or epoch % every or not self.world.main or "k-NN and RankMe" in self._off:
            return {}, None
        try:
            began = time.monotonic()
            self._monitor = self._monitor or RepresentationMonitor(self.shards, self.source, self.device)
            found, sample = self._monitor.measure(method)
            return {**found, "monitor_seconds": round(time.monotonic() - began, 3)}, sample
        except Exception as error:  # a damaged shard, no memory left
            self._switch_off("k-NN and RankMe", error)
            return {}, None

    def epoch(self, line: Mapping[str, Any], sample: EncodedSample | None) -> None:
        """After each epoch: its line of metrics.jsonl, and the features that were measured in it."""
        self._loggers.scalars(line)
        if self._pictures and line["epoch"] % self.config.train.picture_epochs == 0:
            metrics = self.out / run_files.METRICS
            self._draw("curves", lambda pictures: pictures.curves(metrics_log.read_epochs(metrics)))
            if sample is not None:
                self._draw("features", lambda pictures: pictures.map_of_features(sample))
        self._bar.set_postfix(epoch=line["epoch"], loss=f"{line['loss']:.4f}")
        if self._say:
            left = (self.total_steps - self._last) * self._seconds_a_step()
            self._say(epoch_line(line, self.config.optim.epochs, left))
        else:
            logger.info("%s", line)

    def _summarise(self, say: Say, step: int, method: Method) -> None:
        about = (self.source, method, self.device, self.world.size, self.total_steps, self.epoch_steps, self.out)
        try:
            for line in summary(*about):
                say(line)
        except Exception as error:  # a network whose operations cannot be counted
            self._switch_off("the summary", error)
        if step:
            say(f"         going on from step {step:,}")

    @property
    def _pictures(self) -> bool:
        return bool(self._loggers and self.config.train.picture_epochs and PICTURES not in self._off)

    def _draw(self, name: str, draw: Callable[[Any], bytes]) -> None:
        """draw: makes a PNG with the module `pictures`."""
        try:
            from seqjepa.training import pictures  # here: runs without loggers have no use for matplotlib

            path = self.out / PICTURES / f"{name}-{self._last:06d}.png"
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, draw(pictures))
        except Exception as error:  # whatever matplotlib, a font or the disk has
            self._switch_off(PICTURES, error)
        else:
            self._loggers.picture(name, self._last, path)

    def _switch_off(self, what: str, error: BaseException) -> None:
        self._off.add(what)
        logger.warning("%s: left out from now on: %s: %s", what, type(error).__name__, reason_of(error))

    def _seconds_a_step(self) -> float:
        first, began = self._timed
        return (time.monotonic() - began) / max(1, self._last - first)
