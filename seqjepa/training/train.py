"""Training: one run from shards to weights, resumable at any step.

    schedule → step (learner.py: forward, backward, clip, optimizer, moving averages; probes, meter) → save

Everything random is a function of (seed, step, rank), so a resumed run needs no generator states, and a CPU run that
was interrupted ends with the same bits as one that was left alone.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from seqjepa.config import RunConfig, contradictions
from seqjepa.data.device import feed
from seqjepa.data.loader import Loader
from seqjepa.data.sequence import ViewSequence
from seqjepa.devices import computing_on, device_name, pick_device, take_device
from seqjepa.files import settle_checksums
from seqjepa.methods.base import Method
from seqjepa.models.ema import cosine_tau, schedule_progress
from seqjepa.models.pretrained import doubts, weights_note
from seqjepa.training import checkpoint, metrics_log, run, run_files
from seqjepa.training.checkpoint import initial_method, load_run
from seqjepa.training.data import TrainingData, build_loader, open_training_data, window_for, with_shuffle_window
from seqjepa.training.distributed import World, doubt_of_slurm, from_main, highest, on_all, on_main, process_group
from seqjepa.training.learner import Learner, TrainingStep
from seqjepa.training.loggers import check_names
from seqjepa.training.monitor import EpochMeter, OnlineProbes
from seqjepa.training.optim import lr_at, schedule_doubts
from seqjepa.training.progress import Say, Watch
from seqjepa.training.run_store import RunFolder, training_folder
from seqjepa.training.stopping import Interrupted, StopSignals
from shards.errors import ConfigError, DamageError, UsageError, reason_of
from shards.reader import SplitIndex

__all__ = ["load_run", "pick_device", "train"]
logger = logging.getLogger(__name__)

# Several ranks ask each other this often whether one of them was told to stop or a checkpoint is due.
AGREE_EVERY = 8


def train(
    config: RunConfig,
    shards: Path,
    out: Path,
    *,
    device: str = "auto",
    workers: int | None = None,
    extend_epochs: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
    say: Say | None = None,
) -> dict[str, Any]:
    """Train `config` on a split of `shards` (see data.split); `out` is made, or resumed if it holds this run.

    out: a folder, or an address in a store, s3://, gs:// or az:// (run_store.py).
    extend_epochs: go on to so many epochs in all; schedules are replanned from the step that was reached.
    say: hears what is trained, how long it will take, and a line an epoch.
    Returns the last epoch's line of metrics.jsonl with "run", "name", "fidelity", "status", "epochs" and "steps".
    Raises UsageError (then nothing was written), Interrupted after a signal (then the state was saved), FailureError.
    """
    check_names(config.train.loggers)
    if overwrite and extend_epochs is not None:
        raise UsageError("--overwrite begins a run anew, --extend-epochs goes on with the one that is there; give one")
    world = World.from_environment()
    if doubt := doubt_of_slurm():
        logger.warning("%s", doubt)
    where = take_device(device, world.local_rank)
    if extend_epochs is not None:
        config = config.with_values("optim", epochs=extend_epochs)
        if wrong := list(contradictions(config)):  # a config.toml of these could not be read again
            raise ConfigError("; ".join(wrong))
    source = open_training_data(Path(shards), config)
    config = source.config
    with ExitStack() as stack:
        folder = stack.enter_context(training_folder(Path(out), world.main))
        # A run that goes on has its weights: the file that it began with may be gone.
        fresh = overwrite or not run_files.has_state(folder.path)
        method = initial_method(config, source.data.action_size, pretrained=fresh)
        note = weights_note(method.encoder, config.model) if fresh else {}
        if world.main and fresh:
            of_network = doubts(config, source.data.mean, source.data.std, method)
            for doubt in (*schedule_doubts(config.optim), *of_network):
                logger.warning("%s", doubt)
        widths = feature_widths(method, config, source)
        stack.enter_context(process_group(world, where, config.train.timeout_minutes))
        source = with_shuffle_window(source, agreed_window(source, folder.path, overwrite, world))
        config = source.config
        plan = run.RunPlan(config, source.data, source.names, extend_epochs, note)
        refuse_mixed_ranks(plan, world)
        loader = stack.enter_context(on_all(world, lambda: build_loader(source, config, world, workers, where)))
        if not overwrite:
            on_main(world, lambda: run.refuse_lost_state(folder.path))
        on_main(world, lambda: stack.enter_context(run.claimed(folder.path, plan, overwrite)))
        on_main(world, lambda: folder.push(last=True))  # or training would find out at its first checkpoint
        stop = stack.enter_context(StopSignals())
        trainer = Trainer(config, source, method, widths, loader, folder, world, where)
        trainer.resume()
        if world.main and trainer.step < trainer.total_steps:
            checkpoint.warn_of_room(folder.path, method, config.train.keep_epochs)
        watch = Watch(source, Path(shards), folder.path, world, where, len(loader), say, progress)
        with watch.begin(trainer.step, trainer.learner.method):
            trainer.run(stop, watch)
        return trainer.finish()


def agreed_window(source: TrainingData, out: Path, overwrite: bool, world: World) -> int:
    """data.shuffle_window on all ranks, as rank 0 has it: what is asked, else what the run in `out` was begun with,
    else what fits its cache. UsageError: nothing does."""
    chosen = [0]

    def choose() -> None:
        there = not overwrite and (out / run_files.RUN).exists() and (out / run_files.CONFIG).exists()
        asked = source.config.data.shuffle_window
        chosen[0] = asked or (run.read_run_config(out).data.shuffle_window if there else window_for(source, world))
        if chosen[0] and not asked and not there:
            logger.warning(
                "split %r is larger than the cache may hold: samples are shuffled among %d of its %d shards at a time "
                "(data.shuffle_window)",
                *(source.index.name, chosen[0], len(source.index.shard_paths)),
            )

    on_main(world, choose)
    return highest(world, chosen)[0]


def refuse_mixed_ranks(plan: run.RunPlan, world: World) -> None:
    """UsageError on all ranks where one has other settings or shards than rank 0, which alone writes what it has."""
    text = json.dumps(run.run_identity(plan.config, plan.shards), default=str).encode()
    first, own = json.loads(from_main(world, text) or b"{}"), json.loads(text)

    def compare() -> None:
        pairs = {key: (first.get(key), value) for key, value in own.items()}
        if differ := [f"{key}: {a!s:.40} there, {b!s:.40} here" for key, (a, b) in pairs.items() if a != b]:
            raise UsageError(f"rank {world.rank} is not of rank 0's run ({'; '.join(differ)}); start all alike")

    on_all(world, compare)


def feature_widths(method: Method, config: RunConfig, source: TrainingData) -> dict[str, torch.Size]:
    """Shapes of the method's features for a batch of two, found by running it once on black views in eval mode."""
    data, T = source.data, config.data.context + 1
    features = source.index.features if isinstance(source.index, SplitIndex) else None
    blank = ViewSequence(
        views=torch.zeros(2, T, *((features.size,) if features else (3, data.height, data.width))),
        actions=torch.zeros(2, T - 1, data.action_size),
        params=torch.zeros(2, T, 0),
        labels=torch.zeros(2, dtype=torch.int64),
        keys=["", ""],
    )
    method.eval()
    with torch.no_grad():
        features = method.step(blank).features
    return {name: value.shape for name, value in features.items()}


