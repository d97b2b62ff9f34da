"""The contract between a method and everything around it. Methods compose modules; there is no base class.

Small turns that methods make with their tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqjepa.data.sequence import ViewSequence
from seqjepa.models.precision import at_least_float32


@dataclass(frozen=True)
class StepOutput:
    """What one forward pass gives the trainer.

    loss      scalar with a graph
    logs      detached scalars by name
    features  detached features by name for diagnostics and online probes: "z" [B, V, D] (V views that went through the
              online encoder), and "z_agg" [B, D'] where the method has an aggregate
    """

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)


class Method(Protocol):
    """An nn.Module with four more names.

    views_needed  None: takes any number of views T ≥ 2; else exactly that many
    """

    views_needed: int | None

    def step(self, seq: ViewSequence) -> StepOutput:
        """Loss of a batch whose views are normalised floats on the module's device."""
        ...

    def embed(self, views: Tensor) -> Tensor:
        """Frozen features z: [B, C, H, W] → [B, D]."""
        ...

    def after_step(self, progress: float) -> None:
        """Called after every optimizer step with progress in [0, 1] (models/ema.py), for EMA updates."""
        ...

    def parameters(self) -> object: ...


@runtime_checkable
class Aggregating(Protocol):
    """A method that also turns a sequence of features and actions into one representation (seq-JEPA, paper §2.2)."""

    def aggregate(self, z: Tensor, actions: Tensor) -> Tensor:
        """z [B, M, D], actions [B, M-1, A] (a_1 … a_{M-1}) → z_AGG [B, D']. The last view's action slot is zero."""
        ...

    def path_features(self, z: Tensor, actions: Tensor, *, vision: bool = True, action: bool = True) -> Tensor:
        """What path integration is read from (paper §B.9): z [B, M, D], actions [B, M, A] → [z_AGG ; e_M] [B, D' + E].

        vision=False: all z are 0, so that only actions are left. action=False: all action embeddings are 0, e_M too.
        Meant for eval mode.
        """
        ...


@runtime_checkable
class Predicting(Protocol):
    """A method that predicts one view's embedding from another's and the action between them (retrieval, Table 10)."""

    def project(self, z: Tensor) -> Tensor:
        """Features z [B, D] of the online encoder → embeddings y [B, P], the space of predictions and candidates."""
        ...

    def predict(self, y: Tensor, action: Tensor) -> Tensor:
        """y [B, P] of a view, action [B, A] → ŷ [B, P] of the view that the action leads to. Meant for eval mode."""
        ...


@runtime_checkable
class Halved(Protocol):
    """A method whose features z have two parts that are probed by themselves as well (SIE)."""

    halves: dict[str, slice]  # "invariant", "equivariant": columns of z


def as_module(method: Method) -> nn.Module:
    """The same object, typed as the nn.Module that it is."""
    assert isinstance(method, nn.Module)
    return method


def fold(views: Tensor) -> Tensor:
    """[B, M, C, H, W] → [B·M, C, H, W] with at most one copy, which keeps channels last where they were last."""
    if views.stride(2) == 1:
        return views.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)
    return views.flatten(0, 1)


def detached(features: Tensor) -> Tensor:
    """Features for StepOutput: without a graph, in float32 or wider."""
    return at_least_float32(features.detach())


def by_view(*z: Tensor) -> dict[str, Tensor]:
    """StepOutput's features of a method that encodes its views one by one: [B, D] each → {"z": [B, V, D]}, detached."""
    return {"z": detached(torch.stack(z, dim=1))}
