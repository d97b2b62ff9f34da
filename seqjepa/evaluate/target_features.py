"""Features of the target encoder f̄, which predictions of seq-JEPA are compared with (SPEC D.5)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seqjepa.evaluate.banks import decoding_threads
from seqjepa.evaluate.seeing import statistics
from seqjepa.evaluate.study import Case
from seqjepa.evaluate.view_bank import encode_views
from seqjepa.methods.seq_jepa import SeqJEPA

KEPT_AS = "target features"


@dataclass(frozen=True)
class TargetBranch:
    """The target encoder in the place of the online one."""

    method: SeqJEPA

    def embed(self, views: Tensor) -> Tensor:
        """[B, C, H, W] → f̄ [B, D]."""
        return self.method.embed_target(views)


def target_features(case: Case) -> Tensor:
    """f̄ of every stored view of the validation split: [S, N, D], as `case.banks.val.z`. Encoded once for a case."""
    method = case.loaded.method
    assert isinstance(method, SeqJEPA), "other methods have no target features that they predict"
    if KEPT_AS not in case.kept:
        case.kept[KEPT_AS] = encode_views(
            TargetBranch(method),
            case.stored.split(case.banks.splits[1]),
            statistics(case.loaded, case.stored, case.banks.normalisation),
            case.bench.device,
            threads=decoding_threads(),
            progress=case.progress,
        ).z
    return case.kept[KEPT_AS]


def why_not_retrieved(case: Case) -> str:
    """Why predicted views are not looked for among the others; empty if they are."""
    if case.banks.how is not None:
        return "needs stored views; these are drawn anew from images"
    if int(case.banks.val.n_views.max()) < 2:
        return "samples have one view each"
    if isinstance(case.loaded.method, SeqJEPA) and not case.loaded.method.condition_predictor:
        return "the predictor is not told the action"
    return ""
