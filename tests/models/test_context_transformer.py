"""The transformer of ContextSSL beside explicit loops: who sees whom, what is remembered, what masks cut off."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.methods.context_ssl.transformer import ContextTransformer, pair_mask, random_mask

D, A, W, HEADS, LAYERS = 6, 4, 16, 2, 3


def small() -> ContextTransformer:
    """In double precision, with weights large enough for attention to matter."""
    torch.manual_seed(0)
    net = ContextTransformer(D, A, W, LAYERS, HEADS, 4).double()
    for parameter in net.parameters():
        parameter.data = 0.4 * torch.randn_like(parameter) + (parameter.ndim == 1)
    return net.eval()


def tokens(sequences: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(sequences, length, D + A, generator=generator, dtype=torch.float64)


def sees(row: int, column: int) -> bool:
    """The rule in words: at oneself and backwards, but the second of a pair not at the first."""
    if row == column:
        return True
    return column < row and not (row % 2 == 1 and column == row - 1)


def slow(net: ContextTransformer, sequence: Tensor, allowed: list[list[list[bool]]]) -> Tensor:
    """One sequence [L, D + A], token by token and head by head."""
    x = [net.read_in.weight @ token + net.read_in.bias for token in sequence]
    for block, rule in zip(net.blocks, allowed, strict=True):
        qkv = [block.attention.qkv(block.norm1(token)) for token in x]
        attended = []
        for row in range(len(x)):
            heads = []
            for h in range(HEADS):
                q, k, v = (slice(part * W + h * W // HEADS, part * W + (h + 1) * W // HEADS) for part in range(3))
                columns = [c for c in range(len(x)) if rule[row][c]]
                weights = [math.exp(float(qkv[row][q] @ qkv[c][k]) / math.sqrt(W / HEADS)) for c in columns]
                parts = [w / sum(weights) * qkv[c][v] for w, c in zip(weights, columns, strict=True)]
                heads.append(torch.stack(parts).sum(0))
            attended.append(x[row] + block.attention.out(torch.cat(heads)))
        x = [y + block.narrow(F.gelu(block.widen(block.norm2(y)))) for y in attended]
    return torch.stack([net.read_out(net.norm(y)) for y in x])


def test_the_pair_mask_is_the_rule_written_out():
    assert pair_mask(4).tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [True, True, True, False],
        [True, True, False, True],
    ]
    for length in (1, 2, 7, 12):
        assert pair_mask(length).tolist() == [[sees(r, c) for c in range(length)] for r in range(length)]
    assert pair_mask(0).shape == (0, 0)


def test_the_random_mask_hides_whole_pairs_and_never_the_row_itself():
    numbers = torch.rand(2, 8, 4, generator=torch.Generator().manual_seed(0))
    allowed = random_mask(numbers, 0.6)
    for layer in range(2):
        for row in range(8):
            for column in range(8):
                shown = float(numbers[layer, row, column // 2]) >= 0.6 or row == column
                assert allowed[layer, row, column] == (sees(row, column) and shown)
    assert torch.equal(random_mask(numbers, 0.0), pair_mask(8).expand(2, -1, -1))


def test_the_share_of_hidden_pairs_is_the_probability():
    numbers = torch.rand(3, 128, 64, generator=torch.Generator().manual_seed(0))
    earlier = torch.ones(128, 128).tril(-2).bool() & pair_mask(128)
    assert random_mask(numbers, 0.9)[:, earlier].double().mean().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("hidden", [0.0, 0.5])
def test_forward_equals_a_slow_loop(hidden: float):
    net, x = small(), tokens(3, 8)
    allowed = random_mask(torch.rand(LAYERS, 8, 4, generator=torch.Generator().manual_seed(2)), hidden)
    with torch.no_grad():
        fast = net(x, allowed)
        for sequence, found in zip(x, fast, strict=True):
            torch.testing.assert_close(found, slow(net, sequence, allowed.tolist()), rtol=1e-10, atol=1e-10)


def influence(net: ContextTransformer, allowed: Tensor, row: int, length: int) -> Tensor:
    """Which input tokens move the output in `row`: bool [L], by gradient."""
    x = tokens(1, length).requires_grad_()
    net(x, allowed)[0, row].square().sum().backward()
    assert x.grad is not None
    return (x.grad[0] != 0).any(dim=1)


def test_a_partner_and_the_future_have_no_influence():
    net, allowed = small(), pair_mask(8).expand(LAYERS, -1, -1)
    for row in range(8):
        # Through other tokens nothing of the partner gets in either: those between see only what came before.
        assert influence(net, allowed, row, 8).tolist() == [sees(row, column) for column in range(8)]


def test_hidden_pairs_have_no_influence():
    numbers = torch.ones(LAYERS, 8, 4)
    numbers[:, :, 1] = 0  # nobody sees the second pair
    reached = influence(small(), random_mask(numbers, 0.5), 7, 8)
    assert reached.tolist() == [True, True, False, False, True, True, False, True]


@pytest.mark.parametrize("context", [0, 2, 10])
def test_recall_equals_the_full_forward(context: int):
    net, known, queries = small().float(), tokens(1, context)[0].float(), tokens(1, 5)[0].float()
    with torch.no_grad():
        found = net.recall(queries, net.remember(known))
        whole = torch.cat((known.expand(5, -1, -1), queries[:, None]), dim=1)
        expected = net(whole, pair_mask(context + 1).expand(LAYERS, -1, -1))[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_initial_weights_are_gpt2s():
    torch.manual_seed(0)
    net = ContextTransformer(32, 6, 256, LAYERS, 4, 4)
    assert net.blocks[0].attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.02)
    for added in (net.blocks[1].attention.out, net.blocks[1].narrow):
        assert added.weight.std().item() == pytest.approx(0.02 / math.sqrt(6), rel=0.02)
    assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))
