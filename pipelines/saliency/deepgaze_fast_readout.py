"""The 120 readouts of DeepGaze IIE as five batched layers, equal up to rounding.

A readout is: LayerNorm over (C, H, W), 1×1 convolution, softplus, again and again. The statistics of the first
LayerNorm are the same for all 30 readouts of a backbone, and the affine after any LayerNorm is linear, so it goes
into the convolution that follows: W·(γx + β) + b = (W·diag γ)·x + (W·β + b).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-12  # of every LayerNorm of the readouts


class BatchedLayer(nn.Module):
    """LayerNorm without affine, K matrices, softplus: [B, K, in, P] → [B, K, out, P], P positions of the grid."""

    weight: Tensor
    bias: Tensor

    def __init__(self, folded: Iterable[tuple[Tensor, Tensor]], *, normalise: bool = True, activate: bool = True):
        super().__init__()
        weights, biases = zip(*folded, strict=True)
        self.register_buffer("weight", torch.stack(weights), persistent=False)  # [K, out, in]
        self.register_buffer("bias", torch.stack(biases)[..., None], persistent=False)  # [K, out, 1]
        self.normalise, self.activate = normalise, activate

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = F.layer_norm(x, x.shape[2:], eps=EPS)
        x = torch.matmul(self.weight, x).add_(self.bias)
        return softplus(x) if self.activate else x


class Stem(nn.Module):
    """The first layer of one backbone's K readouts: one LayerNorm, one C → 8·K product, softplus."""

    weight: Tensor
    bias: Tensor

    def __init__(self, saliency_networks: Sequence[Any]) -> None:
        super().__init__()
        folded = [fold(net.conv0, net.layernorm0, net.bias0) for net in saliency_networks]
        self.components = len(folded)
        self.register_buffer("weight", torch.cat([weight for weight, _ in folded]), persistent=False)  # [8K, C]
        self.register_buffer("bias", torch.cat([bias for _, bias in folded])[:, None], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C, h, w] → [B, K, 8, h·w]"""
        x = features.flatten(2).to(self.weight.dtype)
        x = F.layer_norm(x, x.shape[1:], eps=EPS)
        x = softplus(torch.matmul(self.weight, x).add_(self.bias))
        return x.unflatten(1, (self.components, -1))


class Tail(nn.Module):
    """All later layers of all K readouts: [B, K, 8, P] → [B, K, P]."""

    def __init__(self, saliency_networks: Sequence[Any], selection_networks: Sequence[Any]) -> None:
        super().__init__()
        a, b = saliency_networks, selection_networks
        self.layers = nn.Sequential(
            BatchedLayer(fold(net.conv1, net.layernorm1, net.bias1) for net in a),
            BatchedLayer(fold(net.conv2, net.layernorm2, net.bias2) for net in a),
            BatchedLayer(fold(net.conv0.conv_part0, net.layernorm0.layernorm_part0, net.bias0) for net in b),
            BatchedLayer(fold(net.conv1, net.layernorm1, net.bias1) for net in b),
            BatchedLayer((fold(net.conv2) for net in b), normalise=False, activate=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)[:, :, 0]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)) to full relative precision: F.softplus, at a quarter of its time on a CPU.

    log1p has no vectorised kernel there, log has. With u = exp(−|x|) and v = 1 + u as rounded, log(1 + u) is
    log(v) + (u − (v − 1)) / v: the second term is what rounding lost.
    """
    if x.device.type != "cpu":
        return F.softplus(x)
    u = x.abs().neg_().exp_()
    v = u + 1
    return x.clamp(min=0).addcdiv_(u.sub_(v - 1), v).add_(v.log_())


def fold(conv: Any, norm: Any = None, bias: Any = None) -> tuple[Tensor, Tensor]:
    """(weight [out, in], bias [out]) of norm's affine, 1×1 convolution and bias in one; folded in float64."""
    weight = conv.weight.detach().double().flatten(1)
    offset = weight.new_zeros(len(weight))
    if norm is not None:
        offset = offset + weight @ norm.bias.detach().double()
        weight = weight * norm.weight.detach().double()
    if bias is not None:
        offset = offset + bias.bias.detach().double()
    return weight.to(conv.weight.dtype), offset.to(conv.weight.dtype)
