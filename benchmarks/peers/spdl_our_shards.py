"""spdl's engine over our shards, index, planning and decoding: what threads in place of our ring would give.

Not a peer that one can install, so it is reported beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import BATCH, SEQUENCE, SIDE

from seqjepa.data.decode_worker import ShardMaps, decode_rows
from seqjepa.data.sampling import Sampling
from seqjepa.data.stored import Planner, StoredViews, ViewPlan
from shards.reader import ShardSet

REQUIRES = ["torch", "spdl", "spdl-io"]


class Decode:
    def __init__(self, work: Path) -> None:
        index = ShardSet.open(work / "shards").split("train")
        self.maps = ShardMaps([str(path) for path in index.shard_paths])
        self.planner = Planner(index, StoredViews("rotation"), Sampling(SEQUENCE, BATCH, seed=0))

    def plans(self) -> Iterator[ViewPlan]:
        epoch = 0
        while True:
            yield from (self.planner.batch(epoch, step) for step in range(self.planner.order.steps))
            epoch += 1

    def __call__(self, plan: ViewPlan) -> tuple[torch.Tensor, torch.Tensor]:
        views = np.empty((len(plan.table), SIDE, SIDE, 3), np.uint8)
        decode_rows(plan.table, views, self.maps, "jpeg")
        shaped = torch.from_numpy(views.reshape(-1, SEQUENCE, SIDE, SIDE, 3)).permute(0, 1, 4, 2, 3)
        return shaped, torch.from_numpy(plan.actions)


def prepare(work: Path) -> None:
    """It reads the shards as they are."""


def batches(work: Path) -> Iterator[Any]:
    from spdl.pipeline import PipelineBuilder

    decode = Decode(work)
    builder = PipelineBuilder().add_source(decode.plans()).pipe(decode, concurrency=2).add_sink(2)
    pipeline = builder.build(num_threads=2)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()
