"""Heads of probes and how they are trained: Adam with default settings, lr 1e-3, batch 256 (paper §3.3, §A.2).

No weight decay, no schedule. On a GPU a step of all heads is one CUDA graph: a launch for each step, not one for each
of its hundred kernels. A graph reads and writes fixed addresses. So minibatches of a block of rows are gathered one
after the other into buffers, and the graph takes its own from there by a place that it moves on itself: the host does
nothing but start it.

Letters: e examples, b of a minibatch, D width of an input or target, K sizes M, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.cuda_graphs import Replayed
from seqjepa.data.draws import permutation
from seqjepa.devices import to_device

Loss = Callable[[Tensor, Tensor], Tensor]
Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""rows int64 [b] → (inputs [b, …], targets [b, …]): one minibatch of an epoch whose views are drawn."""
Step = Callable[[Sequence[tuple[Tensor, Tensor]]], None]
"""(inputs [b, …], targets [b, …]) of each head → nothing; all heads have learned from them."""
EVALUATION_ROWS = 4096
BATCH = 256
"""Paper §A.2."""
HIDDEN = 1024
"""Units of each hidden layer of an MLP: the paper's "MLP regressor" (docs/fidelity.md #36)."""


class StackedLinear(nn.Module):
    """K separate Linear(in → out) layers applied side by side: [b, K, in] → [b, K, out].

    Adam's update is elementwise, so K heads under one Adam on the sum of their losses take exactly the steps that they
    would take with an optimizer each (docs/fidelity.md #39: one per M_val), in one set of kernels.
    """

    def __init__(self, count: int, in_features: int, out_features: int) -> None:
        super().__init__()
        layers = [nn.Linear(in_features, out_features) for _ in range(count)]
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[:, None], x.transpose(0, 1), self.weight.mT).transpose(0, 1)


class Standardise(nn.Module):
    """(x − mean) / std for each input feature, with the statistics of the examples [e, …] that it is made with.

    Features that do not vary are only centred.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, examples: Tensor) -> None:
        super().__init__()
        mean, std = examples.mean(dim=0), examples.std(dim=0)
        varies = std > 1e-6 * mean.abs().clamp(min=1e-3)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", torch.where(varies, 1 / std, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.scale


def build_head(
    examples: Tensor, targets: Tensor, outputs: int, *, deep: bool = False, standardise: bool = False
) -> nn.Module:
    """Linear, or an MLP, from examples [e, D]; of examples [e, K, D] K of them side by side."""
    width, layer = examples.shape[-1], nn.Linear if examples.ndim == 2 else partial(StackedLinear, examples.shape[1])
    if deep:
        return mlp(width, outputs, layer=layer)
    linear = layer(width, outputs)
    return from_mean(Standardise(examples), linear, targets.mean(dim=0)) if standardise else linear


def mlp(
    in_features: int,
    out_features: int,
    hidden: int | None = None,
    layer: Callable[[int, int], nn.Module] = nn.Linear,
) -> nn.Sequential:
    """in → hidden → hidden → out, ReLU. hidden: None for HIDDEN, as it is at the time of the call."""
    hidden = HIDDEN if hidden is None else hidden
    first, second = layer(in_features, hidden), layer(hidden, hidden)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), layer(hidden, out_features))


def from_mean(standardise: Standardise, linear: nn.Module, mean: Tensor) -> nn.Sequential:
    """A linear regressor of standardised features that begins as the constant `mean`, [out] or [K, out].

    The function that fits best is the same as without any of it; but in 50 epochs at lr 1e-3 Adam does not get from
    random weights to it: an exactly linear target (path integration, M = 1) is left at R² 0.98 to 0.997, instead of
    1.000. Nor does it get from 0 to the mean of a target that is far from it, as the difference of blurs is.
    """
    assert isinstance(linear, nn.Linear | StackedLinear)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(mean)
    return nn.Sequential(standardise, linear)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch, summed over stacked heads: logits [b, C] or [b, K, C], labels [b]."""
    if logits.ndim == 2:
        return F.cross_entropy(logits, labels)
    heads = logits.shape[1]
    return heads * F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(heads))


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch and the output, summed over stacked heads: both tensors [b, D] or [b, K, D]."""
    heads = 1 if predicted.ndim == 2 else predicted.shape[1]
    return heads * F.mse_loss(predicted, target)


@dataclass(frozen=True)
class Fit:
    """How a probe is trained. lr: paper §A.2."""

    epochs: int
    seed: int
    batch_size: int = BATCH
    lr: float = 1e-3


@dataclass(frozen=True)
class Job:
    """A head to train.

    build        makes it; its weights follow from the seed alone
    inputs       inputs(epoch) draws that epoch's views and says how to gather a minibatch, so that views are drawn anew
                 every epoch
    after_epoch  called with the number of epochs done and the head
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Gather]
    loss: Loss
    epochs: int
    after_epoch: Callable[[int, nn.Module], None] | None = None


