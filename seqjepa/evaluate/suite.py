"""Evaluation of a run: encode once, probe from the banks, take studies, write the numbers (docs/evaluation.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqjepa.context_ssl.in_context import context_lengths
from seqjepa.devices import pick_device
from seqjepa.evaluate import per_class
from seqjepa.evaluate.account import account_of
from seqjepa.evaluate.artefacts import artefacts_folder
from seqjepa.evaluate.banks import encode_banks
from seqjepa.evaluate.battery import PAPER_EPOCHS, Lengths, battery_for, position
from seqjepa.evaluate.fit_and_score import Bench
from seqjepa.evaluate.freeze import frozen
from seqjepa.evaluate.intervals import Resampling
from seqjepa.evaluate.ood_set import open_ood
from seqjepa.evaluate.probing import take_all
from seqjepa.evaluate.protocol import Protocol
from seqjepa.evaluate.results import merge_results, read_results, results_name
from seqjepa.evaluate.studies import DEFAULT, merged, suite_named, take_studies
from seqjepa.evaluate.study import Case
from seqjepa.evaluate.subject import subject_of
from seqjepa.evaluate.taken import nested
from seqjepa.methods.base import as_module
from seqjepa.models.precision import full_float32
from seqjepa.training.checkpoint import METRICS, LoadedRun, load_run
from seqjepa.training.runlog import read_epochs
from shards.errors import UsageError
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
    module = as_module(loaded.method).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    protocol, stored, device, progress = asked.protocol, asked.stored, asked.device, asked.progress
    contexts = context_lengths(loaded.method, protocol.contexts, device)
    with full_float32(), frozen(module) as digest:
        banks = encode_banks(loaded, stored, protocol, device, progress)
        subject = subject_of(loaded, stored, banks, protocol, device)
        measures, skipped = battery_for(subject, protocol.m_val, protocol.lengths)
        resampling = Resampling.of(len(banks.val), protocol.seed, device)
        bench = Bench(banks.train, banks.val, device, protocol.seed, protocol.val_draws, resampling)
        taken, told = take_all(loaded, measures, bench, contexts, progress)
        if banks.patches is not None:
            beside = Bench(
                banks.patches.train, banks.patches.val, device, protocol.seed, protocol.val_draws, resampling
            )
            taken = taken.joined(take_all(loaded, [position(subject, protocol.lengths)], beside, [], progress)[0])
        account = account_of(protocol, loaded, stored, banks, subject, read_epochs(asked.run / METRICS))
        case = Case(
            loaded, stored, banks, subject, protocol, bench, asked.folder(account), asked.run,
            asked.weights == "untrained", asked.ood, progress,
        )  # fmt: skip
        studied, reasons = take_studies(case)
    told |= {} if asked.ood is None else {"ood": asked.ood.info.name}
    by_class = per_class.keep(case.folder, taken.confusions, stored.info.classes)
    return {
        **merged(merged(nested(taken.last), {"intervals": nested(taken.intervals)}), studied),
        "best": nested(taken.best),
        **by_class,
        "protocol": {"model_sha256": digest, **account, **told, "skipped": {**skipped, **taken.skipped, **reasons}},
    }
