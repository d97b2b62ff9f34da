"""How a method learns from a batch: forward, backward, clip, optimizer, moving averages, and a step's rest.

In a step the online probes learn from the batch's features too, and the meter adds both up: on one GPU
what can be of it is a CUDA graph. Shape letters: B sequences in a batch.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seqjepa.config import RunConfig
from seqjepa.cuda_graphs import Replayed
from seqjepa.data.sequence import ViewSequence
from seqjepa.devices import device_name
from seqjepa.methods import METHODS
from seqjepa.methods.base import Method, StepOutput
from seqjepa.models.ema import MovingAverage
from seqjepa.models.pretrained import check_kinds
from seqjepa.precision import is_bf16
from seqjepa.training.compiled import Step, compiled
from seqjepa.training.distributed import World
from seqjepa.training.monitor import EpochMeter, OnlineProbes
from seqjepa.training.optim import build_optimizer, set_lr
from shards.errors import FailureError

_DDP = inspect.signature(DistributedDataParallel).parameters
logger = logging.getLogger(__name__)
NO_BF16 = "%s has no bf16: torch imitates it, and does not compile the step; train.precision='fp32' does without"
KEEP_BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _DDP else "broadcast_buffers"
"""What torch calls it: the new name from 2.14 on, where the old one is deprecated."""


class Learner:
    """A method with its optimizer on `device`: memory layout, global batch norm, autocast, compile, DDP.

    pixels: mean and standard deviation per channel, for batches of uint8. Build it inside the process group. Precision
    "auto" is bf16 autocast with TF32 for the remaining float32 products on CUDA, and plain float32 on the CPU.
    """

    def __init__(
        self,
        method: Method,
        config: RunConfig,
        world: World,
        device: torch.device,
        pixels: tuple[Sequence[float], Sequence[float]] = ((0.0,) * 3, (1.0,) * 3),
    ):
        self.method, self.optim = method, config.optim
        self.seed, self.rank, self.ranks, self.device = config.seed, world.rank, world.size, device
        if config.train.sync_bn or world.size == 1:
            self.method.normalise_globally()
        self.method.to(device).train()
        if config.train.channels_last:
            self.method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        step = Step(self.method, *pixels).to(device)
        self.optimizer = build_optimizer(self.method, config.optim)
        self._forward = self._wrapped(step, world, config.train.compile)
        self._lr, self._share = (torch.zeros((), device=device) for _ in range(2))
        precision = config.train.precision
        bf16 = is_bf16(precision, device.type)
        self._autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
        if device.type == "cuda":
            if bf16 and not torch.cuda.is_bf16_supported(including_emulation=False):
                logger.warning(NO_BF16, device_name(device))
            torch.backends.cudnn.benchmark = True
            if precision == "auto":
                torch.set_float32_matmul_precision("high")

    def update(self, seq: ViewSequence, step: int, lr: float, progress: float) -> StepOutput:
        """One optimizer step on views [B, T, C, H, W]: normalised, or uint8, which are normalised as `pixels` say.

        step (0-based) keys the dropout; progress in [0, 1] is for the moving averages. What is returned has no gradient
        and is good until the next step. With optim.accumulate the batch goes through the method in micro-batches. Their
        mean gradient is that of the whole batch, up to rounding, where a row's loss depends on no other row; batch
        norm, and losses that compare rows, see a micro-batch at a time.
        """
        set_lr(self.optimizer, lr)
        seed_step(self.seed, step, self.rank, self.device)
        output = self._learn(seq)
        # moving averages
        self.method.after_step(progress)
        return output

    def write(self, step: int, lr: float, progress: float) -> None:
        """Onto the device what `update_as_written` reads there, once or in a graph that is replayed."""
        set_lr(self.optimizer, self._lr.fill_(lr))
        seed_step(self.seed, step, self.rank, self.device)
        if isinstance(self.method, MovingAverage):
            self._share.fill_(self.method.share_at(progress))

    def update_as_written(self, seq: ViewSequence) -> StepOutput:
        """`update` that knows no value of the host. Of the package's own methods: others may have an after_step."""
        output = self._learn(seq)
        if isinstance(self.method, MovingAverage):
            self.method.move_averages(self._share)
        return output

    def _learn(self, seq: ViewSequence) -> StepOutput:
        """Detached: a graph of autograd that is alive at the next step has nodes of this step's stream, which a capture
        refuses."""
        parts, outputs = micro_batches(seq, self.optim.accumulate), []
        for part in parts:
            # forward and backward; ranks exchange gradients after the last micro-batch alone
            waits = self.ranks > 1 and part is not parts[-1]
            with self._forward.no_sync() if waits else nullcontext():  # type: ignore[operator]
                with self._autocast:
                    output = self._forward(part)
                loss = output.loss if len(parts) == 1 else output.loss * (len(part) / len(seq))
                loss.backward()
            logs = {name: value.detach() for name, value in output.logs.items()}
            outputs.append(StepOutput(output.loss.detach(), logs, output.features))
        # clip
        if self.optim.clip_norm:
            torch.nn.utils.clip_grad_norm_(self.method.parameters(), self.optim.clip_norm)
        # step
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return merge_outputs(outputs, [len(part) / len(seq) for part in parts])

    def require_finite(self) -> None:
        """FailureError when a weight or buffer is infinite or NaN, so that such a state never replaces a good one."""
        if not all(bool(torch.isfinite(value).all()) for value in self.method.state_dict().values()):
            raise FailureError("a weight is not finite; what is saved, if anything, is from before. Lower optim.lr")

    def state_dict(self) -> dict[str, Any]:
        return {"method": self.method.state_dict(), "optimizer": self.optimizer.state_dict()["state"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Weights, buffers and moments. The groups' settings stay as built, for this device and config."""
        check_kinds(self.method, state["method"])
        self.method.load_state_dict(state["method"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})

    def _wrapped(self, forward: nn.Module, world: World, compile: bool) -> nn.Module:
        if compile and self.device.type == "cuda":
            forward = compiled(forward, world, self.device)
        if world.size > 1:
            # Buffers are equal where batch norm is global, and each rank's own matter where it is not.
            own: dict[str, Any] = {KEEP_BUFFERS: False, "gradient_as_bucket_view": True}
            forward = DistributedDataParallel(forward, **own)
        return forward


def micro_batches(seq: ViewSequence, count: int) -> list[ViewSequence]:
    """Consecutive parts of a batch [B, …], `count` of them or fewer, with two rows each at least: batch norm needs two.

    Their sizes differ by one at most. All ranks get as many, as their shares of a batch are equal.
    """
    count = max(1, min(count, len(seq) // 2))
    if count == 1:
        return [seq]
    tensors = ("views", "actions", "params", "labels")
    split = zip(*(torch.tensor_split(getattr(seq, name), count) for name in tensors), strict=True)
    parts, start = [], 0
    for values in split:
        stop = start + len(values[0])
        parts.append(replace(seq, **dict(zip(tensors, values, strict=True)), keys=seq.keys[start:stop]))
        start = stop
    return parts


def merge_outputs(outputs: Sequence[StepOutput], shares: Sequence[float]) -> StepOutput:
    """What a whole batch gave, from its micro-batches in order; `shares` of its rows, which add up to 1."""
    if len(outputs) == 1:
        return outputs[0]

    def mean(values: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([value.detach() * share for value, share in zip(values, shares, strict=True)]).sum(0)

    logs = {name: mean([output.logs[name] for output in outputs]) for name in outputs[0].logs}
    features = {name: torch.cat([output.features[name] for output in outputs]) for name in outputs[0].features}
    return StepOutput(mean([output.loss for output in outputs]), logs, features)


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Make torch's generators a function of the step, so that no generator state has to be saved."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1
    # Not torch.manual_seed: that formats a stack trace for CUDA's sake at every call on a machine without a GPU.
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.manual_seed(number)


SMALL = 1 << 25
"""Numbers in the views of a batch up to which its step is one CUDA graph: 170 sequences of four views at 128 px. By the
estimate that their kernels take no longer than launching them (docs/training.md); it was not measured."""


class TrainingStep:
    """Of small batches all of it is one CUDA graph, of larger ones the probes' step; elsewhere nothing is.

    A method of another package may read values of the host, which a graph would keep, and so is not replayed; nor are
    several ranks, whose collectives stay outside.
    """

    def __init__(self, learner: Learner, probes: OnlineProbes, meter: EpochMeter, config: RunConfig, world: World):
        self.learner, self.probes, self.meter, self.world = learner, probes, meter, world
        self._on_gpu = config.train.compile and learner.device.type == "cuda" and world.size == 1
        self._own = type(learner.method) in METHODS.values()
        self._largest = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Without a graph: it would go on with an optimizer's moments of before a state was loaded."""
        of_probes = [self.probes.optimizer] if self.probes.optimizer else []
        self._whole = Replayed(self._learn, [self.learner.optimizer, *of_probes], "training steps run")
        self._probed = Replayed(self.probes.learn_from, of_probes, "online probes learn")

    def __call__(self, seq: ViewSequence, step: int, lr: float, progress: float) -> StepOutput:
        """See Learner.update. What is returned is good until the next step."""
        if self._replays(seq):
            self.learner.write(step, lr, progress)
            return self._whole(seq.views, seq.actions, seq.params, seq.labels)
        output = self.learner.update(seq, step, lr, progress)
        self.meter.update(output, self._probe(output.features, seq), len(seq))
        return output

    def _probe(self, features: dict[str, Tensor], seq: ViewSequence) -> dict[str, Tensor]:
        if self._on_gpu and self.probes.optimizer:
            return self._probed(features["z"], features[self.probes.pooled], seq.actions, seq.labels)
        return self.probes.learn(features, seq, self.world)

    def _learn(self, *tensors: Tensor) -> StepOutput:
        """The step as it is captured."""
        seq = ViewSequence(*tensors, keys=[])
        output = self.learner.update_as_written(seq)
        self.meter.update(output, self.probes.learn(output.features, seq, self.world), len(seq))
        return output

    def _replays(self, seq: ViewSequence) -> bool:
        """Whether the largest batch so far is small enough for the step to be one CUDA graph."""
        self._largest = max(self._largest, seq.views.numel())
        return self._on_gpu and self._own and self._largest <= SMALL
