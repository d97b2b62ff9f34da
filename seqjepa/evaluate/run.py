"""Evaluation of a run: encode once, probe from the banks, take studies, write the numbers (docs/evaluation.md).

Every probe of an evaluation, on the features as they are, in contexts or in halves.

Probing must not touch the model: eval mode, no gradients, a hash before and after (docs/fidelity.md #37).
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from seqjepa.devices import pick_device
from seqjepa.evaluate import artefacts
from seqjepa.evaluate.artefacts import artefacts_folder
from seqjepa.evaluate.bootstrap import Resampling
from seqjepa.evaluate.capabilities import capabilities_of
from seqjepa.evaluate.config import Protocol
from seqjepa.evaluate.in_context import context_lengths, scores_in_context
from seqjepa.evaluate.ood import open_ood
from seqjepa.evaluate.probes import NO_SCORES, Bench, Scores, bench_of_columns, fit_and_score, nested
from seqjepa.evaluate.protocol import protocol_of
from seqjepa.evaluate.results import merge_results, read_results, results_name
from seqjepa.evaluate.splits import encode_splits
from seqjepa.evaluate.studies import EvalContext
from seqjepa.evaluate.suites import DEFAULT, merged, suite_named, take_studies
from seqjepa.evaluate.tasks import PAPER_EPOCHS, Lengths, ProbeTask, position, tasks_for
from seqjepa.methods.base import Halved
from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.models.precision import full_float32
from seqjepa.training.checkpoint import LoadedRun, load_run
from seqjepa.training.loggers import read_epochs
from seqjepa.training.run import METRICS
from shards.errors import FailureError, UsageError
from shards.reader import ShardSet

CPU_AGG_DRAWS = 16


def evaluate_run(
    run: Path,
    shards: Path,
    *,
    untrained: bool = False,
    device: str = "auto",
    m_val: Iterable[int] = range(1, 9),
    probe_epochs: int | None = None,
    agg_draws: int | None = None,
    train_draws: int | None = None,
    val_draws: int = 1,
    seed: int = 0,
    train_split: str | None = None,
    val_split: str | None = None,
    patch: int | None = None,
    normalisation: str | None = None,
    path: bool | None = None,
    contexts: Iterable[int] | None = None,
    suite: str = DEFAULT,
    ood: Path | None = None,
    standardise: bool = False,
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains the probes of the paper's §3.3 and §B.9 on frozen features of a run and scores them on unseen samples;
    then takes the studies of a suite (studies.py).

    untrained       the run's initial weights instead of its trained ones
    m_val           context sizes for z_AGG; those larger than a sample has views are left out, and said to be
    probe_epochs    None: the paper's 300, and 50 for linear regressors; else n, and n/6 for linear regressors
    agg_draws       training draws of stored views for z_AGG, cycled over epochs. None: a new draw every epoch on a GPU,
                    16 on a CPU, where running the aggregator every epoch would take longer than all else together
    train_draws     training draws of fixations or augmentations of an image, cycled over epochs. None: one for each
                    epoch, or as many as fit, on a GPU; 8 on a CPU
    val_draws       fixed draws under which each validation sample is seen; scores are over all of them
    splits          None: "train", and "val" or else "test"
    patch           pixels a side of the patches, to evaluate with others than in training (transfer, Figure 15); of
                    runs on augmented images with saliency maps: of those that position R² is read from (default 32)
    normalisation   "run", "shards" or a name in DataConfig. None: the run's own constants, on images of another size
                    or with another patch "imagenet" for that set and "shards" for others
    path            path integration. None: as the suite has it; else for positions (linear heads), and for rotations
                    (MLPs) on a GPU only
    contexts        numbers of tokens before a view, for ContextSSL: even. None: as many as there is room for (126 of a
                    sequence of 64 pairs), on a GPU also none
    suite           "probes", "3diebench", "stl10", "augmentations" or "all": which studies go with the probes
    ood             shards of the same objects' kind with rotations that training never saw (paper §B.3)
    standardise     linear regressors see standardised features and begin at the mean of their targets. Not what the
                    paper says (§A.2): nearer to the linear function that fits best than its 50 epochs get
    out             folder of results.json (default: the run); numbers of the other weights that it has are kept, and
                    under "earlier" those of another protocol. Transfer has a file of its own beside it (results_file)

    Returns what results.json holds under "trained" or "untrained" (docs/evaluation.md); accuracies in 0..1. Raises
    UsageError for a device or suite that is not there, FormatError or ConfigError for a run, shards or options that do
    not fit each other, FailureError if the model did not stay as it was.
    """
    started = time.monotonic()
    always = suite_named(suite).path or None
    where, weights = pick_device(device), "untrained" if untrained else "trained"
    epochs = probe_epochs or PAPER_EPOCHS
    lengths = Lengths(epochs, agg_draws or (epochs if where.type == "cuda" else CPU_AGG_DRAWS))
    protocol = Protocol(
        tuple(sorted(set(m_val))), lengths, val_draws, seed, train_split, val_split, patch, normalisation,
        train_draws, always if path is None else path, None if contexts is None else tuple(contexts), suite,
        standardise,
    )  # fmt: skip
    stored, other = ShardSet.open(shards), None if ood is None else ShardSet.open(ood)
    loaded = load_run(run, where, untrained=untrained)
    _check_writable(run, out or run)
    if other is not None:
        open_ood(stored, other, loaded.data.action)  # says what does not fit before anything is encoded
    asked = _Asked(run, out or run, weights, stored, other, protocol, where, progress)
    results = _measure(loaded, asked)
    results |= {"weights": weights, "seconds": round(time.monotonic() - started, 2)}
    merge_results(out or run, weights, results)
    return results


