"""The released way to patches, from its description (docs/fidelity.md #8–14): each image by itself, in a worker.

Each fixation is one draw from the flattened map, which is then masked and renormalised; each patch one `grid_sample`,
turned upright, sent through PIL and back, and normalised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixations_data import BATCH, PATCH, SIDE, VIEWS, arrays
from torch.nn import functional as F

REQUIRES = ["torch", "torchvision", "pillow"]
_MEAN, _STD = (0.4467, 0.4398, 0.4066), (0.2241, 0.2215, 0.2239)


class Glances(torch.utils.data.Dataset[Any]):
    """Item: patches float32 [VIEWS, 3, PATCH, PATCH], positions float32 [VIEWS, 2]."""

    def __init__(self, work: Path) -> None:
        from torchvision import transforms

        self.images, self.maps = arrays(work)
        self.to_tensor, self.to_pil = transforms.ToTensor(), transforms.ToPILImage()
        self.normalise = transforms.Normalize(_MEAN, _STD)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.to_tensor(self.to_pil(self.images[number]))
        places = fixate(torch.from_numpy(np.array(self.maps[number])))
        patches = [self.patch(image, row, col) for row, col in places]
        return torch.stack(patches), torch.tensor(places, dtype=torch.float32) / SIDE

    def patch(self, image: torch.Tensor, row: int, col: int) -> torch.Tensor:
        from torchvision.transforms import functional as TF

        line = torch.linspace(-1, 1, PATCH)
        x, y = torch.meshgrid(line, line, indexing="ij")
        centre = torch.tensor([row, col]).float() * 2 / SIDE - 1
        grid = torch.stack([x * (PATCH / SIDE) + centre[0], y * (PATCH / SIDE) + centre[1]], -1)
        seen = F.grid_sample(image[None], grid[None], align_corners=False)[0]
        return self.normalise(self.to_tensor(TF.hflip(TF.rotate(self.to_pil(seen), -90))))


def fixate(chances: torch.Tensor) -> list[tuple[int, int]]:
    """VIEWS fixations (row, col) from a map float32 [SIDE, SIDE] that sums to 1."""
    places = []
    for _ in range(VIEWS):
        row, col = divmod(int(torch.multinomial(chances.flatten(), 1)), SIDE)
        places.append((row, col))
        mask = torch.zeros_like(chances)
        top, left = max(0, row - PATCH // 2), max(0, col - PATCH // 2)
        mask[top : row + PATCH // 2 + 1, left : col + PATCH // 2 + 1] = 1
        chances = chances * (1 - mask) + 1e-16
        chances = chances / chances.sum()
    return places


def batches(work: Path) -> Iterator[Any]:
    loader = torch.utils.data.DataLoader(
        Glances(work), batch_size=BATCH, shuffle=True, num_workers=2, persistent_workers=True
    )
    while True:
        yield from loader
