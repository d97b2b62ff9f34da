"""Evaluation of a run: encode both splits once, train probes, take studies, write the numbers (docs/evaluation.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from seqjepa.config import EvalConfig
from seqjepa.devices import take_device
from seqjepa.evaluate.encode import encode_splits
from seqjepa.evaluate.heads import BATCH
from seqjepa.evaluate.neighbours import NEIGHBOURS
from seqjepa.evaluate.odd_one_out import ODD_ONE_OUT
from seqjepa.evaluate.ood import DESCRIBED, OOD, UNPOOLED, open_ood
from seqjepa.evaluate.probe_training import context_lengths, score_tasks, scores_in_context
from seqjepa.evaluate.probes import Bench, ProbeTask, Scores, nested
from seqjepa.evaluate.protocol import COSTS, protocol_of
from seqjepa.evaluate.representation import REPRESENTATION
from seqjepa.evaluate.results import CONFUSION, confusion_arrays, merge_results, read_results
from seqjepa.evaluate.retrieval import RETRIEVAL
from seqjepa.evaluate.rollouts import ROLLOUTS
from seqjepa.evaluate.studies import EvalContext, Study, capabilities_of, merged, suite_named, take_studies
from seqjepa.evaluate.tasks import position, tasks_for
from seqjepa.evaluate.umap import UMAP
from seqjepa.methods.base import EncodesInContext, Halved
from seqjepa.models.embed import in_eval_mode
from seqjepa.models.pretrained import tensors_sha256
from seqjepa.precision import full_float32
from seqjepa.recipes import mistakes
from seqjepa.training.checkpoint import LoadedRun, load_run
from seqjepa.training.metrics_log import read_epochs
from seqjepa.training.run import identity_of
from seqjepa.training.run_files import METRICS
from shards.errors import ConfigError, FailureError, SeqJepaError, UsageError
from shards.reader import ShardSet

STUDIES: tuple[Study, ...] = (REPRESENTATION, RETRIEVAL, NEIGHBOURS, ROLLOUTS, OOD, ODD_ONE_OUT, UMAP, UNPOOLED, COSTS)
"""In the order in which they are taken. A new study is one line here, and its name in its suites (studies.py)."""


def evaluate_run(
    run: Path,
    shards: Path,
    config: EvalConfig | None = None,
    *,
    epoch: int | None = None,
    out: Path | None = None,
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Trains the probes of the paper's §3.3 and §B.9 on frozen features of a run and scores them on unseen samples;
    then takes the studies of a suite.

    config    how; or `options`, its fields by name
    epoch     of the weights that were kept after so many epochs; None: of the last ones
    out       folder of results.json (default: the run); numbers of the other weights that it has are kept, and under
              "earlier" those of another protocol. Transfer has a file of its own beside it (results_file)
    progress  whether to show bars on a terminal

    Returns what results.json holds under "trained" or "untrained" (docs/evaluation.md); accuracies in 0..1. Raises
    UsageError for a device or suite that is not there, FormatError or ConfigError for a run, shards or options that do
    not fit each other, FailureError if the model or the run did not stay as it was, UnwrittenError with the numbers
    where the disk does not take them.
    """
    started = time.monotonic()
    config = config or eval_config(**options)
    always_path = suite_named(config.suite).path or None
    device, weights = take_device(config.device), "untrained" if config.untrained else "trained"
    config = config.for_device(device.type == "cuda")
    config = config.model_copy(update={"path": always_path}) if config.path is None else config
    stored, ood = ShardSet.open(shards), None if config.ood is None else ShardSet.open(config.ood)
    loaded, identity = load_run(run, device, untrained=config.untrained, epoch=epoch), identity_of(run)
    _check_writable(run, out or run)
    if ood is not None:
        open_ood(stored, ood, loaded.action)  # says what does not fit before anything is encoded
    contexts = context_lengths(loaded.method, config.contexts, device)
    module = loaded.method.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    with full_float32(), frozen(module) as digest:
        ctx = _encode(run, loaded, stored, config, device, progress)
        results = _measure(replace(ctx, ood=ood), contexts)
    if identity_of(run) != identity:
        raise FailureError(
            f"{run} was begun again as another run while it was evaluated; these numbers are of the one before and "
            "were not written: evaluate again"
        )
    results["protocol"] = {"model_sha256": digest, **results["protocol"]}
    results |= {"weights": weights, "seconds": round(time.monotonic() - started, 2)}
    try:
        merge_results(out or run, weights, results, ctx.arrays)
    except SeqJepaError as error:
        raise UnwrittenError(f"measured, but in no file: {error}", results) from None
    return results


class UnwrittenError(FailureError):
    """What was measured could not be written. results: as evaluate_run returns them."""

    def __init__(self, message: str, results: dict[str, Any]) -> None:
        super().__init__(message)
        self.results = results


