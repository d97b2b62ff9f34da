"""A method with its optimizer on a device: one call turns a batch into one update, alone or with other ranks."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.base import Method, StepOutput
from seqjepa.models.distributed import convert_sync_batch_norm
from seqjepa.models.precision import is_bf16
from seqjepa.training.distributed import World
from seqjepa.training.optim import build_optimizer, set_lr
from shards.errors import FailureError


class Learner:
    """Prepares the method for `device` and moves it: memory layout, global batch norm, autocast, compile, DDP.

    Build it inside the process group. Precision "auto" is bf16 autocast with TF32 for the remaining float32 products on
    CUDA, and plain float32 on the CPU.
    """

    def __init__(self, method: Method, config: RunConfig, world: World, device: torch.device):
        self.method = method
        self.module = method
        self.seed, self.rank, self.device = config.seed, world.rank, device
        if config.train.sync_bn:
            convert_sync_batch_norm(self.module)
        self.module.to(device).train()
        if config.train.channels_last:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.module, config.optim)
        self._forward = self._wrapped(world, config.train.compile)
        precision = config.train.precision
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=is_bf16(precision, device.type))
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True
            if precision == "auto":
                torch.set_float32_matmul_precision("high")

    def update(self, seq: ViewSequence, step: int, lr: float) -> StepOutput:
        """One optimizer step on normalised views [B, T, C, H, W]; `step` (0-based) keys the dropout."""
        set_lr(self.optimizer, lr)
        seed_step(self.seed, step, self.rank, self.device)
        with self._autocast:
            output = self._forward(seq)
        output.loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return output

    def require_finite(self) -> None:
        """FailureError when a weight is infinite or NaN, so that such a state is never saved over a good one."""
        if not all(bool(torch.isfinite(p).all()) for p in self.module.parameters()):
            raise FailureError("a weight is not finite any more; the last checkpoint is from before. Lower optim.lr")

    def state_dict(self) -> dict[str, Any]:
        return {"method": self.module.state_dict(), "optimizer": self.optimizer.state_dict()["state"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Weights, buffers and moments. The groups' settings stay as built, for this device and config."""
        self.module.load_state_dict(state["method"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})

    def _wrapped(self, world: World, compiled: bool) -> nn.Module:
        forward: nn.Module = self.method
        if world.size > 1:
            # Buffers are equal where batch norm is global, and each rank's own matter where it is not.
            forward = DistributedDataParallel(forward, broadcast_buffers=False, gradient_as_bucket_view=True)
        if compiled and self.device.type == "cuda":
            forward = torch.compile(forward)  # type: ignore[assignment]
        return forward


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Make torch's generators a function of the step, so that no generator state has to be saved."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    # Not torch.manual_seed: that formats a stack trace for CUDA's sake at every call on a machine without a GPU.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)
