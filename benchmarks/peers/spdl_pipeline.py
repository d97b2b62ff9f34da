"""spdl: a pipeline of threads. A stage decodes one sequence into an array of its own, the next stacks a batch.

spdl brings the engine and not a format; it gets the fastest storage that we have, our shards through memory maps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from loader_data import BATCH, SEQUENCE, SIDE

from peers.pieces import Item, collate, draw_views, endless_order
from seqjepa.data.decode_worker import ShardMaps
from shards.reader import ShardSet

REQUIRES = ["torch", "spdl", "spdl-io"]


class Decode:
    def __init__(self, work: Path) -> None:
        self.index = ShardSet.open(work / "shards").split("train")
        self.maps = ShardMaps([str(path) for path in self.index.shard_paths])

    def __call__(self, number: int) -> Item:
        index, chosen = self.index, draw_views()
        shard = self.maps[int(index.shard[number])]
        views = np.empty((SEQUENCE, SIDE, SIDE, 3), np.uint8)
        for slot, view in enumerate(chosen):
            start = int(index.offsets[number, view])
            data = shard[start : start + int(index.lengths[number, view])]
            simplejpeg.decode_jpeg(data, buffer=views[slot])
        return views, index.params[number, chosen]


def prepare(work: Path) -> None:
    """It reads the shards as they are."""


def batches(work: Path) -> Iterator[Any]:
    from spdl.pipeline import PipelineBuilder

    pipeline = (
        PipelineBuilder()
        .add_source(endless_order())
        .pipe(Decode(work), concurrency=2)
        .aggregate(BATCH)
        .pipe(collate)
        .add_sink(2)
        .build(num_threads=2)
    )
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
