"""The account that stands beside every number: how it came about (SPEC G 40)."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from seqjepa.evaluate.banks import Banks
from seqjepa.evaluate.battery import Lengths, Subject
from seqjepa.evaluate.protocol import Protocol
from seqjepa.training.checkpoint import LoadedRun
from shards.reader import ShardSet

R2 = {
    "avg": "mean over dimensions of 1 - SSE/SST (scikit-learn)",
    "pool": "sums over all entries (SIE)",
    "path": "avg",
}


def account_of(
    protocol: Protocol, loaded: LoadedRun, stored: ShardSet, banks: Banks, subject: Subject
) -> dict[str, Any]:
    """JSON values without nulls."""
    config, train = loaded.config, banks.train
    return {
        "fidelity": config.fidelity,
        "model_mode": "eval, frozen",
        "method": config.method,
        "m_tr": config.data.context,
        "epochs": config.optim.epochs,
        "dataset": stored.info.name,
        "resolution": banks.height,
        "train_samples": len(train),
        "val_samples": len(banks.val),
        "views_per_sample": train.z.shape[1],
        "probe_epochs": _probe_epochs(protocol.lengths, subject),
        "probe_optimizer": "Adam, lr 1e-3, batch 256",
        "reported": "last epoch",
        "r2": R2,
        "train_draws": _train_draws(protocol, banks),
        "val_draws": protocol.val_draws,
        "seed": protocol.seed,
        "splits": list(banks.splits),
        "normalisation": banks.normalisation,
        "features": str(train.z.dtype).removeprefix("torch."),
        **({"fixating": asdict(banks.how) | {"transfer": banks.transfer}} if banks.how else {}),
    }


def _probe_epochs(lengths: Lengths, subject: Subject) -> dict[str, int]:
    if subject.action == "position":
        return {
            "classification": lengths.epochs, "position": lengths.linear_regressor, "path": lengths.linear_regressor
        }  # fmt: skip
    return {"classification": lengths.epochs, "rotation": lengths.epochs, "hue": lengths.linear_regressor}


def _train_draws(protocol: Protocol, banks: Banks) -> dict[str, Any]:
    """How many different draws of views a probe saw while it learned: of single views, and of sequences."""
    if draws := banks.train.different_draws:
        return {"z": draws, "z_agg": draws, "views_per_draw": banks.train.run_length}
    return {"z": "new each epoch", "z_agg": min(protocol.lengths.draws, protocol.lengths.epochs)}