def fit(
    build: Callable[[], nn.Module],
    inputs: Callable[[int], Gather],
    rows: int,
    loss: Loss,
    how: Fit,
    *,
    device: torch.device,
    after_epoch: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Trains the head that `build` makes and returns it in eval mode: see Job, fit_together."""
    return fit_together([Job(build, inputs, loss, how.epochs, after_epoch)], rows, how, device=device)[0]


def fit_together(jobs: Sequence[Job], rows: int, how: Fit, *, device: torch.device) -> list[nn.Module]:
    """Trains the heads of all jobs on the same rows, side by side; returned in eval mode.

    The order of the `rows` samples follows from how.seed alone and is drawn once for all. One optimizer moves them all:
    Adam's update is elementwise and no loss depends on another's head, so each takes the steps that it would take
    alone, to the bit on a CPU. On a GPU a step of all heads is one CUDA graph (StepGraph). A head that has had its
    own epochs (Job.epochs; how.epochs plays no part) rests.
    """
    heads = []
    for job in jobs:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            heads.append(job.build().to(device))
    parameters = [p for head in heads for p in head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=how.lr, fused=True)
    run, learning = None, -1
    for epoch in range(max(job.epochs for job in jobs)):
        now = [(job, head) for job, head in zip(jobs, heads, strict=True) if epoch < job.epochs]
        if len(now) != learning:
            run, learning = _runner(now, optimizer, how.batch_size, device), len(now)
        assert run is not None
        gathers = [job.inputs(epoch) for job, _ in now]
        run(gathers, to_device(torch.from_numpy(permutation(how.seed, epoch, rows)), device))
        for job, head in now:
            if job.after_epoch is not None:
                job.after_epoch(epoch + 1, head)
    return [head.eval() for head in heads]


def _runner(
    learning: Sequence[tuple[Job, nn.Module]], optimizer: torch.optim.Optimizer, batch: int, device: torch.device
) -> Callable[[Sequence[Gather], Tensor], None]:
    """What does an epoch: called with how to gather each head's minibatches, and the order of rows int64 [n]."""

    def step(shown: Sequence[tuple[Tensor, Tensor]]) -> None:
        optimizer.zero_grad(set_to_none=True)
        pairs = zip(learning, shown, strict=True)
        torch.autograd.backward([job.loss(head(x), y) for (job, head), (x, y) in pairs])
        optimizer.step()

    if device.type == "cuda":
        return StepGraph(step, optimizer, batch).run

    def run(gathers: Sequence[Gather], order: Tensor) -> None:
        for rows in order.split(batch):
            step([gather(rows) for gather in gathers])

    return run


@torch.no_grad()
def predict(head: nn.Module, x: Tensor) -> Tensor:
    """head(x) in chunks: x [n, …] → [n, …]."""
    return torch.cat([head(part) for part in x.split(EVALUATION_ROWS)])


STEPS_AT_ONCE = 64
ROWS_AT_ONCE = 4096
"""Of which inputs are gathered at once: some cost a forward pass."""


class StepGraph:
    """`step`, which moves `optimizer`, on minibatches of `batch` rows on a GPU; short ones run as they are."""

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer, batch: int) -> None:
        self._step, self._batch = step, batch
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._place = self._offsets = torch.empty(0)
        self._replayed = Replayed(self._taken, [optimizer], "probes learn")

    def run(self, gathers: Sequence[Gather], order: Tensor) -> None:
        """An epoch: a step for each minibatch of the rows `order`, int64 [n] on the GPU."""
        for block in order.split(self._batch * STEPS_AT_ONCE):
            self._gather(gathers, block)
            self._place.zero_()
            for start in range(0, len(block), self._batch):
                if start + self._batch <= len(block):
                    self._replayed()
                else:
                    self._step([(x[start : len(block)], y[start : len(block)]) for x, y in self._buffers])

    def _gather(self, gathers: Sequence[Gather], block: Tensor) -> None:
        for start in range(0, len(block), ROWS_AT_ONCE):
            parts = [gather(block[start : start + ROWS_AT_ONCE]) for gather in gathers]
            if not self._buffers:
                self._make_buffers(parts, block)
            for pair, into in zip(parts, self._buffers, strict=True):
                for part, buffer in zip(pair, into, strict=True):
                    buffer[start : start + len(part)].copy_(part)

    def _make_buffers(self, parts: Sequence[tuple[Tensor, Tensor]], block: Tensor) -> None:
        """Of the first block, which is the largest."""
        self._buffers = [
            (x.new_empty(len(block), *x.shape[1:]), y.new_empty(len(block), *y.shape[1:])) for x, y in parts
        ]
        self._place = torch.zeros((), dtype=torch.int64, device=block.device)
        self._offsets = torch.arange(self._batch, device=block.device)

    def _taken(self) -> None:
        """A step on the minibatch at the graph's own place, which moves on."""
        rows = self._place + self._offsets
        self._step([(x.index_select(0, rows), y.index_select(0, rows)) for x, y in self._buffers])
        self._place += self._batch
