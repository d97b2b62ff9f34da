"""Stored views that live in memory, or on a GPU, decoded once: batches are gathered there, and nothing is read again.

Letters: B samples, T views of a sequence, F distinct views of a split, one after the other (shards/sequences.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.ahead import DecodedAhead, Reading, damaged, places_of
from seqjepa.data.decode_worker import RowError, Setup
from seqjepa.data.images import free_bytes
from seqjepa.data.sampling import EpochOrder, Sampling
from seqjepa.data.sequence import Drawn, ViewPlan
from seqjepa.data.supply import supply_for
from seqjepa.devices import to_device
from shards.errors import DamageError
from shards.split_index import SplitIndex

_VIEWS_AT_ONCE = 1024  # decoded, when a whole split is


def lives_there(index: SplitIndex, reading: Reading, world_size: int) -> bool:
    """Whether the decoded views of a split stay on the device: if asked, or if they fit on a GPU.

    In a machine's memory they do only if asked: a short training never sees most of what would be decoded.
    """
    if reading.resident is not None or reading.device.type == "cpu":
        return bool(reading.resident)
    views = int(index.sequences.firsts[-1])
    return views * index.height * index.width * 3 <= free_bytes(reading.device, world_size)


def frames_of(index: SplitIndex, plan: ViewPlan) -> Tensor:
    """int64 [B·T]: which of the F views of the split each view of a plan is."""
    slots = plan.slots % index.n_views[plan.samples]  # those beyond a sample's views repeat them
    return torch.from_numpy((index.sequences.firsts[plan.samples] + slots).ravel())


class ResidentSource:
    """Batches of stored views uint8 on reading.device, the same as stored.StoredSource's; they live as long as needed.

    plan: (epoch, step) → what that batch holds; steps of an epoch. The split is read by worker processes when the first
    batch is asked for.
    """

    resident = True

    def __init__(self, index: SplitIndex, plan: Callable[[int, int], ViewPlan], steps: int, reading: Reading) -> None:
        self._index, self._plan, self.steps, self._reading = index, plan, steps, reading
        self._kept: Tensor | None = None  # uint8 [F, H, W, 3]

    def batch(self, epoch: int, step: int) -> Drawn:
        """This rank's piece of that batch. DamageError: a view of the split, whichever it is, cannot be decoded."""
        if self._kept is None:
            self._kept = decode_all(self._index, self._reading)
        plan = self._plan(epoch, step)
        chosen = to_device(frames_of(self._index, plan), self._kept.device)
        views = self._kept.index_select(0, chosen).unflatten(0, plan.slots.shape).permute(0, 1, 4, 2, 3)
        return plan.drawn(views)

    def close(self) -> None:
        """Let go of the views. Asking for another batch reads them again."""
        self._kept = None


@dataclass(frozen=True)
class _Run:
    """Consecutive views: their samples and slots int64 [n], and where their bytes are, ROW [n]."""

    samples: np.ndarray
    slots: np.ndarray
    table: np.ndarray


def decode_all(index: SplitIndex, reading: Reading) -> Tensor:
    """uint8 [F, H, W, 3] on reading.device: every distinct view of a split. DamageError names one that is damaged."""
    from tqdm import tqdm

    firsts, slots = index.sequences.firsts, index.offsets.shape[1]
    at_once = max(1, min(len(index), _VIEWS_AT_ONCE // slots))  # samples
    order = EpochOrder(index.name, len(index), Sampling(1, at_once, 0, shuffle=False))
    setup, damage = Setup.of(index, rows=at_once * slots), partial(_damage, index)
    plan, supply = partial(_run, index, order), partial(supply_for, index, order)
    ahead, total = DecodedAhead(plan, order.steps, setup, damage, reading, supply), int(firsts[-1])
    kept = torch.empty((total, index.height, index.width, 3), dtype=torch.uint8, device=reading.device)
    where = reading.device.type
    with tqdm(total=total, desc=f"load to {where}", unit="view", disable=None, leave=False) as bar:
        try:
            for step in range(order.steps):
                run, (images,) = ahead.fetch(0, step)
                start = int(firsts[run.samples[0]])
                kept[start : start + len(images)].copy_(torch.from_numpy(images), non_blocking=True)
                bar.update(len(images))
            if kept.is_cuda:
                torch.cuda.synchronize(kept.device)  # whatever stream uses them finds them there
        finally:
            ahead.close()
    return kept


def _run(index: SplitIndex, order: EpochOrder, epoch: int, step: int) -> _Run:
    rows = order.rows(epoch, step, step + 1)
    firsts = index.sequences.firsts
    samples, slots = index.sequences.locate(np.arange(int(firsts[rows[0]]), int(firsts[rows[-1] + 1])))
    return _Run(samples, slots, places_of(index, samples, slots))


def _damage(index: SplitIndex, run: _Run, error: RowError) -> DamageError:
    return damaged(index, int(run.samples[error.row]), f"view {run.slots[error.row]}", error)
