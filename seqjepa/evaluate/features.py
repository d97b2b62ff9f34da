"""The cache that every probe is trained from: z of every stored view (SPEC D.0). S samples, N view slots, D width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.sequence import normalise
from seqjepa.evaluate.reading import stored_views
from seqjepa.methods.base import Method
from shards.reader import SplitIndex

FULL_PRECISION_BYTES = 2 * 2**30
PixelStats = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class FeatureBank:
    """What is known of one split after the encoder has seen it.

    z         float32 or float16 [S, N, D], on the device where probes are trained; rows of padding slots are zero
    n_views   int64 [S]            distinct views of each sample; its views are slots 0 … n_views − 1
    params    float32 [S, N, P]    in the shards' units, fields named by param_names
    labels    int64 [S], on the device
    """

    z: Tensor
    n_views: np.ndarray
    params: np.ndarray
    param_names: tuple[str, ...]
    labels: Tensor

    def __len__(self) -> int:
        return self.z.shape[0]

    @property
    def fewest_views(self) -> int:
        return int(self.n_views.min())

    def column(self, name: str) -> np.ndarray:
        """One parameter of every view: float32 [S, N]."""
        return self.params[..., self.param_names.index(name)]


def encode_split(
    method: Method,
    index: SplitIndex,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    batch_size: int = 256,
    threads: int = 2,
    progress: bool = False,
) -> FeatureBank:
    """Runs every distinct view of the split through `method.embed` once.

    pixel_stats: mean and std per channel for pixels in [0, 1]. Features are kept as float32, or as float16 when they
    would exceed 2 GiB (3DIEBench's 2.6 million views: 2.7 GB).
    """
    z: Tensor | None = None
    total = int(index.n_views.sum())
    bar = tqdm(total=total, desc=f"encode {index.name}", unit="view", disable=None if progress else True, leave=False)
    with bar:
        for samples, views, pixels in stored_views(index, batch_size, threads):
            features = _embed(method, pixels, pixel_stats, device)
            if z is None:
                z = _room(index, features)
            z[torch.from_numpy(samples).to(z.device), torch.from_numpy(views).to(z.device)] = features.to(z.dtype)
            bar.update(len(samples))
    assert z is not None, "a split has at least one sample with one view"
    labels = torch.from_numpy(np.asarray(index.labels, np.int64)).to(z.device)
    return FeatureBank(z, index.n_views.astype(np.int64), index.params, index.param_names, labels)


@torch.inference_mode()
def _embed(method: Method, pixels: np.ndarray, pixel_stats: PixelStats, device: torch.device) -> Tensor:
    views = torch.from_numpy(pixels).to(device, non_blocking=True).permute(0, 3, 1, 2)
    return method.embed(normalise(views, *pixel_stats)).float()


def _room(index: SplitIndex, features: Tensor) -> Tensor:
    """Zeros [S, N, D], made outside inference mode so that a probe's backward pass may read them."""
    shape = (*index.offsets.shape, features.shape[-1])
    dtype = torch.float32 if 4 * np.prod(shape, dtype=np.int64) <= FULL_PRECISION_BYTES else torch.float16
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    fits = features.device.type != "cuda" or size < torch.cuda.mem_get_info(features.device)[0] // 2
    return torch.zeros(shape, dtype=dtype, device=features.device if fits else "cpu")
