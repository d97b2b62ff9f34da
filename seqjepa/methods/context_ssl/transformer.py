"""ContextSSL's transformer: what a view means, given pairs of views that were seen before (paper §A.3).

A pair is two tokens, [z of a view ; action] and [z of the view that the action leads to ; 0]. There are no positions:
order enters through the mask alone. S sequences of L tokens, D features, A action size, W width, H heads, N blocks.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqjepa.precision import exact_linear, full_precision

Memory = list[tuple[Tensor, Tensor]]
"""A context as it is kept: keys and values [H, L, W / H] of each block."""
INITIAL_STD = 0.02


def pair_mask(length: int, device: torch.device | str = "cpu") -> Tensor:
    """bool [L, L], True where the row's token may look at the column's: at itself and at those before it.

    The second token of a pair (odd rows) does not see the first one, or it could copy its partner.
    """
    column = torch.arange(length, device=device)
    row = column[:, None]
    return (column <= row) & ~((row % 2 == 1) & (column == row - 1))


def random_mask(numbers: Tensor, probability: float) -> Tensor:
    """pair_mask with whole pairs hidden at random: uniform numbers [N, L, L/2] in [0, 1) → bool [N, L, L].

    A row does not see the pair in whose place its number is below `probability`; it always sees itself.
    """
    length = numbers.shape[1]
    shown = (numbers >= probability).repeat_interleave(2, dim=2)
    itself = torch.eye(length, dtype=torch.bool, device=numbers.device)
    return pair_mask(length, numbers.device) & (shown | itself)


class Attention(nn.Module):
    """Multi-head attention of tokens to tokens, or of single tokens to a memory and themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        """x [S, L, W], allowed bool [L, L] → [S, L, W]."""
        mixed = F.scaled_dot_product_attention(*self.split(x), attn_mask=allowed)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [S, H, L, W / H] of x [S, L, W]."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def recall(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Rows x [n, W], each on its own beside the memory: keys and values [H, L, W / H] → [n, W].

        The memory is shared by all rows and never copied for them.
        """
        q, k, v = (part[0].transpose(0, 1) for part in self.split(x[None]))  # [n, H, W / H]
        q = q / math.sqrt(q.shape[-1])
        scores = torch.cat((torch.einsum("nhw,hlw->nhl", q, keys), (q * k).sum(-1, keepdim=True)), dim=-1)
        weights = scores.softmax(dim=-1)
        mixed = torch.einsum("nhl,hlw->nhw", weights[..., :-1], values) + weights[..., -1:] * v
        return self.out(mixed.flatten(1))


class Block(nn.Module):
    """Pre-norm: attention, then a two-layer perceptron with GELU, each added to what came in. No dropout."""

    def __init__(self, width: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, ff_mult * width), nn.Linear(ff_mult * width, width)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        return self._perceive(x + self.attention(self.norm1(x), allowed))

    def recall(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return self._perceive(x + self.attention.recall(self.norm1(x), keys, values))

    def _perceive(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.gelu(self.widen(self.norm2(x))))


class ContextTransformer(nn.Module):
    """Tokens [S, L, D + A] → representations [S, L, D]: read-in, N blocks, layer norm, read-out."""

    def __init__(self, features: int, action_size: int, width: int, layers: int, heads: int, ff_mult: int) -> None:
        super().__init__()
        self.read_in = nn.Linear(features + action_size, width)
        self.layers = nn.ModuleList(Block(width, heads, ff_mult) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.read_out = nn.Linear(width, features)
        self._initialise()

    @property
    def blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.layers))

    def forward(self, tokens: Tensor, allowed: Tensor) -> Tensor:
        """allowed: bool [N, L, L], a mask for each block, the same for all S sequences."""
        x = self._read(tokens)
        for block, seen in zip(self.blocks, allowed, strict=True):
            x = block(x, seen)
        return self.read_out(self.norm(x))

    def remember(self, tokens: Tensor) -> Memory:
        """The memory of a context [L, D + A] of L / 2 pairs, without random masks. L may be 0."""
        x, allowed, memory = self._read(tokens)[None], pair_mask(len(tokens), tokens.device), []
        for block in self.blocks:
            _, keys, values = block.attention.split(block.norm1(x))
            memory.append((keys[0], values[0]))
            x = block(x, allowed)
        return memory

    def recall(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Each of the tokens [n, D + A] as the one that follows the memory's context → [n, D]."""
        x = self._read(tokens)
        for block, (keys, values) in zip(self.blocks, memory, strict=True):
            x = block.recall(x, keys, values)
        return self.read_out(self.norm(x))

    def _read(self, tokens: Tensor) -> Tensor:
        """Not under autocast: eight bits of a quaternion are a fifth of a degree. On a GPU the action's part is a
        product of its own, without TF32."""
        tokens, (weight, bias) = tokens.to(self.read_in.weight.dtype), (self.read_in.weight, self.read_in.bias)
        with full_precision(tokens.device):
            if not tokens.is_cuda:
                return self.read_in(tokens)
            D = self.read_out.out_features
            return F.linear(tokens[..., :D], weight[:, :D], bias) + exact_linear(tokens[..., D:], weight[:, D:])

    def _initialise(self) -> None:
        """GPT-2's: normal weights, no biases, and what is added to the residual stream scaled by its depth."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)
        for block in self.blocks:
            for added in (block.attention.out, block.narrow):
                nn.init.normal_(added.weight, std=INITIAL_STD / math.sqrt(2 * len(self.blocks)))
