"""What a method is: a module with a loss. It says in its own file what it is called and what it needs.

Everything around methods – trainer, evaluation, report, comparison – asks the class or one of the protocols below, and
knows no method by name. Shape letters: B batch, V views, M context views, D features, P embedding width, A action size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from seqjepa.config import RunConfig, Section
from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import VECTORS, ViewSequence
from seqjepa.models.batch_norm import convert_sync_batch_norm, of_each, takes_groups
from seqjepa.precision import at_least_float32
from seqjepa.recipes import mistakes
from shards.errors import ConfigError


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


class Method(nn.Module):
    """Base of all methods. A subclass builds its networks, `encoder` among them, and writes `step`.

    display_name   as tables and figures write it
    views_needed   None: takes any number of views T ≥ 2; else exactly that many
    uses_actions   whether the loss sees the actions between the views
    params_needed  names of the absolute parameters that the stored views must have, in this order; empty: any
    settings       keys of the configuration that this method reads and others do not. Those of projectors
                   (model.projector, model.projector_kind) and of the encoder are not listed.
    Options        of a method of another package: what it has beside them, `[options]` of a recipe. Its instance is
                   `self.options`, from super().__init__ on
    encoder        [B, C, H, W] → z [B, D]; stays in eval mode where `freezes_encoder` (model.freeze) is set
    shares_calls   whether `each` makes one call of several batches; normalise_globally() decides it
    """

    display_name: ClassVar[str] = ""
    views_needed: ClassVar[int | None] = 2
    uses_actions: ClassVar[bool] = False
    params_needed: ClassVar[tuple[str, ...]] = ()
    freezes_encoder: bool = False
    shares_calls: bool = False
    settings: ClassVar[tuple[str, ...]] = ()
    Options: ClassVar[type[Section]] = Section

    encoder: nn.Module

    def __init__(self, config: RunConfig, action_size: int) -> None:
        """Initialise from torch's global generator. action_size: A. ConfigError: settings that do not fit together."""
        super().__init__()
        self.freezes_encoder = config.model.freeze
        try:
            self.options = self.Options.model_validate(config.options)
        except ValidationError as error:
            raise ConfigError(f"method {config.method}: {mistakes(error, self.Options, 'options.')}") from None

    def train(self, mode: bool = True) -> Self:
        """As nn.Module has it; an encoder that is frozen stays in eval mode."""
        super().train(mode)
        if self.freezes_encoder:
            self.encoder.eval()
        return self

    def step(self, seq: ViewSequence) -> StepOutput:
        """Loss of a batch whose views are normalised floats on the module's device."""
        raise NotImplementedError

    def forward(self, seq: ViewSequence) -> StepOutput:
        """`step`, where DistributedDataParallel and torch.compile look for it."""
        return self.step(seq)

    def embed(self, views: Tensor) -> Tensor:
        """Frozen features z of the (online) encoder, before any projector: [B, C, H, W] → [B, D].

        Of a set of features views are [B, D] already, and z themselves.
        """
        return views if views.ndim == VECTORS else self.encoder(views)

    def normalise_globally(self) -> None:
        """Batch norms take statistics of all ranks, if there are, and `each` makes one call of several, if it can."""
        convert_sync_batch_norm(self)
        self.shares_calls = takes_groups(self)

    def each(self, network: Callable[[Tensor], Tensor], *batches: Tensor) -> tuple[Tensor, ...]:
        """network(batch) of each batch [B, …] → [B, d]. Each is a batch of its own to batch norm, also where one call
        of all does it: fewer kernels, and half as many messages between ranks.
        """
        return of_each(network, *batches) if self.shares_calls else tuple(map(network, batches))

    def after_step(self, progress: float) -> None:
        """Called after every optimizer step with progress in [0, 1] (models/ema.py). Moves averages, if there are."""

    @property
    def predictor_sees_actions(self) -> bool:
        """Whether its predictor, if there is one, is given the action. Some methods leave that to model.condition."""
        return self.uses_actions


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
class PredictsViews(Aggregating, Protocol):
    """A method that predicts a view's target features from z_AGG and the action that leads to it (seq-JEPA, eq. 4).

    Predictions have the width of z, so that they can stand for views that were not seen (rollouts).
    """

    def predict(self, z_agg: Tensor, action: Tensor) -> Tensor:
        """z_AGG [B, D'] of the views before, action [B, A] → ẑ [B, D] of the next view. Meant for eval mode."""
        ...

    def embed_target(self, views: Tensor) -> Tensor:
        """Features that predictions are compared with, without a graph: [B, C, H, W] → [B, D]."""
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
class EncodesInContext(Protocol):
    """A method whose features of a view follow from pairs of views and actions that it saw before (ContextSSL).

    pairs         most of them that it looks back at
    environments  by name, first the one whose numbers stand beside other methods': which part of an action is told in
                  a context, the rest being zero
    """

    pairs: int
    environments: dict[str, slice]

    def remember(self, z: Tensor, actions: Tensor) -> Any:
        """The memory of K ≥ 0 pairs: z [K, 2, D], actions [K, A]. Meant for eval mode."""
        ...

    def in_context(self, z: Tensor, memory: Any) -> Tensor:
        """z [n, D] of single views → z⁺ [n, D] of each after that memory."""
        ...


@runtime_checkable
class Halved(Protocol):
    """A method whose features z have two parts that are probed by themselves as well (SIE)."""

    halves: dict[str, slice]  # "invariant", "equivariant": columns of z


def begins_with_rotation(config: RunConfig) -> bool:
    """Whether the first values of an action are a relative rotation, in whatever form."""
    first = next(iter(as_spec(config.data.action).terms), None)
    return first is not None and first.op == "relative_rotation"


def begins_with_quaternion(config: RunConfig) -> bool:
    """Whether the first four values of an action are a relative quaternion."""
    return begins_with_rotation(config) and as_spec(config.data.action).terms[0].result != "6d"


def fold(views: Tensor) -> Tensor:
    """[B, M, C, H, W] → [B·M, C, H, W] with at most one copy, which keeps channels last where they were last. Features
    [B, M, D] → [B·M, D]."""
    if views.ndim > 3 and views.stride(2) == 1:
        return views.permute(0, 1, 3, 4, 2).flatten(0, 1).permute(0, 3, 1, 2)
    return views.flatten(0, 1)


def detached(features: Tensor) -> Tensor:
    """Features for StepOutput: without a graph, in float32 or wider."""
    return at_least_float32(features.detach())


def by_view(*z: Tensor) -> dict[str, Tensor]:
    """StepOutput's features of a method that encodes its views one by one: [B, D] each → {"z": [B, V, D]}, detached."""
    return {"z": detached(torch.stack(z, dim=1))}
