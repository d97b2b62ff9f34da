"""ViewSequence: what every loader yields and every method receives.

Shape letters used throughout: B batch, M context views, T = M + 1 views (the last is the prediction target),
C, H, W channels and pixels, A action size, P parameters of a view, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqjepa.devices import constant, to_device

KindOfViews = Literal["stored views", "patches", "augmentations"]
"""See data/views.py."""
VECTORS = 2
"""Axes of a batch of views that are feature vectors: [B, D]."""


@dataclass(frozen=True)
class ViewSequence:
    """A batch of short sequences of views and the actions between them (paper §2.2, §A.1).

    views    uint8 or float [B, T, C, H, W]   uint8 from a loader, strided as channels-last; the last view is the target
             or float [B, T, D]               of sets of features: what a frozen encoder made of each
    actions  float32 [B, T-1, A]              actions[:, i] takes view i to view i + 1
    params   float32 [B, T, P]                absolute transformation parameters of each view, in the shard's units
    labels   int64 [B]                        -1 where a split has none
    keys     list[str] of length B            sample keys, for tracing and exact resume
    """

    views: Tensor
    actions: Tensor
    params: Tensor
    labels: Tensor
    keys: list[str]

    def __len__(self) -> int:
        return self.views.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = True) -> ViewSequence:
        """The same batch on `device` (keys stay where they are). non_blocking: views that are page-locked may still be
        read when this returns."""
        small = {name: to_device(getattr(self, name), device) for name in ("actions", "params", "labels")}
        return replace(self, views=self.views.to(device, non_blocking=non_blocking), **small)


class Drawn(NamedTuple):
    """Sequences as views.Views draws them: a ViewSequence without what is known of its samples.

    rows  int64 [B]: the samples, rows of the split's index
    """

    rows: NDArray[np.int64]
    views: Tensor
    actions: Tensor
    params: Tensor


@dataclass(frozen=True)
class ViewPlan:
    """What is to be read for a batch of stored views: B samples of T views, and what is known of them beforehand.

    rows     int64 [B]                 rows of the split's index
    samples  int64 [B, T]              the sample that holds each view: the row's own, or another of its sequence
    slots    int64 [B, T]              view slots of these, distinct: in random order, a window, or a stored sequence
    table    decode_worker.ROW [B·T]   where the bytes of each view are
    actions  float32 [B, T-1, A]       params  float32 [B, T, P]
    """

    rows: NDArray[np.int64]
    samples: NDArray[np.int64]
    slots: NDArray[np.int64]
    table: np.ndarray
    actions: NDArray[np.float32]
    params: NDArray[np.float32]

    def part(self, start: int, stop: int) -> ViewPlan:
        """Samples start … stop of this plan, without copying."""
        T, some = self.slots.shape[1], slice(start, stop)
        table = self.table[start * T : stop * T]
        actions, params = self.actions[some], self.params[some]
        return ViewPlan(self.rows[some], self.samples[some], self.slots[some], table, actions, params)

    def drawn(self, views: Tensor) -> Drawn:
        """With the views that were read."""
        return Drawn(self.rows, views, _owned(self.actions), _owned(self.params))


def _owned(array: np.ndarray) -> Tensor:
    """A copy that may be changed, made without giving up the GIL (as numpy's and torch's own copies do)."""
    return torch.from_numpy(np.frombuffer(bytearray(array.data), array.dtype).reshape(array.shape))


def normalise(
    views: Tensor, mean: Tensor | tuple[float, ...], std: Tensor | tuple[float, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """uint8 [..., C, H, W] in 0..255 → (x / 255 − mean) / std in `dtype`, on the device where `views` is.

    mean, std: per channel, for pixels in [0, 1]. One multiply and one add, so that a CPU loader can ship bytes.
    """
    std_t, mean_t = (
        (values if isinstance(values, Tensor) else constant(values, views.device)).view(-1, 1, 1)
        for values in (std, mean)
    )
    return torch.addcmul(-mean_t / std_t, views.to(torch.float32), 1.0 / (255.0 * std_t)).to(dtype)
