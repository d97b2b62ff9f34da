"""Multiply–accumulates of a method, counted on the meta device: no data and no time (Table 6; docs/fidelity.md #58).

The paper's "gigaflops" (Table 6) are these MACs; a MAC is two floating-point operations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method
from seqjepa.methods.base import Aggregating, Method
from seqjepa.models.aggregator import Aggregator

_BATCH = 2  # the smallest that batch norm trains on
_QUATERNION = 4  # numbers of an action; how many changes the count by less than a millionth


@dataclass(frozen=True)
class SequenceMacs:
    """MACs for one sequence of M context views.

    forward   context views through the encoder, and the aggregate where the method has one: the paper's Table 6, in
              which all tokens go through the aggregator's last layer, as in the released code
    training  one training step as the method runs it: both encoders, [AGG] alone through the aggregator's last layer,
              predictor, loss and the backward pass
    """

    forward: int
    training: int


def count_macs(method: Method, action_size: int, image_size: int, context: int) -> SequenceMacs:
    """MACs of `method` on square images of `image_size` pixels with M = `context`. The method is not changed."""
    ghost = _ghost(method)
    batch = _empty_batch(method, action_size, (image_size, image_size), context)
    return SequenceMacs(
        forward=forward_macs(method, action_size, (image_size, image_size), [context])[0],
        training=_counted(lambda: ghost.train().step(batch).loss.backward()),
    )


def forward_macs(method: Method, action_size: int, view_shape: tuple[int, int], contexts: Sequence[int]) -> list[int]:
    """SequenceMacs.forward alone for each M of `contexts`, for views of (height, width) pixels."""
    ghost = _ghost(method).eval()
    for part in ghost.modules():
        if isinstance(part, Aggregator):
            part.forward = partial(all_outputs, part)
    views, features = torch.empty(_BATCH, 3, *view_shape, device="meta"), []
    with torch.no_grad():
        of_one = _counted(lambda: features.append(ghost.embed(views)))
        return [m * of_one + _counted(lambda m=m: _aggregate(ghost, features[0], action_size, m)) for m in contexts]


def encoder_macs(method: Method, view_shape: tuple[int, int]) -> int:
    """MACs of the encoder alone on one view of (height, width) pixels: "Encoder alone" of the paper's Table 6."""
    ghost = _ghost(method).eval()
    with torch.no_grad():
        return _counted(lambda: ghost.embed(torch.empty(_BATCH, 3, *view_shape, device="meta")))


def macs_of_networks(config: RunConfig, pixels: int, m: int | None) -> float:
    """10⁹ multiply–accumulates of a run's networks on square views of `pixels` a side, whatever it was trained on.

    m: views, through the encoder and then the aggregator where there is one; None: one view through the encoder alone.
    """
    with torch.device("meta"):
        method = build_method(config, _QUATERNION)
    shape = (pixels, pixels)
    return (encoder_macs(method, shape) if m is None else forward_macs(method, _QUATERNION, shape, [m])[0]) / 1e9


def _ghost(method: Method) -> Method:
    """A copy on the meta device. Norms, which no MAC is of and most of the time, hand on what they are given."""
    ghost = copy.deepcopy(method).to("meta")
    for part in list(ghost.modules()):
        if isinstance(part, nn.LayerNorm):  # whose layer looks at its eps: it stays
            part.forward = nn.Identity().forward
        for name, child in part.named_children():
            if isinstance(child, _BatchNorm):
                setattr(part, name, nn.Identity())
    return ghost


def _empty_batch(method: Method, action_size: int, view_shape: tuple[int, int], context: int) -> ViewSequence:
    shape = (_BATCH, context + 1, 3, *view_shape)
    actions = torch.empty(_BATCH, context, action_size, device="meta")
    labels = torch.empty(_BATCH, dtype=torch.long, device="meta")
    params = torch.empty(_BATCH, context + 1, len(method.params_needed), device="meta")
    return ViewSequence(torch.empty(shape, device="meta"), actions, params, labels, [""] * _BATCH)


def _aggregate(method: Method, z: Tensor, action_size: int, m: int) -> None:
    """Of m views with the features z [B, D] each."""
    if isinstance(method, Aggregating):
        method.aggregate(z[:, None].expand(-1, m, -1), torch.empty(len(z), m - 1, action_size, device="meta"))


def all_outputs(aggregator: Aggregator, tokens: Tensor) -> Tensor:
    """Its z_AGG [B, W] by a last layer that computes every token's output."""
    return aggregator.encoder(aggregator.with_token(tokens))[:, 0]


def _counted(run: Callable[[], object]) -> int:
    """MACs of one sequence: PyTorch's counter, which counts two operations a MAC over the batch."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // (2 * _BATCH)