def _check_writable(run: Path, out: Path) -> None:
    """What would be found out only after all is measured: FormatError, DamageError, UsageError."""
    read_results(out)
    read_epochs(run / METRICS)
    if not os.access(out, os.W_OK):
        raise UsageError(f"cannot write results into {out}; give yourself the right to, or copy the run")


@dataclass(frozen=True)
class _Asked:
    """Where numbers come from and go to, and how they are to be measured."""

    run: Path
    out: Path
    weights: str
    stored: ShardSet
    ood: ShardSet | None
    protocol: Protocol
    device: torch.device
    progress: bool

    def folder(self, account: dict[str, Any]) -> Path:
        """For arrays; those of a transfer are kept apart, as its numbers are."""
        name = results_name(account)
        return artefacts_folder(self.out, f"{self.weights}{name.removeprefix('results')}")


def _measure(loaded: LoadedRun, asked: _Asked) -> dict[str, Any]:
    """Encodes both splits and takes every measure and study, with the model frozen; numbers and the protocol."""
    module = loaded.method.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    protocol, stored, device, progress = asked.protocol, asked.stored, asked.device, asked.progress
    contexts = context_lengths(loaded.method, protocol.contexts, device)
    with full_float32(), frozen(module) as digest:
        banks = encode_splits(loaded, stored, protocol, device, progress)
        subject = capabilities_of(loaded, stored, banks, protocol, device)
        measures, skipped = tasks_for(subject, protocol.m_val, protocol.lengths)
        resampling = Resampling.of(len(banks.val), protocol.seed, device)
        bench = Bench(banks.train, banks.val, device, protocol.seed, protocol.val_draws, resampling)
        taken, told = score_all(loaded, measures, bench, contexts, progress)
        if banks.patches is not None:
            beside = Bench(
                banks.patches.train, banks.patches.val, device, protocol.seed, protocol.val_draws, resampling
            )
            taken = taken.joined(score_all(loaded, [position(subject, protocol.lengths)], beside, [], progress)[0])
        account = protocol_of(protocol, loaded, stored, banks, subject, read_epochs(asked.run / METRICS))
        case = EvalContext(
            loaded, stored, banks, subject, protocol, bench, asked.folder(account), asked.run,
            asked.weights == "untrained", asked.ood, progress,
        )  # fmt: skip
        studied, reasons = take_studies(case)
    told |= {} if asked.ood is None else {"ood": asked.ood.info.name}
    by_class = artefacts.save_confusions(case.folder, taken.confusions, stored.info.classes)
    return {
        **merged(merged(nested(taken.last), {"intervals": nested(taken.intervals)}), studied),
        "best": nested(taken.best),
        **by_class,
        "protocol": {"model_sha256": digest, **account, **told, "skipped": {**skipped, **taken.skipped, **reasons}},
    }


logger = logging.getLogger(__name__)


def score_all(
    loaded: LoadedRun, measures: list[ProbeTask], bench: Bench, contexts: list[int], progress: bool
) -> tuple[Scores, dict[str, Any]]:
    """What probes gave, and what the protocol says of contexts and halves.

    Views of ContextSSL are probed after a context (in_context.py). Of methods with halves, each half is probed as the
    whole is: halves.invariant.NAME, halves.equivariant.NAME.
    """
    take = partial(_score_tasks, progress=progress)
    method = loaded.method
    if isinstance(method, ContextSSL):
        taken, context = scores_in_context(method, measures, bench, loaded.data.action, contexts, take)
        return taken, {"context": context}
    taken = take(measures, bench)
    if not isinstance(method, Halved):
        return taken, {}
    for half, columns in method.halves.items():
        taken = taken.joined(
            take(measures, bench_of_columns(bench, columns), f"{half} half: ").named(f"halves.{half}.{{}}")
        )
    return taken, {"halves": {half: [c.start, c.stop] for half, c in method.halves.items()}}


def _score_tasks(measures: list[ProbeTask], bench: Bench, of: str = "", *, progress: bool) -> Scores:
    taken = NO_SCORES
    with tqdm(measures, unit="probe", disable=None if progress else True, leave=False) as bar:
        for measure in bar:
            bar.set_description(f"probe {of}{measure.name}")
            found = fit_and_score(measure, bench)
            logger.info("%s%s: %s", of, measure.name, found.last)
            taken = taken.joined(found)
    return taken


def state_sha256(module: nn.Module) -> str:
    """Hex digest over names, dtypes, shapes and bytes of every parameter and buffer, persistent or not."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def frozen(module: nn.Module) -> Iterator[str]:
    """Holds `module` in eval mode without gradients and yields its hash.

    Raises FailureError on a clean exit if a parameter or buffer differs: the numbers measured inside would belong to a
    model that no longer is the one on disk. Modes and gradient flags are put back as they were.
    """
    before = state_sha256(module)
    modes = {m: m.training for m in module.modules()}
    wanted_grad = {p: p.requires_grad for p in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        yield before
        if state_sha256(module) != before:
            raise FailureError(
                "evaluation changed the model's parameters or buffers; its numbers are void (a layer ignores eval mode)"
            )
    finally:
        for m, training in modes.items():
            m.training = training
        for p, grad in wanted_grad.items():
            p.requires_grad_(grad)
