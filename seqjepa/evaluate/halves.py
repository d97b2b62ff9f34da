"""The same measures on one part of z: of methods whose features have an invariant and an equivariant half (SIE)."""

from __future__ import annotations

from dataclasses import replace

from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.fit_and_score import Bench


def bench_of(bench: Bench, columns: slice) -> Bench:
    """The bench with nothing of z [S, N, D] but some of its columns, of views and of whole images."""
    return replace(bench, train=_bank_of(bench.train, columns), val=_bank_of(bench.val, columns))


def _bank_of(bank: FeatureBank, columns: slice) -> FeatureBank:
    whole = bank.z_image
    return replace(bank, z=bank.z[..., columns], z_image=None if whole is None else whole[..., columns])
