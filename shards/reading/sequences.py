"""Sequences of a split: how its samples join where a sequence takes several of them, and which windows there are.

Letters: S samples in stored order, F distinct views (frames) of all samples, one after the other, N view slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def window_span(views: int, stride: int) -> int:
    """Steps that a window of T views covers, each `stride`-th of which is a view."""
    return (views - 1) * stride + 1


@dataclass(frozen=True)
class Sequences:
    """Frames are numbered 0 … F − 1 through the whole split; those of a sequence follow each other.

    n_views   int [S], distinct views of each sample
    chunk     int [S], which part of its sequence a sample is; 0 begins one. All 0: every sample is a sequence
    view_ids  int [S, N], numbers of the views in the source: the steps, in ordered sets
    """

    n_views: NDArray[np.integer]
    chunk: NDArray[np.integer]
    view_ids: NDArray[np.integer]

    @cached_property
    def firsts(self) -> Ints:
        """int64 [S + 1]: the first frame of each sample, and F."""
        return np.concatenate([[0], np.cumsum(self.n_views, dtype=np.int64)])

    @cached_property
    def ids(self) -> Ints:
        """int64 [S]: the number of each sample's sequence, from 0 on."""
        return np.cumsum(self.chunk == 0, dtype=np.int64) - 1

    @cached_property
    def bounds(self) -> Ints:
        """int64 [Q + 1]: the first frame of each of the Q sequences, and F."""
        return np.concatenate([self.firsts[:-1][self.chunk == 0], self.firsts[-1:]])

    @property
    def starts(self) -> Ints:
        """int64 [S]: the first frame of the sequence that a sample belongs to."""
        return self.bounds[self.ids]

    @property
    def counts(self) -> Ints:
        """int64 [S]: how many frames that sequence has."""
        return np.diff(self.bounds)[self.ids]

    @cached_property
    def steps(self) -> Ints:
        """int64 [F]: the number of each frame in its sequence."""
        return self.view_ids[np.arange(self.view_ids.shape[1]) < self.n_views[:, None]].astype(np.int64)

    @property
    def joined(self) -> bool:
        """Whether any sequence takes more than one sample."""
        return len(self.bounds) <= len(self.n_views)

    def locate(self, frames: Ints) -> tuple[Ints, Ints]:
        """Frames of any shape → (sample, slot) of each."""
        samples = np.searchsorted(self.firsts, frames, side="right") - 1
        return samples, frames - self.firsts[samples]

    def windows(self, span: int) -> Ints:
        """int64 [W], ascending: the first frames of all windows: `span` consecutive steps of one sequence, no gap."""
        if span not in self._windows:
            self._windows[span] = self._find_windows(span)
        return self._windows[span]

    @cached_property
    def _windows(self) -> dict[int, Ints]:
        """Found before, by span."""
        return {}

    def windows_of(self, samples: Ints, span: int) -> tuple[Ints, Ints]:
        """int64 [b] each: where in windows(span) those of each sample's sequence begin, and how many there are."""
        windows, ids = self.windows(span), self.ids[samples]
        begin, end = (np.searchsorted(windows, self.bounds[ids + more]) for more in (0, 1))
        return begin, end - begin

    def longest_run(self) -> Ints:
        """int64 [S]: the most consecutive steps, no gap, that the sequence of a sample has."""
        first = np.ones(len(self.steps), bool)
        first[1:] = np.diff(self.steps) != 1
        first[self.bounds[:-1]] = True
        begin = np.flatnonzero(first)
        length = np.diff(np.append(begin, len(self.steps)))
        of_sequence = np.searchsorted(self.bounds, begin, side="right") - 1
        longest = np.zeros(len(self.bounds) - 1, np.int64)
        np.maximum.at(longest, of_sequence, length)
        return longest[self.ids]

    def draw_windows(self, samples: Ints, span: int, numbers: NDArray[np.uint32]) -> Ints:
        """Frames int64 [b, span] of one window of each sample's sequence, all equally likely; by one number [b] each.

        Every sequence has a window.
        """
        begin, count = self.windows_of(samples, span)
        chosen = begin + (numbers.astype(np.uint64) * count.astype(np.uint64) >> np.uint64(32)).astype(np.int64)
        return self.windows(span)[chosen][:, None] + np.arange(span)

    def _find_windows(self, span: int) -> Ints:
        total, steps = int(self.firsts[-1]), self.steps
        if span > total:
            return np.zeros(0, np.int64)
        first = np.arange(total - span + 1)
        of_sequence = np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))
        last = first + span - 1
        same = of_sequence[first] == of_sequence[last]
        return first[same & (steps[last] - steps[first] == span - 1)]
