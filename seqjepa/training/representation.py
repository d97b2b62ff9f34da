"""k-NN accuracy and RankMe of a bounded number of samples, every train.monitor_epochs: how features are, not the loss.

Both are those of `seqjepa evaluate` (feature_metrics.py), of fewer samples: k-NN (k = 20, cosine) judges up to
SAMPLES validation samples by up to SAMPLES training samples, RankMe is of these training samples. They are seen as in
training, of always the same draws, in eval mode: weights, statistics and random numbers stay as they are. Of several
ranks the first one computes and the others wait.

Letters: n samples, M context views, D and W widths of z and z_AGG.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seqjepa.data.decode_ahead import Reading
from seqjepa.data.loader import Loader
from seqjepa.data.sampling import Sampling, long_enough, of_few_shards, part_of
from seqjepa.feature_metrics import knn_classes, rankme
from seqjepa.methods.base import Aggregating, EncodesInContext, Method
from seqjepa.models.embed import embed, in_eval_mode
from seqjepa.precision import full_float32
from seqjepa.training.data import TrainingData, training_views
from seqjepa.training.monitor import FEATURE_NAMES
from shards.reader import ImageIndex, ShardSet, SplitIndex

SAMPLES = 1024
BATCH = 64
FEW = 8


@dataclass(frozen=True)
class EncodedSample:
    """features: "z" float32 [n, D] of each first view and, of methods with an aggregate, "z_agg" [n, W] of M views;
    labels int64 [n], −1 for none. On the device."""

    features: dict[str, Tensor]
    labels: Tensor


class RepresentationMonitor:
    """Measures a method on the labelled training split ("train") and the validation split ("val", else "test")."""

    def __init__(self, shards: Path, source: TrainingData, device: torch.device) -> None:
        self.source, self.device = source, device
        opened = ShardSet.open(shards)
        known = "train" if "train" in opened.splits else source.data.split
        asked = next((name for name in ("val", "test") if name in opened.splits and name != known), None)
        self._known = _some(opened, known, source)
        self._asked = _some(opened, asked, source) if asked else None

    def measure(self, method: Method) -> tuple[dict[str, float], EncodedSample | None]:
        """{"z_knn", "agg_knn" in 0 … 1, "z_rankme", "agg_rankme"}, and the validation features (else training's).

        No k-NN without a validation split or labels; no numbers of features that are not finite, or of ContextSSL,
        whose views are judged after a context. Raises what reading shards raises.
        """
        if isinstance(method, EncodesInContext):
            return {}, None
        with in_eval_mode(method), full_float32(), torch.inference_mode():
            known = self._encode(method, self._known)
            asked = self._encode(method, self._asked) if self._asked is not None else None
            found = {}
            for name, key in FEATURE_NAMES.items():
                if name in known.features and bool(known.features[name].isfinite().all()):
                    found |= {f"{key}_{score}": value for score, value in _scores(name, known, asked).items()}
        return found, asked or known

    def _encode(self, method: Method, index: SplitIndex | ImageIndex) -> EncodedSample:
        config, data = self.source.config, self.source.data
        sampling = Sampling(config.data.context + 1, min(BATCH, len(index)), config.seed, shuffle=False)
        parts: dict[str, list[Tensor]] = {}
        reading = Reading(self.device, workers=0, resident=False)  # it is read once
        with Loader(index, training_views(self.source, config), sampling, reading) as loader:
            for seq in (seq.to(self.device) for seq in loader.epoch(0)):
                M = config.data.context if isinstance(method, Aggregating) else 1
                views = seq.views[:, :M]
                z = embed(method, views.flatten(0, 1), (tuple(data.mean), tuple(data.std))).unflatten(0, (len(seq), M))
                found = {"z": z[:, 0], "labels": seq.labels.clone()}
                if isinstance(method, Aggregating):
                    found["z_agg"] = method.aggregate(z, seq.actions[:, : M - 1]).float()
                for name, value in found.items():
                    parts.setdefault(name, []).append(value)
        whole = {name: torch.cat(values) for name, values in parts.items()}
        return EncodedSample({name: whole[name] for name in FEATURE_NAMES if name in whole}, whole["labels"])


def _some(opened: ShardSet, split: str, source: TrainingData) -> SplitIndex | ImageIndex:
    """Up to SAMPLES samples of a split (of its sequences, where these take several), always the same ones; of a split
    that is shuffled by windows of shards they are of FEW shards, which are fetched for them."""
    data, seed = source.config.data, source.config.seed
    is_views = isinstance(source.index, SplitIndex)
    index = (opened.split if is_views else opened.images)(split, tars=False)
    if data.shuffle_window and split == source.data.split:
        index = of_few_shards(index, FEW)
    if isinstance(index, SplitIndex):
        index = long_enough(index, data.order, data.context + 1, data.stride)
    return part_of(index, SAMPLES / max(len(index), SAMPLES), seed)


def _scores(name: str, known: EncodedSample, asked: EncodedSample | None) -> dict[str, float]:
    found = {"rankme": rankme(known.features[name])}
    if asked is None:
        return found
    (x, labels), (y, right) = _labelled(known, name), _labelled(asked, name)
    if len(labels) and len(right):
        found["knn"] = float((knn_classes(x, labels, y) == right).double().mean())
    return found


def _labelled(sample: EncodedSample, name: str) -> tuple[Tensor, Tensor]:
    there = sample.labels >= 0
    return sample.features[name][there], sample.labels[there]
