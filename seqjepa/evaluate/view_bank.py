"""The bank of a split of stored views: every view through the encoder, once."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from seqjepa.data.augment.scaling import Scaling
from seqjepa.evaluate.bank import FeatureBank
from seqjepa.evaluate.encode import Embedding, PixelStats, embed, room
from seqjepa.evaluate.stored_views import stored_views
from shards.reader import SplitIndex


def encode_views(
    method: Embedding,
    index: SplitIndex,
    pixel_stats: PixelStats,
    device: torch.device,
    *,
    run_length: int = 0,
    scaling: Scaling | None = None,
    batch_size: int = 256,
    threads: int = 2,
    progress: bool = False,
) -> FeatureBank:
    """Runs every distinct view of the split through `method.embed`.

    run_length, scaling: see FeatureBank; of sets whose views were baked as sequences. Features are kept as float32, or
    as float16 when they would exceed 2 GiB (3DIEBench's 2.6 million views: 2.7 GB).
    """
    z: Tensor | None = None
    total = int(index.n_views.sum())
    bar = tqdm(total=total, desc=f"encode {index.name}", unit="view", disable=None if progress else True, leave=False)
    with bar:
        for samples, views, pixels in stored_views(index, batch_size, threads):
            on_device = torch.from_numpy(pixels).to(device, non_blocking=True).permute(0, 3, 1, 2)
            features = embed(method, on_device, pixel_stats)
            if z is None:
                z = room((*index.offsets.shape, features.shape[-1]), device)
            z[torch.from_numpy(samples).to(z.device), torch.from_numpy(views).to(z.device)] = features.to(z)
            bar.update(len(samples))
    assert z is not None, "a split has at least one sample with one view"
    labels = torch.from_numpy(np.asarray(index.labels, np.int64)).to(z.device)
    n_views = index.n_views.astype(np.int64)
    return FeatureBank(z, n_views, index.params, index.param_names, labels, run_length, scaling=scaling)
