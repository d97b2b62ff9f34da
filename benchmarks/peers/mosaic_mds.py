"""mosaicml-streaming: one record per object in MDS shards, shuffled; an epoch repeats the set, so that none ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from loader_data import BATCH, OBJECTS, VIEWS

from peers.pieces import collate, decode_record, record

REQUIRES = ["torch", "mosaicml-streaming"]


def prepare(work: Path) -> None:
    from streaming import MDSWriter

    out = work / "mds"
    if (out / "index.json").exists():
        return
    columns = {"blob": "bytes", "starts": f"ndarray:int64:{VIEWS + 1}", "latents": f"ndarray:float64:{VIEWS},7"}
    with MDSWriter(out=str(out), columns=columns) as writer:
        for number in range(OBJECTS):
            writer.write(record(work, number))


def batches(work: Path) -> Iterator[Any]:
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()  # of a run before this one

    class Objects(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return decode_record(super().__getitem__(index))

    streams = [Stream(local=str(work / "mds"), repeat=200)]
    data = Objects(streams=streams, shuffle=True, batch_size=BATCH)
    while True:
        yield from torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=2, collate_fn=collate)
