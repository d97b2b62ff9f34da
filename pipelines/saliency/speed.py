"""How near a build of maps came to what its devices can do: FLOP/s of the model beside those of one large product."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pipelines.saliency.deepgaze_fast import HALVES, float32_precision
from pipelines.saliency.device import CPU
from pipelines.saliency.models import SaliencyModel, pixels_seen

SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices
SECONDS = 0.2
GIGA = 1e9


@dataclass(frozen=True)
class Speed:
    """maps: how many were made in `seconds`, from the first batch to the last sample; flops: a multiply-add is 2, a
    map's are these over `maps`. ceiling: FLOP/s of products of large matrices, in the backbones' precision."""

    maps: int
    flops: float
    seconds: float
    ceiling: float
    precision: str

    @staticmethod
    def of_all(devices: Sequence[Speed | None]) -> Speed | None:
        """Of devices that worked at the same time; None: of those that have none."""
        there = [speed for speed in devices if speed is not None]
        if not there:
            return None
        maps, flops, ceiling = (sum(getattr(speed, name) for speed in there) for name in ("maps", "flops", "ceiling"))
        return Speed(maps, flops, max(speed.seconds for speed in there), ceiling, there[0].precision)

    @property
    def share(self) -> float:
        return self.flops / self.seconds / self.ceiling

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "share_of_ceiling": self.share}

    def __str__(self) -> str:
        return (
            f"{self.maps} maps at {self.maps / self.seconds:.3g}/s, {self.flops / self.maps / GIGA:.3g} GFLOP each: "
            f"{self.share:.2f} of the {self.ceiling / GIGA:,.0f} GFLOP/s of large products in {self.precision}"
        )


class Metered:
    """A model that counts its own work: FLOPs of the first batch, those of others by their pixels."""

    def __init__(self, model: SaliencyModel) -> None:
        self.model, self.name, self.provenance = model, model.name, model.provenance
        self.batch_size = model.batch_size
        self.device, self.input_size = getattr(model, "device", CPU), getattr(model, "input_size", None)
        self._maps, self._pixels, self._flops_a_pixel, self._began = 0, 0, 0.0, 0.0

    def density(self, images: Tensor) -> Tensor:
        """The model's, and its errors."""
        self._began = self._began or time.perf_counter()
        pixels = len(images) * pixels_seen(self, images.shape[2], images.shape[3])
        if self._flops_a_pixel or "precision" not in self.provenance:
            density = self.model.density(images)
        else:
            with FlopCounterMode(display=False) as counter:
                density = self.model.density(images)
            self._flops_a_pixel = counter.get_total_flops() / pixels
        self._maps, self._pixels = self._maps + len(images), self._pixels + pixels
        return density

    def speed(self) -> Speed | None:
        """Until now. Measures the device, which takes a moment. None: no maps, or a model that names no precision."""
        seconds = time.perf_counter() - self._began
        if not self._flops_a_pixel:
            return None
        precision = str(self.provenance["precision"])
        try:
            ceiling = matmul_ceiling(self.device, precision)
        except torch.OutOfMemoryError:
            return None
        return Speed(self._maps, self._flops_a_pixel * self._pixels, seconds, ceiling, precision)


@torch.inference_mode()
def matmul_ceiling(device: torch.device, precision: str) -> float:
    """FLOP/s of the product of two large matrices of normal numbers, the best of several."""
    side = SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=HALVES.get(precision, torch.float32))
    best, began = float("inf"), time.perf_counter()
    with float32_precision(torch.backends.cuda.matmul, precision) if device.type == "cuda" else nullcontext():
        while (now := time.perf_counter()) - began < SECONDS:
            torch.mm(a, a)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - now)
    return 2 * side**3 / best
