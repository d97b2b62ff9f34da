"""Triplets for the odd-one-out task: which objects, which of their views, and where the odd one stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqjepa.data.actions import actions_between
from seqjepa.data.draws import Purpose, choose_distinct, draw_u32
from seqjepa.evaluate.bank import FeatureBank

VIEWS = 3
FEWEST = 2048
_SHIFT = np.uint64(32)


@dataclass(frozen=True)
class Triplets:
    """T sequences of three views, two of one object and one of an object of another class.

    samples, slots  int64 [T, 3]: whose view, and which;  odd  int64 [T]: the place of the one that does not belong
    """

    samples: np.ndarray
    slots: np.ndarray
    odd: np.ndarray

    def __len__(self) -> int:
        return len(self.odd)

    def z(self, bank: FeatureBank) -> Tensor:
        """Features float32 [T, 3, D], where the bank has its own."""
        samples, slots = (torch.from_numpy(part).to(bank.z.device) for part in (self.samples, self.slots))
        return bank.z[samples, slots].float()

    def actions(self, bank: FeatureBank, kind: str) -> np.ndarray:
        """float32 [T, 2, A] from each view to the next by their parameters, also from one object to the other."""
        return actions_between(bank.params[self.samples, self.slots], bank.param_names, kind)


def trials(samples: int) -> int:
    """T: every object gives the pair's candidates equally often, and there are at least 2,048 triplets."""
    return samples * -(-FEWEST // samples)


def draw_triplets(bank: FeatureBank, seed: int, draw: int, purpose: Purpose) -> Triplets:
    """Triplets as a function of (seed, draw, purpose); needs two classes, and two views of every object.

    Object t mod S is drawn with one of any other class, and a coin says which of the two is the odd one: whatever the
    sizes of classes, no object is odd more often than not, so a single view gives nothing away.
    """
    size = len(bank)
    number = np.arange(trials(size))
    drawn = draw_u32(seed, draw, purpose, number, 6)
    first = number % size
    second = _of_another_class(bank.labels.cpu().numpy(), first, drawn[:, 0])
    swap = drawn[:, 1] < 2**31
    pair, single = np.where(swap, second, first), np.where(swap, first, second)
    twice = choose_distinct(bank.n_views[pair], drawn[:, 2:4])
    once = choose_distinct(bank.n_views[single], drawn[:, 4:5])
    odd = _below(drawn[:, 5], VIEWS)
    return Triplets(_with_odd(np.stack([pair, pair], 1), single[:, None], odd), _with_odd(twice, once, odd), odd)


def _of_another_class(labels: np.ndarray, first: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """For each sample int64 [T] one of the samples of other classes, all equally likely: int64 [T]."""
    by_class = np.argsort(labels, kind="stable")
    start = np.searchsorted(labels[by_class], labels[first], side="left")
    stop = np.searchsorted(labels[by_class], labels[first], side="right")
    pick = _below(numbers, len(labels) - (stop - start))
    return by_class[np.where(pick < start, pick, pick + stop - start)]


def _below(numbers: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """32-bit numbers [T] → int64 in 0 … n − 1."""
    return (numbers.astype(np.uint64) * np.asarray(n, np.uint64) >> _SHIFT).astype(np.int64)


def _with_odd(two: np.ndarray, one: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """[T, 2] and [T, 1] → [T, 3] with the one at place `odd`, the two in order around it."""
    order = np.argsort(np.stack([odd, (odd + 1) % VIEWS, (odd + 2) % VIEWS], axis=1), axis=1)
    return np.take_along_axis(np.concatenate([one, two], axis=1), order, axis=1)
