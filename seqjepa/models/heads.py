"""Small heads on top of encoders: action embedding, predictor, projector. A action size, E embedding width."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise

import torch
from torch import Tensor, nn


class ActionEmbedding(nn.Module):
    """Linear without bias, then batch norm without parameters (SPEC A.4): [..., A] → [..., E].

    In train mode each call normalises with the statistics of the rows that it is given, over all leading axes.
    Always float32: eight bits of a quaternion are a fifth of a degree, and the cost is nothing.
    """

    def __init__(self, action_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(action_size, width, bias=False)
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, actions: Tensor) -> Tensor:
        # Autocast does not know the meta device, on which flops.py counts.
        meta = actions.device.type == "meta"
        with nullcontext() if meta else torch.autocast(actions.device.type, enabled=False):
            rows = self.proj(actions.flatten(0, -2).to(self.proj.weight.dtype))
            return self.norm(rows).unflatten(0, actions.shape[:-1])


def build_predictor(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """[B, inputs] → [B, outputs]: linear without bias, batch norm, ReLU, linear (SPEC A.6)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden, bias=False),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outputs),
    )


def build_projector(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """[B, inputs] → [B, widths[-1]]: linear layers without bias, batch norm and ReLU between them (SPEC B.1).

    A batch norm without parameters comes last.
    """
    *hidden, outputs = widths
    layers: list[nn.Module] = []
    for before, after in pairwise([inputs, *hidden]):
        layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
    last = hidden[-1] if hidden else inputs
    layers += [nn.Linear(last, outputs, bias=False), nn.BatchNorm1d(outputs, affine=False)]
    return nn.Sequential(*layers)
