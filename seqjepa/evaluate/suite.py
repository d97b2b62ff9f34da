"""Evaluation of a run: encode once, probe from the banks, write the numbers (SPEC D.0–D.6, D.11)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from seqjepa.context_ssl.in_context import context_lengths, scores_in_context
from seqjepa.data.augmented import Augmenting
from seqjepa.devices import pick_device
from seqjepa.evaluate.account import account_of
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.banks import Banks, encode_banks
from seqjepa.evaluate.battery import PAPER_EPOCHS, Lengths, Seen, Subject, battery_for
from seqjepa.evaluate.fit_and_score import Bench, fit_and_score
from seqjepa.evaluate.freeze import frozen
from seqjepa.evaluate.measure import Measure, Scores
from seqjepa.evaluate.protocol import Protocol
from seqjepa.evaluate.results import merge_results
from seqjepa.methods.base import as_module
from seqjepa.methods.context_ssl import ContextSSL
from seqjepa.training.checkpoint import LoadedRun, load_run
from shards.reader import ShardSet

logger = logging.getLogger(__name__)
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
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains the probes of SPEC D.1, D.2, D.4 and D.6 on frozen features of a run and scores them on unseen samples.

    untrained       the run's initial weights instead of its trained ones
    m_val           context sizes for z_AGG; those larger than a sample has views are left out, and said to be
    probe_epochs    None: the paper's 300, and 50 for linear regressors; else n, and n/6 for linear regressors
    agg_draws       training draws of stored views for z_AGG, cycled over epochs. None: a new draw every epoch on a GPU,
                    16 on a CPU, where running the aggregator every epoch would take longer than all else together
    train_draws     training draws of fixations or augmentations of an image, cycled over epochs. None: one for each
                    epoch, or as many as fit, on a GPU; 8 on a CPU
    val_draws       fixed draws under which each validation sample is seen; scores are over all of them
    splits          None: "train", and "val" or else "test"
    patch           pixels a side of the patches, to evaluate with others than in training (transfer, D.11)
    normalisation   "run", "shards" or a name in DataConfig. None: the run's own constants, on images of another size
                    or with another patch "imagenet" for that set and "shards" for others
    path            path integration. None: for positions (linear heads); for rotations (MLPs) on a GPU only
    contexts        numbers of tokens before a view, for ContextSSL: even. None: as many as there is room for (126 of a
                    sequence of 64 pairs), on a GPU also none
    out             folder of results.json (default: the run); numbers of the other weights that it has are kept.
                    Transfer has a file of its own beside it (results_file)

    Returns what results.json holds under "trained" or "untrained" (docs/evaluation.md); accuracies in 0..1. Raises
    UsageError for a device that is not there, FormatError or ConfigError for a run, shards or options that do not fit
    each other, FailureError if the model did not stay as it was.
    """
    started = time.monotonic()
    where, weights = pick_device(device), "untrained" if untrained else "trained"
    epochs = probe_epochs or PAPER_EPOCHS
    lengths = Lengths(epochs, agg_draws or (epochs if where.type == "cuda" else CPU_AGG_DRAWS))
    protocol = Protocol(
        tuple(sorted(set(m_val))), lengths, val_draws, seed, train_split, val_split, patch, normalisation,
        train_draws, path, None if contexts is None else tuple(contexts),
    )  # fmt: skip
    results = _measure(load_run(run, where, untrained=untrained), ShardSet.open(shards), protocol, where, progress)
    results |= {"weights": weights, "seconds": round(time.monotonic() - started, 2)}
    merge_results(out or run, weights, results)
    return results


def _measure(
    loaded: LoadedRun, stored: ShardSet, protocol: Protocol, device: torch.device, progress: bool
) -> dict[str, Any]:
    """Encodes both splits and takes every measure, with the model frozen; scores, the best seen, and the protocol."""
    module = as_module(loaded.method).to(memory_format=torch.channels_last)  # twice as fast on a CPU
    contexts = context_lengths(loaded.method, protocol.contexts, device)
    with frozen(module) as digest:
        banks = encode_banks(loaded, stored, protocol, device, progress)
        subject = _subject(loaded, stored, banks, protocol, device)
        measures, skipped = battery_for(subject, protocol.m_val, protocol.lengths)
        bench = Bench(banks.train, banks.val, device, protocol.seed, protocol.val_draws)
        scores, best, context = _scores(loaded, measures, bench, contexts, progress)
    account = account_of(protocol, loaded, stored, banks, subject)
    return {
        **_nested(scores),
        "best": _nested(best),
        "protocol": {"model_sha256": digest, **account, **context, "skipped": skipped},
    }


def _scores(
    loaded: LoadedRun, measures: list[Measure], bench: Bench, contexts: list[int], progress: bool
) -> tuple[Scores, Scores, dict[str, Any]]:
    """Scores, the best seen, and what the protocol says of contexts: views of ContextSSL are probed after one."""
    take = partial(_take, progress=progress)
    if not isinstance(loaded.method, ContextSSL):
        return *take(measures, bench), {}
    scores, best, context = scores_in_context(loaded.method, measures, bench, loaded.data.action, contexts, take)
    return scores, best, {"context": context}


def _subject(loaded: LoadedRun, stored: ShardSet, banks: Banks, protocol: Protocol, device: torch.device) -> Subject:
    both = (banks.train, banks.val)
    return Subject(
        method=loaded.method,
        action=loaded.data.action,
        classes=max(len(stored.info.classes), *(int(bank.labels.max()) + 1 for bank in both)),
        param_names=banks.train.param_names,
        most_views=min(bank.most_views for bank in both),
        labelled=all(int(bank.labels.min()) >= 0 for bank in both),
        seen=_seen(banks),
        maps=stored.info.kind == "saliency",
        constant=_constant(banks.val),
        author=loaded.config.fidelity == "author",
        no_path=_no_path(loaded, protocol, device),
    )


def _seen(banks: Banks) -> Seen:
    if banks.how is None:
        return "stored views"
    return "augmentations" if isinstance(banks.how, Augmenting) else "patches"


def _constant(bank: FeatureBank) -> tuple[str, ...]:
    """Names of the parameters that are the same in all views."""
    low, high = bank.params.min(axis=(0, 1)), bank.params.max(axis=(0, 1))
    return tuple(name for name, same in zip(bank.param_names, low == high, strict=True) if same)


def _no_path(loaded: LoadedRun, protocol: Protocol, device: torch.device) -> str:
    """Why paths are not integrated; empty if they are."""
    if loaded.config.model.condition == "none":
        return "the method is given no actions"
    if protocol.path is False:
        return "not asked for"
    if protocol.path is None and loaded.data.action != "position" and device.type != "cuda":
        return "an MLP for each M and ablation: by default on a GPU only; ask for it with --path"
    return ""


def _take(measures: list[Measure], bench: Bench, progress: bool) -> tuple[Scores, Scores]:
    scores: Scores = {}
    best: Scores = {}
    with tqdm(measures, unit="probe", disable=None if progress else True, leave=False) as bar:
        for measure in bar:
            bar.set_description(f"probe {measure.name}")
            last, peak = fit_and_score(measure, bench)
            scores |= last
            best |= peak
            logger.info("%s: %s", measure.name, last)
    return scores, best


def _nested(scores: Scores) -> dict[str, Any]:
    """{"r2_path.both.3": x} → {"r2_path": {"both": {"3": x}}}."""
    nested: dict[str, Any] = {}
    for key, value in scores.items():
        *levels, last = key.split(".")
        inner = nested
        for level in levels:
            inner = inner.setdefault(level, {})
        inner[last] = value
    return nested
