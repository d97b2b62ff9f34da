"""A folder of 128-px JPEGs, PIL and DataLoader; views stay uint8."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import OBJECTS, object_folder
from PIL import Image

from peers.pieces import Item, collate, draw_views, torch_loader

REQUIRES = ["torch", "pillow"]


class Objects(torch.utils.data.Dataset[Any]):
    def __init__(self, work: Path) -> None:
        self.work = work

    def __len__(self) -> int:
        return OBJECTS

    def __getitem__(self, number: int) -> Item:
        folder, chosen = object_folder(self.work, "tree128", number), draw_views()
        views = np.stack([np.asarray(Image.open(folder / f"image_{v}.jpg").convert("RGB")) for v in chosen])
        return views, np.load(folder / "latents.npy")[chosen]


def prepare(work: Path) -> None:
    """The tree is there already."""


def batches(work: Path) -> Iterator[Any]:
    return torch_loader(Objects(work), collate_fn=collate)