def eval_config(**options: Any) -> EvalConfig:
    """EvalConfig of its fields by name. ConfigError: there is none of that name, or its value is out of range."""
    try:
        return EvalConfig(**options)
    except ValidationError as error:
        raise ConfigError(mistakes(error, EvalConfig)) from None


def _check_writable(run: Path, out: Path) -> None:
    """What would be found out only after all is measured: FormatError, DamageError, UsageError."""
    read_results(out)
    read_epochs(run / METRICS)
    if not os.access(out, os.W_OK):
        raise UsageError(f"cannot write results into {out}; make it writable, or copy the run")


def _encode(
    run: Path,
    loaded: LoadedRun,
    stored: ShardSet,
    config: EvalConfig,
    device: torch.device,
    progress: bool,
) -> EvalContext:
    """Both splits through the encoder, and what can be measured of them."""
    splits = encode_splits(loaded, stored, config, device, progress)
    can = capabilities_of(loaded, stored, splits, config, device)
    own = can.declared is not None
    config = config.with_steps(len(splits.train), BATCH) if own else config
    bench = Bench(splits.train, splits.val, device, config.seed, config.val_draws, blind=own)
    protocol = protocol_of(config, loaded, stored, splits, can, read_epochs(run / METRICS))
    return EvalContext(loaded, stored, splits, can, config, bench, run, None, progress, protocol)


def _measure(ctx: EvalContext, contexts: list[int]) -> dict[str, Any]:
    """Every probe and study, with the model frozen: numbers and the protocol, as in results.json."""
    tasks, skipped = tasks_for(ctx.can, ctx.config)
    scores, described = _score_probes(ctx, tasks, contexts)
    if (patches := ctx.splits.patches) is not None:
        beside = replace(ctx.bench, train=patches.train, val=patches.val)
        ctx_of_patches = replace(ctx, bench=beside)
        scores = scores.joined(_score_probes(ctx_of_patches, [position(ctx.config)], [])[0])
    studied, reasons = take_studies(STUDIES, ctx)
    described |= {} if ctx.ood is None else {"ood": ctx.ood.info.name}
    described |= {"unpooled": DESCRIBED} if "unpooled" in studied else {}
    ctx.arrays[CONFUSION], by_class = confusion_arrays(scores.confusions, ctx.stored.info.classes)
    return {
        **merged(merged(nested(scores.last), {"intervals": nested(scores.intervals)}), studied),
        "best": nested(scores.best),
        **({"blind": nested(scores.blind)} if scores.blind else {}),
        **by_class,
        "protocol": {**ctx.protocol, **described, "skipped": {**skipped, **scores.skipped, **reasons}},
    }


def _score_probes(ctx: EvalContext, tasks: list[ProbeTask], contexts: list[int]) -> tuple[Scores, dict[str, Any]]:
    """What probes gave, and what the protocol says of contexts and halves.

    Views of ContextSSL are probed after a context (probe_training.py). Of methods with halves, each half is probed as
    the whole is: halves.invariant.NAME, halves.equivariant.NAME.
    """
    method, bench = ctx.loaded.method, ctx.bench
    if isinstance(method, EncodesInContext):
        return scores_in_context(method, tasks, bench, ctx.loaded.action, contexts, ctx.progress)
    scores = score_tasks(tasks, bench, progress=ctx.progress)
    if not isinstance(method, Halved):
        return scores, {}
    for half, columns in method.halves.items():
        of_half = score_tasks(tasks, bench.columns(columns), f"{half} half: ", progress=ctx.progress)
        scores = scores.joined(of_half.named(f"halves.{half}.{{}}"))
    return scores, {"halves": {half: [c.start, c.stop] for half, c in method.halves.items()}}


def state_sha256(module: nn.Module) -> str:
    """Hex digest over names, dtypes, shapes and bytes of every parameter and buffer, persistent or not."""
    return tensors_sha256([*module.named_parameters(), *module.named_buffers()])


@contextmanager
def frozen(module: nn.Module) -> Iterator[str]:
    """Holds `module` in eval mode without gradients and yields its hash (docs/fidelity.md #37).

    Raises FailureError on a clean exit if a parameter or buffer differs: the numbers measured inside would belong to a
    model that no longer is the one on disk. Modes and gradient flags are put back as they were.
    """
    before = state_sha256(module)
    wanted_grad = {p: p.requires_grad for p in module.parameters()}
    try:
        with in_eval_mode(module.requires_grad_(False)):
            yield before
        if state_sha256(module) != before:
            raise FailureError(
                "evaluation changed the model's parameters or buffers; its numbers are void (a layer ignores eval mode)"
            )
    finally:
        for p, grad in wanted_grad.items():
            p.requires_grad_(grad)
