"""What stands on top of the encoder: action embedding, predictors, and projectors from z to y (paper §A.3, §B.2).

Shape letters: D features z, P width of an embedding y, A action size, E width of its embedding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from seqjepa.config import ModelConfig
from seqjepa.models.aggregator import Aggregator
from seqjepa.precision import exact_linear, full_precision
from shards.errors import ConfigError


class ActionEmbedding(nn.Module):
    """Linear without bias, then batch norm without parameters (docs/fidelity.md #23, 24): [..., A] → [..., E].

    In train mode each call normalises with the statistics of the rows that it is given, over all leading axes.
    Always float32: eight bits of a quaternion are a fifth of a degree, and the cost is nothing.
    """

    def __init__(self, action_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(action_size, width, bias=False)
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, actions: Tensor) -> Tensor:
        with full_precision(actions.device):
            rows = exact_linear(actions.flatten(0, -2).to(self.proj.weight.dtype), self.proj.weight)
            return self.norm(rows).unflatten(0, actions.shape[:-1])


def build_predictor(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """[B, inputs] → [B, outputs]: linear without bias, batch norm, ReLU, linear (docs/fidelity.md #25)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


def build_linear_predictor(inputs: int, outputs: int) -> nn.Sequential:
    """[B, inputs] → [B, outputs]: linear without bias, then batch norm without parameters (SEN, EquiMod)."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs, affine=False))


class ActionPredictor(nn.Module):
    """ŷ [B, P] of the view that an action [B, A] leads to, from y [B, P] of the view before: net([e ; y]).

    net: [B, E + P] → [B, P], from one of the builders above.
    """

    def __init__(self, embedding: ActionEmbedding, net: nn.Module) -> None:
        super().__init__()
        self.embedding, self.net = embedding, net

    def forward(self, y: Tensor, action: Tensor) -> Tensor:
        return self.net(torch.cat((self.embedding(action).to(y.dtype), y), dim=-1))


class Hypernetwork(nn.Module):
    """The action chooses a linear map: ŷ = W(a) y with W(a) = Σ_k a_k W_k, without bias (SIE).

    Initialised like the linear layer from A to P² numbers that W is. The A products with y are added up rather than
    the W(a) of every row written down, which would be P² numbers a row.
    """

    def __init__(self, action_size: int, width: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(action_size)
        self.weight = nn.Parameter(torch.empty(action_size, width, width).uniform_(-bound, bound))

    def forward(self, y: Tensor, action: Tensor) -> Tensor:
        """y [B, P], action [B, A] → [B, P] in float32: autocast does not round the action."""
        products = nn.functional.linear(y, self.weight.flatten(0, 1).to(y.dtype)).unflatten(1, self.weight.shape[:2])
        with full_precision(y.device):
            action = action.to(self.weight.dtype)
            return (action.unsqueeze(-1) * products.to(self.weight.dtype)).sum(1)


BuildMLP = Callable[[int, Sequence[int]], nn.Sequential]


def build_projector(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """[B, inputs] → [B, widths[-1]]: linear layers without bias, batch norm and ReLU between them (paper §A.3).

    A batch norm without parameters comes last.
    """
    net = _build_mlp(inputs, widths, bias=False)
    return net.append(nn.BatchNorm1d(widths[-1], affine=False))


def build_expander(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """[B, inputs] → [B, widths[-1]]: hidden layers with bias, batch norm and ReLU; a bare linear layer comes last.

    For losses that look at the variance of each output themselves (VICReg, SIE).
    """
    return _build_mlp(inputs, widths, bias=True)


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


def _build_mlp(inputs: int, widths: Sequence[int], bias: bool) -> nn.Sequential:
    """Linear, batch norm and ReLU for every width but the last, which gets a linear layer without bias."""
    *hidden, outputs = widths
    net = nn.Sequential()
    for before, after in pairwise([inputs, *hidden]):
        net.extend([nn.Linear(before, after, bias=bias), nn.BatchNorm1d(after), nn.ReLU(inplace=True)])
    return net.append(nn.Linear(hidden[-1] if hidden else inputs, outputs, bias=False))
