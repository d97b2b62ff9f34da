"""What an evaluation was asked for."""

from __future__ import annotations

from dataclasses import dataclass

from seqjepa.evaluate.tasks import Lengths


@dataclass(frozen=True)
class Protocol:
    """How splits are encoded and probes trained and scored; see `evaluate_run`. None: decided by what there is."""

    m_val: tuple[int, ...]
    lengths: Lengths
    val_draws: int = 1
    seed: int = 0
    train_split: str | None = None
    val_split: str | None = None
    patch: int | None = None
    normalisation: str | None = None
    train_draws: int | None = None
    path: bool | None = None
    contexts: tuple[int, ...] | None = None
    suite: str = "probes"
    standardise: bool = False
