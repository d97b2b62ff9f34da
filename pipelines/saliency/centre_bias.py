"""The MIT1003 centre bias, zoomed to an image's size once per size (paper §A.1)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shards.errors import FormatError

SIZES_KEPT = 32


def zoom_index(source: int, target: int) -> np.ndarray:
    """int64 [target]: which of `source` samples each target pixel takes; first and last samples meet the edges.

    What scipy.ndimage.zoom(order=0) does: round(i·(source − 1)/(target − 1)), halves rounded up.
    """
    step = (source - 1) / (target - 1) if target > 1 else 1.0
    return np.minimum(np.floor(np.arange(target) * step + 0.5).astype(np.int64), source - 1)


def zoom_log_density(template: np.ndarray, height: int, width: int) -> np.ndarray:
    """float64 [height, width]: corner-aligned nearest neighbour of a log density, normalised so that logsumexp is 0."""
    rows, cols = zoom_index(template.shape[0], height), zoom_index(template.shape[1], width)
    log = template[rows[:, None], cols[None, :]].astype(np.float64)
    top = log.max()
    return log - (top + np.log(np.exp(log - top).sum()))


class CentreBias:
    """The template float [h, w] (log density, nats) at any size, float32 on `device`; the last sizes are kept."""

    def __init__(self, template: np.ndarray, device: torch.device | str = "cpu") -> None:
        self.template, self.device = template, torch.device(device)
        self._kept = lru_cache(maxsize=SIZES_KEPT)(self._zoomed)

    def at(self, height: int, width: int) -> Tensor:
        """float32 [height, width], logsumexp 0. Shared between calls: not to be written to."""
        return self._kept(height, width)

    def _zoomed(self, height: int, width: int) -> Tensor:
        log = zoom_log_density(self.template, height, width)
        return torch.from_numpy(log).to(self.device, torch.float32)


def read_template(path: Path) -> np.ndarray:
    """float64 [h, w] from a .npy file. FormatError if it is not a finite 2-d array of floats."""
    try:
        template = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise FormatError(f"{path} is not a .npy array: {error}") from error
    if template.ndim != 2 or template.dtype.kind != "f" or not np.isfinite(template).all():
        found = f"{template.dtype} {list(template.shape)}"
        raise FormatError(f"{path} holds {found}; a centre bias is a finite 2-d array of floats, a log density")
    return template.astype(np.float64)
