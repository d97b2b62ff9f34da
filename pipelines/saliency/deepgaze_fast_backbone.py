"""A backbone of DeepGaze IIE that gives its tapped layers on the readout's grid and stops at the last one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Precision = Literal["fp32", "tf32", "fp16"]


class TappedBackbone(nn.Module):
    """Shares the modules of the package's feature extractor, and stores their weights channels-last."""

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.features: nn.Module = extractor.features.to(memory_format=torch.channels_last)
        self.targets: tuple[str, ...] = tuple(extractor.targets)

    def forward(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """Float [B, 3, h, w], 0..255 → [B, C, *grid]: all tapped layers, nearest neighbour, in their order."""
        taps: dict[str, Tensor] = {}
        with self._tapped(taps, grid), suppress(_AllTapped):
            self.features(images)
        return torch.cat([taps[target] for target in self.targets], dim=1)

    @contextmanager
    def _tapped(self, taps: dict[str, Tensor], grid: tuple[int, int]) -> Iterator[None]:
        handles = [
            self.features.get_submodule(target).register_forward_hook(_tap(taps, target, grid, len(self.targets)))
            for target in self.targets
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class _AllTapped(Exception):  # noqa: N818  a way out, not an error
    pass


def _tap(taps: dict[str, Tensor], target: str, grid: tuple[int, int], wanted: int) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        taps[target] = F.interpolate(output, grid)  # a copy too: a ReLU in place may follow
        if len(taps) == wanted:
            raise _AllTapped

    return hook


@contextmanager
def backbone_precision(precision: Precision, device: torch.device) -> Iterator[None]:
    """On CUDA: convolutions in TF32, fp16 or full float32 while open. Elsewhere float32, and nothing to set."""
    if device.type != "cuda":
        yield
        return
    convolution: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  set up on import
    before = convolution.fp32_precision
    convolution.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast("cuda", torch.float16, enabled=precision == "fp16"):
            yield
    finally:
        convolution.fp32_precision = before
