"""Exact pixel sums, so that mean, deviation and PSNR do not depend on the order in which shards were written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shards.errors import FormatError


def _zeros() -> np.ndarray:
    return np.zeros(3, np.int64)


@dataclass
class PixelStats:
    """Integer sums over uint8 RGB pixels; adding two is exact and commutative.

    count, sum [3], sum_sq [3]  pixels, and their values' sums per channel
    sq_err, sq_err_count        squared differences (decoded − reference) and how many values were compared
    """

    count: int = 0
    sum: np.ndarray = field(default_factory=_zeros)
    sum_sq: np.ndarray = field(default_factory=_zeros)
    sq_err: int = 0
    sq_err_count: int = 0

    @classmethod
    def of(cls, pixels: np.ndarray, reference: np.ndarray | None = None) -> PixelStats:
        """Of uint8 [..., W, 3]; with `reference` of the same shape, also the squared error between the two."""
        # Doubles hold these integers exactly and are several times faster to sum than int64; whole rows of an
        # image at a time, so that the sums over an axis run along memory.
        rows = pixels.reshape(-1, pixels.shape[-2] * 3).astype(np.float64)
        total, squares = rows.sum(0), np.einsum("ij,ij->j", rows, rows)
        stats = cls(pixels.size // 3, *(s.reshape(-1, 3).sum(0).astype(np.int64) for s in (total, squares)))
        if reference is not None:
            error = rows - reference.reshape(rows.shape)
            stats.sq_err, stats.sq_err_count = int(np.einsum("ij,ij->", error, error)), error.size
        return stats

    def __add__(self, other: PixelStats) -> PixelStats:
        return PixelStats(
            self.count + other.count,
            self.sum + other.sum,
            self.sum_sq + other.sum_sq,
            self.sq_err + other.sq_err,
            self.sq_err_count + other.sq_err_count,
        )

    @property
    def psnr(self) -> float | None:
        """Peak signal-to-noise ratio in dB of the pooled squared error; None if nothing was compared or it is 0."""
        if not self.sq_err or not self.sq_err_count:
            return None
        return 10 * math.log10(255**2 * self.sq_err_count / self.sq_err)

    def normalisation(self) -> dict[str, list[float]]:
        """{"mean": [3], "std": [3]} for pixels in [0, 1]; the identity (0 and 1) when nothing was counted.

        A channel that is constant gets the deviation 1/255, so that dividing by it is always safe.
        """
        if not self.count:
            return {"mean": [0.0] * 3, "std": [1.0] * 3}
        # Python's integers keep the variance exact: count · Σx² − (Σx)² needs more than 64 bits.
        sums, squares = [int(s) for s in self.sum], [int(s) for s in self.sum_sq]
        variances = [self.count * q - s * s for s, q in zip(sums, squares, strict=True)]
        mean = [round(s / self.count / 255, 6) for s in sums]
        std = [max(round(math.sqrt(v) / self.count / 255, 6), round(1 / 255, 6)) for v in variances]
        return {"mean": mean, "std": std}

    def to_json(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "sum": [int(s) for s in self.sum],
            "sum_sq": [int(s) for s in self.sum_sq],
            "sq_err": int(self.sq_err),
            "sq_err_count": int(self.sq_err_count),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PixelStats:
        try:
            total, squares = (np.asarray(value[name], np.int64).reshape(3) for name in ("sum", "sum_sq"))
            return cls(int(value["count"]), total, squares, int(value["sq_err"]), int(value["sq_err_count"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"pixel sums are malformed: {error}") from error
