"""webdataset over our own tars, which it reads in sequence; of the 50 views only 4 are decoded."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from loader_data import BATCH, SEQUENCE, SIDE

from peers.pieces import Item, collate, draw_views

REQUIRES = ["torch", "webdataset"]


def decode(sample: dict[str, Any]) -> Item:
    chosen = draw_views()
    views = np.empty((SEQUENCE, SIDE, SIDE, 3), np.uint8)
    for slot, view in enumerate(chosen):
        simplejpeg.decode_jpeg(sample[f"{view:02d}.jpg"], buffer=views[slot])
    return views, np.load(io.BytesIO(sample["params.npy"]))[chosen]


def prepare(work: Path) -> None:
    """It reads the shards as they are."""


def batches(work: Path) -> Iterator[Any]:
    import webdataset as wds

    tars = [str(path) for path in sorted((work / "shards").glob("train-*.tar"))]
    data = wds.WebDataset(tars, resampled=True, shardshuffle=False, nodesplitter=wds.split_by_node)
    data = data.shuffle(256).map(decode).batched(BATCH, collation_fn=collate)
    return iter(wds.WebLoader(data, batch_size=None, num_workers=2, prefetch_factor=2))
