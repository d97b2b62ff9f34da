"""The released data set's way (hafezgh/seq-jepa@73e0550 datasets.py:49-121): a 256-px JPEG and a .npy per view,
PIL → Resize(128) → ToTensor → Normalize, and scipy for each pair of views."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_data import OBJECTS, SEQUENCE, SIDE, object_folder
from PIL import Image

from peers.pieces import draw_views, torch_loader

REQUIRES = ["torch", "torchvision", "scipy", "pillow"]
_MEAN, _STD = (0.5016, 0.5037, 0.5060), (0.1030, 0.0999, 0.0969)


class Objects(torch.utils.data.Dataset[Any]):
    def __init__(self, work: Path) -> None:
        from torchvision import transforms

        steps = [transforms.Resize((SIDE, SIDE)), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)]
        self.work, self.transform = work, transforms.Compose(steps)

    def __len__(self) -> int:
        return OBJECTS

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        from scipy.spatial.transform import Rotation

        folder, chosen = object_folder(self.work, "tree256", number), draw_views()
        views = [self.transform(Image.open(folder / f"image_{v}.jpg").convert("RGB")) for v in chosen]
        angles = [np.load(folder / f"latent_{v}.npy")[:3].astype(np.float32) for v in chosen]
        turns = [Rotation.from_euler("xyz", angle) for angle in angles]
        actions = [(turns[i].inv() * turns[i + 1]).as_quat() for i in range(SEQUENCE - 1)]
        return torch.stack(views), torch.from_numpy(np.stack(actions).astype(np.float32))


def prepare(work: Path) -> None:
    """The tree is there already."""


def batches(work: Path) -> Iterator[Any]:
    return torch_loader(Objects(work), collate_fn=torch.utils.data.default_collate)
