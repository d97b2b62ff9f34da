"""The aggregator beside torch's own transformer with the outputs of all tokens, of which the first is taken."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from seqjepa.config import ModelConfig
from seqjepa.models.aggregator import Aggregator

W, HEADS, FF = 24, 4, 2


def aggregator(layers: int, dropout: float = 0.0) -> Aggregator:
    """In float64, its layers and its token different from each other."""
    torch.manual_seed(0)
    found = Aggregator(W, ModelConfig(heads=HEADS, ff_mult=FF, layers=layers, dropout=dropout)).double()
    for parameter in found.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return found


def by_all_tokens(of: Aggregator, tokens: Tensor) -> Tensor:
    return of.encoder(torch.cat((of.token.expand(len(tokens), 1, W), tokens), dim=1))[:, 0]


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("views", [1, 4])
def test_outputs_and_gradients_are_those_of_all_tokens(layers: int, views: int) -> None:
    of, tokens = aggregator(layers), torch.randn(5, views, W, dtype=torch.double, requires_grad=True)
    weights = torch.randn(5, W, dtype=torch.double)
    parts = (tokens, *of.parameters())
    found, expected = of(tokens), by_all_tokens(of, tokens)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = zip(*(torch.autograd.grad((z * weights).sum(), parts) for z in (found, expected)), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)
    with torch.no_grad():  # where torch has a way of its own for whole layers
        of.eval()
        torch.testing.assert_close(of(tokens), by_all_tokens(of, tokens), rtol=1e-12, atol=1e-12)


def test_dropout_is_at_all_its_places() -> None:
    """Many draws of one sequence: mean and spread of each output."""
    of, tokens = aggregator(2, dropout=0.2), torch.randn(1, 3, W, dtype=torch.double).expand(20_000, -1, -1)
    with torch.no_grad():
        found, expected = of(tokens), by_all_tokens(of, tokens)
    torch.testing.assert_close(found.mean(0), expected.mean(0), rtol=0, atol=0.04)
    torch.testing.assert_close(found.std(0), expected.std(0), rtol=0.05, atol=0)


def test_only_the_first_token_goes_through_the_last_layer() -> None:
    B, T = 2, 5
    with FlopCounterMode(display=False) as counter:  # on the CPU attention counts from torch 2.15 on
        aggregator(2).to("meta")(torch.empty(B, T - 1, W, dtype=torch.double, device="meta"))
    linear, attended = T * (4 + 2 * FF) + 2 * T + 2 + 2 * FF, 2 * T * T + 2 * T  # MACs / W² and / W
    assert counter.get_total_flops() == 2 * B * (W * W * linear + W * attended)
