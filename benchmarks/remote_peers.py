"""Peers of benchmarks/remote.py: an epoch after the other of sequences of the same set, from a folder or from S3.

Each is used as its documentation says, with two worker processes; JPEGs are decoded with simplejpeg, and only the views
that are wanted, so that what is compared is the fetching. webdataset reads our own tars; through `pipe:curl` it has no
cache and fetches every epoch. litdata and mosaicml-streaming read chunks of their own and keep what they fetched.
"""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from remote_data import BUCKET, OBJECTS, SIDE, VIEWS, record

from seqjepa.data.actions import actions_between
from seqjepa.data.sequence import ViewSequence
from shards.schema import THREE_DIEBENCH_PARAMS

NAMES = [field.name for field in THREE_DIEBENCH_PARAMS]
SEQUENCE, BATCH, WORKERS = 4, 32, 2
REQUIRES = {"webdataset pipe:": "webdataset", "litdata": "litdata", "mosaicml-streaming": "mosaicml-streaming"}
Item = tuple[np.ndarray, np.ndarray]


def prepare(name: str, work: Path, shards: Path) -> Path:
    """The folder that it reads; its own format is written once."""
    out = work / REQUIRES[name]
    if name == "litdata" and not (out / "index.json").exists():
        import litdata

        litdata.optimize(fn=record, inputs=list(range(OBJECTS)), output_dir=str(out), chunk_bytes="4MB", num_workers=1)
    if name == "mosaicml-streaming" and not (out / "index.json").exists():
        from streaming import MDSWriter

        columns = {"blob": "bytes", "starts": f"ndarray:int64:{VIEWS + 1}", "latents": f"ndarray:float64:{VIEWS},7"}
        with MDSWriter(out=str(out), columns=columns, size_limit=4 << 20) as writer:
            for number in range(OBJECTS):
                writer.write(record(number))
    return shards if name == "webdataset pipe:" else out


def batches(name: str, place: str, cache: Path) -> Iterator[ViewSequence]:
    """Without end. place: a folder, or s3://."""
    return {"webdataset pipe:": _webdataset, "litdata": _litdata, "mosaicml-streaming": _mosaic}[name](place, cache)


def _webdataset(place: str, cache: Path) -> Iterator[ViewSequence]:
    import webdataset as wds

    names = [f"train-{number:06d}.tar" for number in range(OBJECTS // 64)]
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    web = place.replace(f"s3://{BUCKET}", f"{endpoint}/{BUCKET}")
    urls = [f"pipe:curl -sf {web}/{name}" if place.startswith("s3://") else f"{place}/{name}" for name in names]
    while True:
        data = wds.WebDataset(urls, shardshuffle=100, nodesplitter=wds.split_by_node).shuffle(256).map(_of_a_tar)
        data = data.batched(BATCH, collation_fn=collate, partial=False)
        yield from wds.WebLoader(data, batch_size=None, num_workers=WORKERS, prefetch_factor=2)


def _of_a_tar(sample: dict[str, Any]) -> Item:
    chosen = draw_views()
    views = np.empty((SEQUENCE, SIDE, SIDE, 3), np.uint8)
    for slot, view in enumerate(chosen):
        simplejpeg.decode_jpeg(sample[f"{view:02d}.jpg"], buffer=views[slot])
    return views, np.load(io.BytesIO(sample["params.npy"]))[chosen]


def _litdata(place: str, cache: Path) -> Iterator[ViewSequence]:
    import litdata
    from litdata.streaming import downloader

    # It takes obstore for S3, and gives no way to tell it that this server has no TLS.
    downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = True

    class Objects(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return _of_a_record(super().__getitem__(index))

    where: dict[str, Any] = {"cache_dir": str(cache)} if place.startswith("s3://") else {}
    data = Objects(place, shuffle=True, drop_last=True, batch_decode=0, **where)
    yield from _endless(partial(litdata.StreamingDataLoader, data, batch_size=BATCH, num_workers=WORKERS))


def _mosaic(place: str, cache: Path) -> Iterator[ViewSequence]:
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()  # of a run before this one

    class Objects(StreamingDataset):
        def __getitem__(self, index: Any) -> Any:
            return _of_a_record(super().__getitem__(index))

    where = {"remote": place, "local": str(cache)} if place.startswith("s3://") else {"local": place}
    data = Objects(shuffle=True, batch_size=BATCH, **where)
    yield from _endless(partial(torch.utils.data.DataLoader, data, batch_size=BATCH, num_workers=WORKERS))


def _endless(loader: Callable[..., Any]) -> Iterator[ViewSequence]:
    made = loader(collate_fn=collate, persistent_workers=True, drop_last=True)
    while True:
        yield from made


def _of_a_record(item: dict[str, Any]) -> Item:
    """A record → views uint8 [SEQUENCE, SIDE, SIDE, 3], latents [SEQUENCE, 7], decoding only what is needed."""
    chosen, starts, blob = draw_views(), item["starts"], memoryview(item["blob"])
    views = np.empty((SEQUENCE, SIDE, SIDE, 3), np.uint8)
    for slot, view in enumerate(chosen):
        simplejpeg.decode_jpeg(blob[starts[view] : starts[view + 1]], buffer=views[slot])
    return views, item["latents"][chosen]


def draw_views() -> list[int]:
    return random.sample(range(VIEWS), SEQUENCE)


def collate(items: list[Item]) -> ViewSequence:
    views = torch.from_numpy(np.stack([views for views, _ in items])).permute(0, 1, 4, 2, 3)
    params = np.stack([params for _, params in items]).astype(np.float32)
    actions = torch.from_numpy(actions_between(params, NAMES, "rotation"))
    labels = torch.zeros(len(items), dtype=torch.int64)
    return ViewSequence(views, actions, torch.from_numpy(params), labels, [""] * len(items))
