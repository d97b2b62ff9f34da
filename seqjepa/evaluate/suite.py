"""Evaluation of a run on stored views: encode once, probe from the cache, write the numbers (SPEC D.0–D.4)."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from seqjepa.devices import pick_device
from seqjepa.evaluate.answers import Bench, answer
from seqjepa.evaluate.features import FeatureBank, encode_split
from seqjepa.evaluate.freeze import frozen
from seqjepa.evaluate.questions import PAPER_EPOCHS, Question, Scores, Subject, linear_epochs, questions_for
from seqjepa.evaluate.results import merge_results
from seqjepa.methods.base import as_module
from seqjepa.training.checkpoint import LoadedRun, load_run
from shards.errors import ConfigError
from shards.reader import ShardSet

logger = logging.getLogger(__name__)
CPU_AGG_DRAWS = 16


@dataclass(frozen=True)
class Protocol:
    """How the probes are trained and scored; see `evaluate_run`."""

    m_val: tuple[int, ...]
    probe_epochs: int
    agg_draws: int
    val_draws: int
    seed: int
    splits: tuple[str, str]


def evaluate_run(
    run: Path,
    shards: Path,
    *,
    untrained: bool = False,
    device: str = "auto",
    m_val: Iterable[int] = range(1, 9),
    probe_epochs: int | None = None,
    agg_draws: int | None = None,
    val_draws: int = 1,
    seed: int = 0,
    train_split: str = "train",
    val_split: str = "val",
    out: Path | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Trains the probes of SPEC D.1, D.2 and D.4 on frozen features of a run and scores them on unseen objects.

    untrained     the run's initial weights instead of its trained ones
    m_val         context sizes for z_AGG; those larger than a sample has views are left out, and said to be
    probe_epochs  None: the paper's 300, and 50 for linear regressors; else n, and n/6 for linear regressors
    agg_draws     training draws of views for z_AGG, cycled over epochs. None: a new draw every epoch on a GPU, 16 on a
                  CPU, where running the aggregator every epoch would take longer than everything else together
    val_draws     fixed draws of views under which each validation object is seen; scores are over all of them
    out           folder of results.json (default: the run); numbers of the other weights that it has are kept

    Returns {"top1_z", "top1_agg": {"1": …}, "r2_rel_rot_avg", "r2_rel_rot_pool", "r2_indiv_rot_…", "r2_hue_…",
    "best", "seconds", "protocol"}; accuracies in 0..1. Raises UsageError for a run, split or device that is not there,
    FailureError if the model did not stay as it was.
    """
    started = time.monotonic()
    where, weights = pick_device(device), "untrained" if untrained else "trained"
    epochs = probe_epochs or PAPER_EPOCHS
    cycled = agg_draws or (epochs if where.type == "cuda" else CPU_AGG_DRAWS)
    sizes = tuple(sorted(set(m_val)))
    protocol = Protocol(sizes, epochs, min(cycled, epochs), val_draws, seed, (train_split, val_split))
    results = _measure(load_run(run, where, untrained=untrained), ShardSet.open(shards), protocol, where, progress)
    results |= {"weights": weights, "seconds": round(time.monotonic() - started, 2)}
    merge_results(out or run, weights, results)
    return results


def _measure(
    loaded: LoadedRun, stored: ShardSet, protocol: Protocol, device: torch.device, progress: bool
) -> dict[str, Any]:
    """Encodes both splits and asks every question, with the model frozen; scores, the best seen, and the protocol."""
    _check_views(loaded, stored)
    with frozen(as_module(loaded.method)) as digest:
        banks = [_encode(loaded, stored, split, device, progress) for split in protocol.splits]
        subject = _subject(loaded, stored, banks)
        questions, skipped = questions_for(subject, protocol.m_val, protocol.probe_epochs, protocol.agg_draws)
        bench = Bench(banks[0], banks[1], device, protocol.seed, protocol.val_draws)
        scores, best = _ask(questions, bench, progress)
    described = _described(protocol, loaded, stored, banks)
    return {
        **_nested(scores),
        "best": _nested(best),
        "protocol": {"model_sha256": digest, **described, "skipped": skipped},
    }


def _check_views(loaded: LoadedRun, stored: ShardSet) -> None:
    found, wanted = (stored.info.spec.height, stored.info.spec.width), (loaded.data.height, loaded.data.width)
    if found != wanted:
        raise ConfigError(
            f"{stored.path} holds views of {found[0]}×{found[1]}, the run was trained on {wanted[0]}×{wanted[1]}; "
            "evaluate on shards of the same size"
        )


def _encode(loaded: LoadedRun, stored: ShardSet, split: str, device: torch.device, progress: bool) -> FeatureBank:
    statistics = (tuple(loaded.data.mean), tuple(loaded.data.std))
    threads = min(16, len(os.sched_getaffinity(0)))
    return encode_split(loaded.method, stored.split(split), statistics, device, threads=threads, progress=progress)


def _subject(loaded: LoadedRun, stored: ShardSet, banks: list[FeatureBank]) -> Subject:
    return Subject(
        method=loaded.method,
        action=loaded.data.action,
        classes=max(len(stored.info.classes), *(int(bank.labels.max()) + 1 for bank in banks)),
        param_names=banks[0].param_names,
        fewest_views=min(bank.fewest_views for bank in banks),
        labelled=all(int(bank.labels.min()) >= 0 for bank in banks),
    )


def _ask(questions: list[Question], bench: Bench, progress: bool) -> tuple[Scores, Scores]:
    scores: Scores = {}
    best: Scores = {}
    with tqdm(questions, unit="probe", disable=None if progress else True, leave=False) as bar:
        for question in bar:
            bar.set_description(f"probe {question.name}")
            last, peak = answer(question, bench)
            scores |= last
            best |= peak
            logger.info("%s: %s", question.name, last)
    return scores, best


def _nested(scores: Scores) -> dict[str, Any]:
    """{"top1_agg.3": x} → {"top1_agg": {"3": x}}."""
    nested: dict[str, Any] = {}
    for key, value in scores.items():
        name, _, size = key.partition(".")
        if size:
            nested.setdefault(name, {})[size] = value
        else:
            nested[name] = value
    return nested


def _described(protocol: Protocol, loaded: LoadedRun, stored: ShardSet, banks: list[FeatureBank]) -> dict[str, Any]:
    """What must be written beside every number (SPEC G 40)."""
    config, epochs = loaded.config, protocol.probe_epochs
    return {
        "fidelity": config.fidelity,
        "model_mode": "eval, frozen",
        "method": config.method,
        "m_tr": config.data.context,
        "epochs": config.optim.epochs,
        "dataset": stored.info.name,
        "resolution": stored.info.spec.height,
        "train_samples": len(banks[0]),
        "val_samples": len(banks[1]),
        "views_per_sample": banks[0].z.shape[1],
        "probe_epochs": {"classification": epochs, "rotation": epochs, "hue": linear_epochs(epochs)},
        "probe_optimizer": "Adam, lr 1e-3, batch 256",
        "reported": "last epoch",
        "r2": {"avg": "mean over dimensions of 1 - SSE/SST (scikit-learn)", "pool": "sums over all entries (SIE)"},
        "train_draws": {"z": "new each epoch", "z_agg": protocol.agg_draws},
        "val_draws": protocol.val_draws,
        "seed": protocol.seed,
        "splits": list(protocol.splits),
        "features": str(banks[0].z.dtype).removeprefix("torch."),
    }
