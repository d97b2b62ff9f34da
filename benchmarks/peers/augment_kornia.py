"""Augmentation in batches with kornia, where the images are; parameters are taken from its modules."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from augment_data import BATCH, SIDE, VIEWS, images

REQUIRES = ["torch", "kornia"]


class Pipeline(torch.nn.Module):
    """float32 [B, 3, SIDE, SIDE] in 0 … 1 → views alike, and parameters float32 [B, 9]."""

    def __init__(self, target: bool, cropping: str) -> None:
        super().__init__()
        from kornia import augmentation as k

        box = {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3), "cropping_mode": cropping}
        self.crop = k.RandomResizedCrop((SIDE, SIDE), resample="bicubic", **box)
        self.flip = k.RandomHorizontalFlip(p=0.5)
        self.jitter = k.ColorJitter(0.4, 0.4, 0.2, 0.1, p=0.8)
        self.rest = torch.nn.Sequential(k.RandomGrayscale(p=0.2))
        self.blur = k.RandomGaussianBlur((3, 3), (0.1, 2.0), p=0.1 if target else 1.0)
        self.solarise = k.RandomSolarize(p=0.2) if target else torch.nn.Identity()

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.solarise(self.blur(self.rest(self.jitter(self.flip(self.crop(x))))))
        return x, self.parameters_of(len(x)).to(x.device, non_blocking=True)

    def parameters_of(self, B: int) -> torch.Tensor:
        corners = self.crop._params["src"].cpu()
        left, top = corners[:, 0].unbind(1)
        right, bottom = corners[:, 2].unbind(1)
        vector = torch.stack([top, left, bottom - top + 1, right - left + 1, *torch.ones(3, B), *torch.zeros(2, B)], 1)
        names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
        on, factors = self.drawn(self.jitter, names)
        vector[on, 4:8] = factors
        on, sigma = self.drawn(self.blur, ("sigma",))
        vector[on, 8:] = sigma
        return vector

    @staticmethod
    def drawn(module: Any, names: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Which of B images a module changed, and what it drew for these: bool [B], float32 [on, names]."""
        on = module._params["batch_prob"].cpu() > 0.5
        values = torch.stack([module._params[name].cpu() for name in names], 1)
        return on, values[on] if len(values) == len(on) else values


def batches(work: Path, device: str, cropping: str) -> Iterator[Any]:
    observation, target = (Pipeline(is_target, cropping).to(device) for is_target in (False, True))
    store = torch.from_numpy(images(work).copy()).permute(0, 3, 1, 2).contiguous().to(device)
    while True:
        for rows in torch.randperm(len(store)).split(BATCH):
            x = store[rows.to(device)].float() / 255
            made = [pipeline(x) for pipeline in [*[observation] * (VIEWS - 1), target]]
            views, params = (torch.stack(parts, dim=1) for parts in zip(*made, strict=True))
            yield views, params
