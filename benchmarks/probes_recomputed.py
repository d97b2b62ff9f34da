"""The peer of probes.py: the same probes with features that the frozen model makes anew for every batch.

So the paper's protocol and the released code have it: each epoch draws views, and each view goes through the encoder.
Kinder than the original: all pixels lie decoded in memory, where the model is.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.draws import Purpose
from seqjepa.data.one_pass import stored_views
from seqjepa.data.sequence import normalise
from seqjepa.evaluate.heads import Fit, fit, predict
from seqjepa.evaluate.probe_training import validation_pairs
from seqjepa.evaluate.probes import Bench, ProbeTask
from seqjepa.methods.base import Method
from seqjepa.models.embed import PixelStats, embed
from shards.reader import SplitIndex


@dataclass(frozen=True)
class Encoded:
    """Stands in for the features z [S, N, D] of a bank: what is looked up is encoded there and then.

    pixels  uint8 [S, N, 3, H, W]
    plain   the model is called as the released code calls it: all views of a batch at once, in torch's usual layout.
            Else as our encoder is: in passes that fit the cache, channels last
    """

    method: Method
    pixels: Tensor
    stats: PixelStats
    plain: bool = False

    @classmethod
    def plainly(cls, method: Method, pixels: Tensor, stats: PixelStats) -> Encoded:
        """By a copy of the method in torch's usual layout."""
        copied = copy.deepcopy(method)
        copied.to(memory_format=torch.contiguous_format)
        return cls(copied, pixels, stats, plain=True)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    @property
    def shape(self) -> torch.Size:
        return self.pixels.shape[:2]

    def flatten(self, first: int, last: int) -> Encoded:
        """Views by their places: sample · N + slot."""
        return Encoded(self.method, self.pixels.flatten(first, last), self.stats, self.plain)

    def __getitem__(self, at: Any) -> Tensor:
        views = self.pixels[at]
        z = (self._at_once if self.plain else self._in_passes)(views.flatten(0, -4))
        return z.clone().unflatten(0, views.shape[:-3])

    def _in_passes(self, views: Tensor) -> Tensor:
        return embed(self.method, views, self.stats)

    @torch.inference_mode()
    def _at_once(self, views: Tensor) -> Tensor:
        return self.method.embed(normalise(views, *self.stats)).float()


def decoded(index: SplitIndex, device: torch.device, threads: int) -> Tensor:
    """All views of a split: uint8 [S, N, 3, H, W]."""
    pixels = np.zeros((*index.offsets.shape, index.height, index.width, 3), np.uint8)
    for samples, views, found in stored_views(index, 256, threads):
        pixels[samples, views] = found
    return torch.from_numpy(pixels).permute(0, 1, 4, 2, 3).contiguous().to(device)


def probe_recomputed(measure: ProbeTask, bench: Bench, encoded: Encoded, epochs: int) -> tuple[float, dict[str, float]]:
    """Seconds of so many epochs of a probe, and its scores after them on the bench's own validation features.

    Nothing but the epochs is timed: neither the examples that a head is made from nor the scores.
    """
    bank = replace(bench.train, z=encoded)  # type: ignore[arg-type]
    examples = measure.inputs(bench.train, bench.train.draw(bench.seed, 0, Purpose.PROBE, measure.views))
    shown = examples(torch.arange(len(bench.train), device=bench.device))
    began = wait(bench.device)
    head = fit(
        lambda: measure.head(*shown),
        lambda epoch: measure.inputs(bank, bank.draw(bench.seed, epoch, Purpose.PROBE, measure.views)),
        len(bank),
        measure.loss,
        Fit(epochs, bench.seed),
        device=bench.device,
    )
    seconds = wait(bench.device) - began
    x, y = validation_pairs(measure, bench, bench.val)
    return seconds, measure.score(predict(head, x), y)


def validation_seconds(measure: ProbeTask, bench: Bench, encoded: Encoded) -> float:
    """Seconds of one look at the validation split, which the released code takes after every epoch; heads left out."""
    bank = replace(bench.val, z=encoded)  # type: ignore[arg-type]
    began = wait(bench.device)
    validation_pairs(measure, bench, bank)
    return wait(bench.device) - began


def wait(device: torch.device) -> float:
    """The time once the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
