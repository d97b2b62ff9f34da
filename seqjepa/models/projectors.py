"""Projectors: what stands between the features z and the embeddings y that a loss compares (paper §A.3, §B.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from seqjepa.config import ModelConfig
from seqjepa.models.aggregator import Aggregator
from shards.errors import ConfigError

BuildMLP = Callable[[int, Sequence[int]], nn.Sequential]


def build_projector(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """[B, inputs] → [B, widths[-1]]: linear layers without bias, batch norm and ReLU between them (paper §A.3).

    A batch norm without parameters comes last.
    """
    net = _mlp(inputs, widths, bias=False)
    return net.append(nn.BatchNorm1d(widths[-1], affine=False))


def build_expander(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """[B, inputs] → [B, widths[-1]]: hidden layers with bias, batch norm and ReLU; a bare linear layer comes last.

    For losses that look at the variance of each output themselves (VICReg, SIE).
    """
    return _mlp(inputs, widths, bias=True)


class TransformerProjector(nn.Module):
    """z [B, D] → [B, D]: the aggregator on a sequence of one token, as the paper's "+" models have it."""

    def __init__(self, width: int, model: ModelConfig) -> None:
        super().__init__()
        self.aggregator = Aggregator(width, model)

    def forward(self, z: Tensor) -> Tensor:
        return self.aggregator(z.unsqueeze(1))


def projection(
    inputs: int, model: ModelConfig, widths: Sequence[int], build: BuildMLP = build_projector
) -> tuple[nn.Module, int]:
    """The projector that `model.projector_kind` names and its output width P.

    widths: the method's own, where `model.projector` is empty. A transformer keeps the width of its input.
    ConfigError: a transformer with widths of an MLP, or with heads that do not divide `inputs`.
    """
    if model.projector_kind == "mlp":
        widths = model.projector or widths
        return build(inputs, widths), widths[-1]
    if model.projector:
        raise ConfigError(
            "model.projector gives the widths of an MLP, which a transformer has not: leave it out, or set "
            "model.projector_kind=mlp"
        )
    if inputs % model.heads:
        divisors = ", ".join(str(n) for n in range(1, 17) if inputs % n == 0)
        raise ConfigError(
            f"the transformer's {inputs} inputs are not a multiple of model.heads = {model.heads}; "
            f"set model.heads to one of {divisors}"
        )
    return TransformerProjector(inputs, model), inputs


def _mlp(inputs: int, widths: Sequence[int], bias: bool) -> nn.Sequential:
    """Linear, batch norm and ReLU for every width but the last, which gets a linear layer without bias."""
    *hidden, outputs = widths
    net = nn.Sequential()
    for before, after in pairwise([inputs, *hidden]):
        net.extend([nn.Linear(before, after, bias=bias), nn.BatchNorm1d(after), nn.ReLU(inplace=True)])
    return net.append(nn.Linear(hidden[-1] if hidden else inputs, outputs, bias=False))
