"""Fixations and patches of full batches on a GPU: fixations.py in the few kernels that a compiler makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqjepa.compiling import CompiledForGpu
from seqjepa.data.fixations import Fixating, draw_fixations, fill_colour, reach_of
from seqjepa.devices import constant

_compiled: list[CompiledForGpu] = []


def fused_patches(
    images: Tensor, maps: Tensor, numbers: Tensor, how: Fixating, mean: Sequence[float]
) -> tuple[Tensor, Tensor] | None:
    """Fixations int64 [B, T, 2] and patches uint8 [B, T, 3, p, p], as sample_fixations and cut_patches give them.

    None where these are to be called: with released patches, for smaller batches, and where there is no compiler.
    ConfigError: a patch is larger than the image.
    """
    how.check_size(*images.shape[2:])
    if how.fidelity == "author":
        return None
    if not _compiled:
        _compiled.append(CompiledForGpu(looks_of, "fixations and patches"))
    around = constant(fill_colour(how, mean), images.device, torch.uint8)
    return _compiled[0](len(images), images, maps, numbers, how, reach_of(how, images.device), around)


def looks_of(
    images: Tensor, maps: Tensor, numbers: Tensor, how: Fixating, reach: Tensor, around: Tensor
) -> tuple[Tensor, Tensor]:
    """around: uint8 [3], what lies outside of an image."""
    (H, W), p = images.shape[2:], how.patch
    if how.fixations == "uniform":
        fixations = torch.stack([numbers[..., 0] * H, numbers[..., 1] * W], dim=-1).long()
    else:
        fixations = draw_fixations(maps, numbers, how, reach)
    lines = torch.arange(-(p // 2), p - p // 2, device=images.device)
    rows, cols = fixations[..., :1] + lines, fixations[..., 1:] + lines  # [B, T, p]
    inside = ((rows >= 0) & (rows < H))[..., :, None] & ((cols >= 0) & (cols < W))[..., None, :]
    sample = torch.arange(len(images), device=images.device)[:, None, None, None]
    seen = images.permute(0, 2, 3, 1)[sample, rows.clamp(0, H - 1)[..., :, None], cols.clamp(0, W - 1)[..., None, :]]
    return fixations, torch.where(inside[..., None], seen, around).permute(0, 1, 4, 2, 3)
