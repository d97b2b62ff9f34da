"""What several peers share: a draw of views, actions of a batch, endless order, one packed record per object."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from loader_data import BATCH, OBJECTS, SEQUENCE, SIDE, VIEWS, latents, small_jpegs

from seqjepa.data.actions import actions_between
from shards.schema import THREE_DIEBENCH_PARAMS

NAMES = [field.name for field in THREE_DIEBENCH_PARAMS]
Item = tuple[np.ndarray, np.ndarray]


def draw_views() -> list[int]:
    """SEQUENCE distinct views of VIEWS. (numpy's choice without replacement takes five times as long.)"""
    return random.sample(range(VIEWS), SEQUENCE)


def record(work: Path, number: int) -> dict[str, Any]:
    """One object as one record: all JPEGs in one blob, where each starts, all latents."""
    jpegs = small_jpegs(work, number)
    starts = np.cumsum([0, *(len(data) for data in jpegs)])
    return {"blob": b"".join(jpegs), "starts": starts.astype(np.int64), "latents": latents(number)}


def decode_record(item: dict[str, Any]) -> Item:
    """A record → views uint8 [SEQUENCE, SIDE, SIDE, 3], latents [SEQUENCE, 7], decoding only what is needed."""
    chosen, starts, blob = draw_views(), item["starts"], memoryview(item["blob"])
    views = np.empty((SEQUENCE, SIDE, SIDE, 3), np.uint8)
    for slot, view in enumerate(chosen):
        simplejpeg.decode_jpeg(blob[starts[view] : starts[view + 1]], buffer=views[slot])
    return views, item["latents"][chosen]


def collate(items: list[Item]) -> tuple[torch.Tensor, torch.Tensor]:
    """Items → views uint8 [B, T, C, H, W], actions float32 [B, T-1, 4]."""
    views = torch.from_numpy(np.stack([views for views, _ in items])).permute(0, 1, 4, 2, 3)
    params = np.stack([params for _, params in items])
    return views, torch.from_numpy(actions_between(params, NAMES, "rotation"))


def endless_order() -> Iterator[int]:
    """Shuffled epochs over the objects, one after the other."""
    while True:
        yield from np.random.permutation(OBJECTS).tolist()


def endless_batches() -> Iterator[list[int]]:
    order = endless_order()
    while True:
        yield [next(order) for _ in range(BATCH)]


class Endless(torch.utils.data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return endless_order()


def torch_loader(dataset: torch.utils.data.Dataset[Any], collate_fn: Callable[..., Any]) -> Iterator[Any]:
    """A map-style data set through DataLoader with two workers."""
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=BATCH, sampler=Endless(), num_workers=2, prefetch_factor=2, collate_fn=collate_fn
    )
    return iter(loader)
