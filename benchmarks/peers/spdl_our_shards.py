"""Threads in place of our ring of processes, over our shards, index, planning and decoding.

Not peers that one can install, so they are reported beside them. A pipeline begins at any (epoch, step), which is all
that an exact resume needs, and gives batches in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import BATCH, SEQUENCE, SIDE

from seqjepa.data.decode_worker import ShardFiles, decode_rows
from seqjepa.data.sampling import Sampling
from seqjepa.data.sequence import ViewPlan
from seqjepa.data.stored import Planner, StoredViews
from shards.reader import ShardSet

REQUIRES = ["torch", "spdl", "spdl-io"]
BATCH_BYTES = BATCH * SEQUENCE * SIDE * SIDE * 3


class Decode:
    """A plan → (views, actions)."""

    def __init__(self, work: Path) -> None:
        index = ShardSet.open(work / "shards").split("train")
        self.files = ShardFiles([str(path) for path in index.shard_paths])
        self.planner = Planner(index, StoredViews("rotation"), Sampling(SEQUENCE, BATCH, seed=0))

    def plans(self, epoch: int = 0, step: int = 0) -> Iterator[ViewPlan]:
        """From that position on, epoch after epoch."""
        steps = self.planner.order.steps
        return (self.planner.batch(*divmod(position, steps)) for position in count(epoch * steps + step))

    def __call__(self, plan: ViewPlan) -> tuple[torch.Tensor, torch.Tensor]:
        views = np.empty((len(plan.table), SIDE, SIDE, 3), np.uint8)
        decode_rows(plan.table, views, self.files, "jpeg")
        shaped = torch.from_numpy(views.reshape(-1, SEQUENCE, SIDE, SIDE, 3)).permute(0, 1, 4, 2, 3)
        return shaped, torch.from_numpy(plan.actions)


def prepare(work: Path) -> None:
    """They read the shards as they are."""


def batches(work: Path, threads: int = 2, epoch: int = 0, step: int = 0) -> Iterator[Any]:
    """spdl's pipeline, whose threads decode a batch each."""
    from spdl.pipeline import PipelineBuilder

    decode = Decode(work)
    builder = PipelineBuilder().add_source(decode.plans(epoch, step))
    builder = builder.pipe(decode, concurrency=threads, output_order="input").add_sink(2)
    pipeline = builder.build(num_threads=threads)
    with pipeline.auto_stop():
        yield from pipeline.get_iterator()


def subprocess_batches(work: Path, threads: int = 2) -> Iterator[Any]:
    """The same pipeline in one process of its own; batches come through spdl's ring in shared memory."""
    import multiprocessing

    from spdl.pipeline import SharedMemoryRingBuffer, iterate_in_subprocess

    multiprocessing.set_start_method("forkserver", force=True)  # the ring's locks are of the default context
    arena = SharedMemoryRingBuffer(5 * BATCH_BYTES)
    pipeline = partial(batches, work, threads)
    yield from iterate_in_subprocess(pipeline, buffer_size=3, arena=arena)


def pool_batches(work: Path, threads: int = 2) -> Iterator[Any]:
    """concurrent.futures alone: as many batches under way as there are threads, and two more."""
    decode = Decode(work)
    plans = decode.plans()
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(decode, plan) for plan in islice(plans, threads + 2))
        while True:
            batch = ahead.popleft().result()
            ahead.append(pool.submit(decode, next(plans)))
            yield batch