class Trainer:
    """The state of a run – learner, probes, meter, step – and the loop that moves it. Steps and epochs count from 0."""

    def __init__(
        self,
        config: RunConfig,
        source: TrainingData,
        method: Method,
        widths: dict[str, torch.Size],
        loader: Loader,
        folder: RunFolder,
        world: World,
        device: torch.device,
    ):
        self.config, self.data, self.loader = config, source.data, loader
        self.folder, self.out = folder, folder.path
        self.world, self.device = world, device
        self.learner = Learner(method, config, world, device, (self.data.mean, self.data.std))
        torch.default_generator.manual_seed(config.seed)
        enabled, compile = config.train.online_probes, config.train.compile
        self.probes = OnlineProbes(widths, source.classes, self.data.action_size, device, enabled)
        whole = getattr(config.data.action, "whole", ())  # a preset has none: of the paper's actions each number counts
        self.meter = EpochMeter(widths, self.data.action_size, device, compile, whole)
        self.learn = TrainingStep(self.learner, self.probes, self.meter, config, world)
        self.epoch_steps = len(loader)
        self.total_steps = self.epoch_steps * config.optim.epochs
        self.step = self.first_step = 0
        self.cut_short = False  # whether these ranks have no further batch of the epoch that a state is of
        self.log: bytes | None = None  # what metrics.jsonl holds, where that is known
        self.saved_at = time.monotonic()
        self._start_clock()

    def resume(self) -> None:
        """Go on from the newest state that is whole, where there is one; metrics of epochs after it are dropped, as
        they are done again."""
        found: list[dict[str, Any] | None] = []
        on_main(self.world, lambda: found.append(checkpoint.newest_state(self.out)))
        state = found[0] if self.world.size == 1 else self._state_for_all(found)
        on_all(self.world, lambda: self._take_on(state))
        on_main(self.world, self._settle_files)

    def _state_for_all(self, found: list[dict[str, Any] | None]) -> dict[str, Any] | None:
        """What rank 0 has found: the others need not see the folder."""
        file = self.out / checkpoint.STATE
        data = from_main(self.world, file.read_bytes() if found and found[0] else None)
        return found[0] if self.world.main else None if data is None else checkpoint.parse_state(data, file)

    def _take_on(self, state: dict[str, Any] | None) -> None:
        """DamageError: `state` is not of this run."""
        if state is None:
            return
        file, advice = self.out / checkpoint.STATE, "restore it, or begin the run again with --overwrite"
        try:
            self.learner.load_state_dict(state["learner"])
            self.probes.load_state_dict(state["probes"])
            if self.world.main:  # it holds the sums of all ranks
                self.meter.load_state_dict(state["meter"])
            self.learn.begin_anew()
            self._take_step(int(state["step"]), int(state.get("epoch_steps", self.epoch_steps)))
            self.log = state["log"].encode() if "log" in state else None
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else reason_of(error)[:200]
            raise DamageError(f"{file} is not of this run ({reason}); {advice}") from None
        if not 0 <= self.step <= self.total_steps:
            raise DamageError(f"{file} is of step {self.step}, but the run has {self.total_steps} steps; {advice}")
        logger.info("%s: going on from step %d of %d", self.folder, self.step, self.total_steps)
        before, here = state.get("computed_on"), self._computing_on()
        if self.world.main and before not in (None, here) and self.step < self.total_steps:
            said = "%s: on %s until now, on %s from here: the same samples, views and seeds, but sums round differently"
            logger.warning(said, self.folder, before, here)

    def _take_step(self, step: int, epoch_steps: int) -> None:
        """The same place of the same epoch, where `epoch_steps` made one: other ranks may share out its last batch or
        have to leave it out (training.data.build_loader)."""
        if epoch_steps < 1:
            raise ValueError(f"epochs of {epoch_steps} steps")
        epoch, place = divmod(step, epoch_steps)
        self.cut_short = place > 0 and place >= self.epoch_steps
        self.step = epoch * self.epoch_steps + min(place, self.epoch_steps)
        self.first_step = self.step - self.cut_short

    def _settle_files(self) -> None:
        """The other files as they were when the state was saved."""
        metrics, weights = self.out / checkpoint.METRICS, self.out / checkpoint.WEIGHTS
        if self.log is None:  # nothing was saved yet, or by an earlier version
            metrics_log.keep_epochs(metrics, self.step // self.epoch_steps)
            self.log = metrics.read_bytes() if metrics.exists() else b""
        metrics_log.restore(metrics, self.log)
        if self.step and checkpoint.weights_epochs(weights) not in (None, self.epochs_done):
            self._write_weights()
        if self.step < self.total_steps:
            run.mark_unfinished(self.out, self.config.optim.epochs)
        settle_checksums(self.out)
        epochs, done = self.config.optim.epochs, self.first_step // self.epoch_steps
        there = run_files.kept_epochs(self.out)
        if lost := [e for e in self.config.train.keep_epochs if e not in there and not done < e <= epochs]:
            listed = ", ".join(map(str, sorted(lost)))
            said = "train.keep_epochs: no weights will be kept after epoch %s: the run has done %d of its %d epochs"
            logger.warning(said, listed, done, epochs)

    @property
    def epochs_done(self) -> float:
        """Of training so far, to four digits."""
        return round(self.step / self.epoch_steps, 4)

    def run(self, stop: StopSignals, watch: Watch) -> None:
        """From `self.step` to the end, or to the first signal."""
        optim = self.config.optim
        batches = self._batches()
        self._start_clock()
        if self.cut_short:
            lr, done = self._schedule(self.step - 1)
            self._end_epoch(lr, cosine_tau(optim.ema_tau, done), watch)
            self._save_if_due(stop)
        while self.step < self.total_steps:
            # schedule
            lr, done = self._schedule(self.step)
            # forward, backward, clip, step, moving averages; online probes, sums of the epoch
            seq = next(batches)
            self.learn(seq, self.step, lr, done)
            self.step += 1
            # log
            self.views_seen += seq.views.shape[0] * seq.views.shape[1] * self.world.size
            watch.step(self.step, seq)
            if self.step % self.epoch_steps == 0:
                self._end_epoch(lr, cosine_tau(optim.ema_tau, done), watch)
            # save
            self._save_if_due(stop)

    def _schedule(self, step: int) -> tuple[float, float]:
        """Learning rate, and progress in [0, 1] for the moving averages."""
        optim = self.config.optim
        planned, fidelity = optim.planned_epochs, self.config.fidelity
        done = schedule_progress(step + 1, self.epoch_steps, planned, fidelity, optim.ema_update)
        return lr_at(step, self.epoch_steps, optim), done

    def save(self) -> None:
        """Write model.safetensors and state.pt. Every rank takes part, rank 0 writes."""
        self.meter.collect(self.world)
        self.learner.require_finite()
        on_main(self.world, self._write)
        self.saved_at = time.monotonic()

    def finish(self) -> dict[str, Any]:
        """What `train` returns. A run that was finished before is said to be so."""
        epochs, idle = self.config.optim.epochs, self.first_step == self.total_steps
        if idle:
            logger.warning(
                "%s: finished already (%d epochs); --extend-epochs goes on, --overwrite anew", self.folder, epochs
            )
        on_main(self.world, lambda: run.mark_finished(self.out, epochs))
        on_main(self.world, lambda: self.folder.push(last=True))
        last = metrics_log.read_epochs(self.out / checkpoint.METRICS)[-1] if self.world.main else {}
        return {
            "run": str(self.folder),
            "name": self.config.name,
            "fidelity": self.config.fidelity,
            "status": "finished already" if idle else "finished",
            "epochs": epochs,
            "steps": self.total_steps,
            **json.loads(from_main(self.world, json.dumps(last).encode()) or b"{}"),
        }

    def _batches(self) -> Iterator[ViewSequence]:
        first, place = divmod(self.step, self.epoch_steps)
        epochs = range(first, self.config.optim.epochs)
        host = (seq for epoch in epochs for seq in self.loader.epoch(epoch, place if epoch == first else 0))
        data, channels_last = self.data, self.config.train.channels_last
        raw = self.device.type == "cuda"  # a quarter of the bytes to move; the step normalises them
        return feed(host, self.device, data.mean, data.std, channels_last=channels_last, raw=raw)

    def _end_epoch(self, lr: float, tau: float, watch: Watch) -> None:
        """One line in metrics.jsonl; a collapse is said aloud."""
        self.meter.collect(self.world)
        if self.world.main:
            epoch = self.step // self.epoch_steps
            line = {"epoch": epoch, "step": self.step, "lr": lr, "tau": tau, **self.meter.summary(), **self._timing()}
            measured, sample = watch.measure(epoch, self.learner.method)
            line |= measured
            self.log = (self.log or b"") + metrics_log.append_epoch(self.out / checkpoint.METRICS, line)
            if "collapse" in line:
                logger.warning("epoch %d: %s", epoch, line["collapse"])
            watch.epoch(line, sample)
        self._keep_weights()
        self.meter.reset()
        self._start_clock()

    def _keep_weights(self) -> None:
        """Before the state that follows is saved: a run that is killed between the two keeps them again."""
        epoch = self.step // self.epoch_steps
        if epoch in self.config.train.keep_epochs:
            self.learner.require_finite()
            file = self.out / run_files.kept_weights(epoch)
            on_main(self.world, lambda: checkpoint.save_weights(self.learner.method, file, epoch))

    def _save_if_due(self, stop: StopSignals) -> None:
        """Checkpoint at the end, after a signal, and every `checkpoint_minutes`, with all ranks agreeing when."""
        at_end = self.step == self.total_steps
        if self.world.size > 1 and self.step % AGREE_EVERY and not at_end:
            return
        overdue = time.monotonic() - self.saved_at > 60 * self.config.train.checkpoint_minutes
        signal, overdue = highest(self.world, [stop.received, overdue])
        if signal or overdue or at_end:
            self.save()
        if signal and not at_end:
            where = f"step {self.step} of {self.total_steps}"
            raise Interrupted(
                f"stopped and saved at {where} in {self.folder}; the same command goes on from there", signal
            )

    def _write(self) -> None:
        """The state first: where there are weights, there was a state."""
        state = {
            "step": self.step,
            "epochs": self.epochs_done,
            "computed_on": self._computing_on(),
            "epoch_steps": self.epoch_steps,
            "learner": self.learner.state_dict(),
            "probes": self.probes.state_dict(),
            "meter": self.meter.state_dict(),
            "log": (self.log or b"").decode(),
        }
        checkpoint.save_state(state, self.out / checkpoint.STATE)
        self._write_weights()
        self.folder.push()

    def _computing_on(self) -> str:
        return computing_on(self.device, self.world.size)

    def _write_weights(self) -> None:
        checkpoint.save_weights(self.learner.method, self.out / checkpoint.WEIGHTS, self.epochs_done)

    def _start_clock(self) -> None:
        self.clock, self.views_seen = time.monotonic(), 0

    def _timing(self) -> dict[str, Any]:
        """The keys of metrics_log.TIMING, since the epoch began or was resumed."""
        seconds = time.monotonic() - self.clock
        spent = {"views_per_s": round(self.views_seen / seconds, 1), "seconds": round(seconds, 3)}
        return spent | {"device": device_name(self.device), "devices": self.world.size}
