"""The account that stands beside every number: how it came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from seqjepa.data.augmented import Augmenting
from seqjepa.data.fixations import Fixating
from seqjepa.data.known_sets import classes_sha256
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.banks import Banks
from seqjepa.evaluate.battery import AUGMENTATIONS, Lengths, Subject
from seqjepa.evaluate.intervals import LEVEL, RESAMPLES
from seqjepa.evaluate.protocol import Protocol
from seqjepa.methods.base import Aggregating
from seqjepa.models.precision import FULL, training_precision
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet

R2 = {
    "avg": "mean over dimensions of 1 - SSE/SST (scikit-learn)",
    "pool": "sums over all entries (SIE)",
    "path": "avg",
}


def account_of(
    protocol: Protocol,
    loaded: LoadedRun,
    stored: ShardSet,
    banks: Banks,
    subject: Subject,
    epochs: Sequence[Mapping[str, object]] = (),
) -> dict[str, Any]:
    """JSON values without nulls. epochs: lines of the run's metrics.jsonl."""
    config, train = loaded.config, banks.train
    return {
        "fidelity": config.fidelity,
        "model_mode": "eval, frozen",
        "method": config.method,
        "m_tr": config.data.context,
        "epochs": config.optim.epochs,
        **({} if loaded.epochs is None else {"trained_epochs": loaded.epochs}),
        "dataset": stored.info.name,
        "classes_sha256": classes_sha256(stored.info.classes),
        "resolution": banks.height,
        "train_samples": len(train),
        "val_samples": len(banks.val),
        "views_per_sample": train.z.shape[1],
        "probe_epochs": _probe_epochs(protocol.lengths, subject),
        "probe_optimizer": "Adam, lr 1e-3, batch 256",
        "linear_regressors": "standardised" if protocol.standardise else "plain",
        "reported": "last epoch",
        "r2": R2,
        "train_draws": _train_draws(protocol, banks),
        "val_draws": protocol.val_draws,
        "m_val": list(protocol.m_val),
        "seed": protocol.seed,
        "suite": protocol.suite,
        "intervals": f"{LEVEL:.0%} bootstrap, {RESAMPLES} resamples of validation objects",
        "splits": list(banks.splits),
        "fingerprints": list(banks.fingerprints),
        "normalisation": banks.normalisation,
        "features": str(train.z.dtype).removeprefix("torch."),
        "precision": {
            "training": training_precision(config.train.precision, [str(line.get("device", "")) for line in epochs]),
            "encoder": FULL,
            "probes": FULL,
        },
        **_seeing(banks, subject, config.data.augment),
    }


def _seeing(banks: Banks, subject: Subject, recipe: str) -> dict[str, Any]:
    """How patches were taken, or images augmented; nothing for stored views."""
    if isinstance(banks.how, Fixating):
        return {"fixating": asdict(banks.how) | {"transfer": banks.transfer}}
    if isinstance(banks.how, Augmenting):
        patches = {} if banks.patches is None else {"position_patches": banks.patches.as_json()}
        return {"augmenting": {"recipe": recipe} | _recipe(banks.how) | _compared(banks.train, subject), **patches}
    return {"augmenting": {"recipe": "as baked"} | _compared(banks.train, subject)} if subject.augmented else {}


def _recipe(how: Augmenting) -> dict[str, Any]:
    """Field by field."""
    pipelines = {pipeline: _as_json(fields) for pipeline, fields in asdict(how.recipe).items()}
    return {**pipelines, "size": how.size, "conditioned_on": how.action}


def _compared(bank: FeatureBank, subject: Subject) -> dict[str, Any]:
    """Of what pairs of augmented views were made and how parameters were scaled (docs/fidelity.md #20, 22)."""
    both, views, scaling = subject.author and isinstance(subject.method, Aggregating), bank.run_length, bank.scaling
    pairs = f"the first two of {views} views" if both else "an observation view and a target view"
    return {
        "z_agg": f"the first M_val of {views} views, the last of which is a target view",
        "r2_pairs": pairs,
        "r2_targets": "z-scores, second view less first" if scaling else "over their norm, second view less first",
        "r2_views": views if both else 2,
        "scaling": scaling.as_json() if scaling else "norm over the views of a draw",
    }


def _as_json(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a pipeline without nulls or tuples: what is not done is "none"."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return {name: "none" if value is None else value for name, value in plain.items()}


def _probe_epochs(lengths: Lengths, subject: Subject) -> dict[str, int]:
    deep, flat = lengths.epochs, lengths.linear_regressor
    if subject.augmented:
        parts = {part: deep if by_mlp else flat for part, by_mlp in AUGMENTATIONS.items()}
        parts |= {"position": flat} if subject.patches else {}
    elif subject.action == "position":
        parts = {"position": flat, "path": flat}
    else:
        parts = {"rotation": deep, "hue": flat}
    return {"classification": deep, **parts}


def _train_draws(protocol: Protocol, banks: Banks) -> dict[str, Any]:
    """How many different draws of views a probe saw while it learned: of single views, and of sequences."""
    if draws := banks.train.different_draws:
        return {"z": draws, "z_agg": min(draws, _aggregated(protocol)), "views_per_draw": banks.train.run_length}
    if banks.train.independent:
        mixed = f"new each epoch, of {banks.train.runs} runs"
        return {"z": mixed, "z_agg": _aggregated(protocol), "views_per_draw": banks.train.run_length}
    return {"z": "new each epoch", "z_agg": _aggregated(protocol)}


def _aggregated(protocol: Protocol) -> int:
    return min(protocol.lengths.draws, protocol.lengths.epochs)
