"""Features of the target encoder f̄, which predictions of seq-JEPA are compared with (retrieval)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from seqjepa.data.actions import AUGMENTATION_PARTS
from seqjepa.evaluate.banks import decoding_threads, validation_views
from seqjepa.evaluate.image_bank import encode_images
from seqjepa.evaluate.seeing import statistics
from seqjepa.evaluate.study import Case
from seqjepa.evaluate.view_bank import encode_views
from seqjepa.methods.base import Method
from seqjepa.methods.conv_jepa import ConvJEPA
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
    """f̄ of every view of the validation split: [S, N, D], as `case.banks.val.z`. Encoded once for a case."""
    if KEPT_AS not in case.kept:
        case.kept[KEPT_AS] = _encoded(case)
    return case.kept[KEPT_AS]


def _encoded(case: Case) -> Tensor:
    method, banks, device = case.loaded.method, case.banks, case.bench.device
    assert isinstance(method, SeqJEPA), "other methods have no target features that they predict"
    branch, split, threads = TargetBranch(method), banks.splits[1], decoding_threads()
    stats = statistics(case.loaded, case.stored, banks.normalisation)
    if banks.how is None:
        index = case.stored.split(split)
        return encode_views(branch, index, stats, device, threads=threads, progress=case.progress).z
    drawn = validation_views(banks.how, case.protocol, stats[0])
    images = case.stored.images(split)
    return encode_images(branch, images, drawn, stats, device, threads=threads, progress=case.progress).z


def why_not_retrieved(case: Case) -> str:
    """Why predicted views are not looked for among the others; empty if they are."""
    loaded = case.loaded
    if int(case.banks.val.n_views.max()) < 2:
        return "samples have one view each"
    if not _is_told(loaded.method):
        return "the predictor is not told the action"
    if loaded.config.fidelity == "author" and loaded.data.action in AUGMENTATION_PARTS:
        return "the released actions of augmentations depend on which views are shown beside them"
    return ""


def _is_told(method: Method) -> bool:
    if isinstance(method, SeqJEPA):
        return method.condition_predictor
    return method.conditioned if isinstance(method, ConvJEPA) else True
