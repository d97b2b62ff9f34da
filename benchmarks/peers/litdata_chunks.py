"""litdata: one record per object in optimised chunks, streamed in shuffled order, cycled without end."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from loader_data import BATCH, OBJECTS

from peers.pieces import collate, decode_record, record

REQUIRES = ["torch", "litdata"]


def prepare(work: Path) -> None:
    import litdata

    out = work / "litdata"
    if not (out / "index.json").exists():
        litdata.optimize(
            fn=partial(record, work),
            inputs=list(range(OBJECTS)),
            output_dir=str(out),
            chunk_bytes="64MB",
            num_workers=1,
        )


def batches(work: Path) -> Iterator[Any]:
    import litdata

    class Objects(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return decode_record(super().__getitem__(index))

    while True:
        # batch_decode=0: the default reads some 40 neighbours with every record, for nothing when shuffled.
        data = Objects(str(work / "litdata"), shuffle=True, batch_decode=0)
        endless = litdata.ParallelStreamingDataset([data], length=float("inf"), transform=_first)
        yield from litdata.StreamingDataLoader(endless, batch_size=BATCH, num_workers=2, collate_fn=collate)


def _first(items: tuple[Any, ...]) -> Any:
    return items[0]
