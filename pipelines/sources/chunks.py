"""Which frames of a sequence make a sample: a long one is cut into several, so that short ones are little padded."""

from __future__ import annotations

import numpy as np

FEWEST, MOST = 8, 64
SIMILAR = 0.25  # padding up to which one sample a sequence is plainer than several
OVERHEAD = 1  # what a sample's other members take, in frames


def choose_views_per_sample(lengths: np.ndarray) -> int:
    """N for sequences of `lengths` [Q] frames.

    The longest, if that is at most 64 and pads little. Otherwise what stores least of 8 … 64; of equals the largest.
    """
    longest = int(lengths.max())
    if longest <= MOST and padding_share(lengths, longest) <= SIMILAR:
        return longest
    return min(range(FEWEST, MOST + 1), key=lambda n: (_samples(lengths, n) * (n + OVERHEAD), -n))


def padding_share(lengths: np.ndarray, views: int) -> float:
    """The share of stored frames that are repetitions, where a sample has `views` slots."""
    return 1 - int(lengths.sum()) / (_samples(lengths, views) * views)


def _samples(lengths: np.ndarray, views: int) -> int:
    return int((-(-lengths // views)).sum())


def chunk_bounds(bounds: np.ndarray, views: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First row, row behind the last, and number in its sequence of every sample, int64 [S] each.

    bounds: int64 [Q + 1], first row of each sequence, and R. views: at most so many rows a sample; 0: a whole sequence.
    """
    lengths = np.diff(bounds)
    views = views or int(lengths.max())
    samples = -(-lengths // views)
    firsts = np.cumsum(samples) - samples
    chunk = np.arange(samples.sum()) - np.repeat(firsts, samples)
    starts = np.repeat(bounds[:-1], samples) + chunk * views
    return starts, np.minimum(starts + views, np.repeat(bounds[1:], samples)), chunk
