"""Augmentation image by image with torchvision's v2 functions, in DataLoader workers; parameters are returned."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from augment_data import BATCH, SIDE, VIEWS, images

REQUIRES = ["torch", "torchvision", "pillow"]
_KERNEL = [3, 3]


class Augmented(torch.utils.data.Dataset[Any]):
    """Item: views uint8 [VIEWS, 3, SIDE, SIDE], parameters float32 [VIEWS, 9]. pil: images are PIL's, else tensors."""

    def __init__(self, work: Path, pil: bool) -> None:
        from torchvision.transforms.v2 import functional

        self.images, self.pil, self.f = images(work), pil, functional

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = torch.from_numpy(self.images[number].copy()).permute(2, 0, 1).contiguous()
        image = self.f.to_pil_image(image) if self.pil else image
        made = [self.view(image, target=t == VIEWS - 1) for t in range(VIEWS)]
        return torch.stack([view for view, _ in made]), torch.tensor([params for _, params in made])

    def view(self, image: Any, target: bool) -> tuple[torch.Tensor, list[float]]:
        f, coin = self.f, random.random
        box = crop_box()
        x = f.resized_crop(image, *box, [SIDE, SIDE], interpolation=f.InterpolationMode.BICUBIC, antialias=True)
        x = f.horizontal_flip(x) if coin() < 0.5 else x
        x, factors = self.jitter(x) if coin() < 0.8 else (x, [1.0, 1.0, 1.0, 0.0])
        x = f.rgb_to_grayscale(x, num_output_channels=3) if coin() < 0.2 else x
        sigma = random.uniform(0.1, 2.0) if coin() < (0.1 if target else 1.0) else 0.0
        x = f.gaussian_blur(x, _KERNEL, [sigma, sigma]) if sigma else x
        x = f.solarize(x, 128) if target and coin() < 0.2 else x
        return f.pil_to_tensor(x) if self.pil else x, [*map(float, box), *factors, sigma]

    def jitter(self, x: Any) -> tuple[Any, list[float]]:
        factors = [random.uniform(1 - s, 1 + s) for s in (0.4, 0.4, 0.2)] + [random.uniform(-0.1, 0.1)]
        operations = [self.f.adjust_brightness, self.f.adjust_contrast, self.f.adjust_saturation, self.f.adjust_hue]
        for which in random.sample(range(4), 4):
            x = operations[which](x, factors[which])
        return x, factors


def crop_box() -> tuple[int, int, int, int]:
    """Top, left, height, width, as torchvision's RandomResizedCrop draws them, without making tensors for it."""
    for _ in range(10):
        area = SIDE * SIDE * random.uniform(0.2, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= SIDE and 0 < w <= SIDE:
            return random.randint(0, SIDE - h), random.randint(0, SIDE - w), h, w
    return 0, 0, SIDE, SIDE


def batches(work: Path, pil: bool) -> Iterator[Any]:
    cores = len(os.sched_getaffinity(0))
    loader = torch.utils.data.DataLoader(
        Augmented(work, pil), BATCH, shuffle=True, num_workers=cores, persistent_workers=True
    )
    while True:
        yield from loader
