"""Heads of probes and how they are trained: Adam with default settings, lr 1e-3, batch 256 (paper §3.3, §A.2).

No weight decay, no schedule.

Letters: e examples, b of a minibatch, D width of an input or target, K sizes M, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqjepa.data.draws import permutation
from seqjepa.devices import to_device

Gather = Callable[[Tensor], tuple[Tensor, Tensor]]
"""rows int64 [b] → (inputs [b, …], targets [b, …]): one minibatch of an epoch whose views are drawn."""
Loss = Callable[[Tensor, Tensor], Tensor]
EVALUATION_ROWS = 4096
BATCH = 256
"""Paper §A.2."""


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
    in_features: int, out_features: int, hidden: int = 1024, layer: Callable[[int, int], nn.Module] = nn.Linear
) -> nn.Sequential:
    """in → hidden → hidden → out, ReLU: the paper's "MLP regressor" with 1024 hidden units (docs/fidelity.md #36)."""
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
    """Trains the head that `build` makes and returns it in eval mode.

    inputs(epoch) draws that epoch's views and says how to gather a minibatch of the `rows` samples, so that views are
    drawn anew every epoch. The head's weights and the order of rows follow from how.seed alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(how.seed)
        head = build().to(device)
    optimizer = torch.optim.Adam(head.parameters(), lr=how.lr, fused=True)
    for epoch in range(how.epochs):
        gather = inputs(epoch)
        order = to_device(torch.from_numpy(permutation(how.seed, epoch, rows)), device)
        for batch in order.split(how.batch_size):
            x, y = gather(batch)
            optimizer.zero_grad(set_to_none=True)
            loss(head(x), y).backward()
            optimizer.step()
        if after_epoch is not None:
            after_epoch(epoch + 1, head)
    return head.eval()


@torch.no_grad()
def predict(head: nn.Module, x: Tensor) -> Tensor:
    """head(x) in chunks: x [n, …] → [n, …]."""
    return torch.cat([head(part) for part in x.split(EVALUATION_ROWS)])
