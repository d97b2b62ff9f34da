"""Probing must not touch the model: eval mode, no gradients, a hash before and after (docs/fidelity.md #37)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from shards.errors import FailureError


def state_sha256(module: nn.Module) -> str:
    """Hex digest over names, dtypes, shapes and bytes of every parameter and buffer, persistent or not."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def frozen(module: nn.Module) -> Iterator[str]:
    """Holds `module` in eval mode without gradients and yields its hash.

    Raises FailureError on a clean exit if a parameter or buffer differs: the numbers measured inside would belong to a
    model that no longer is the one on disk. Modes and gradient flags are put back as they were.
    """
    before = state_sha256(module)
    modes = {m: m.training for m in module.modules()}
    wanted_grad = {p: p.requires_grad for p in module.parameters()}
    module.eval().requires_grad_(False)
    try:
        yield before
        if state_sha256(module) != before:
            raise FailureError(
                "evaluation changed the model's parameters or buffers; its numbers are void (a layer ignores eval mode)"
            )
    finally:
        for m, training in modes.items():
            m.training = training
        for p, grad in wanted_grad.items():
            p.requires_grad_(grad)
