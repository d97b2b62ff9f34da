"""The aggregator: a transformer that turns a set of tokens into one representation (paper §3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqjepa.config import ModelConfig
from shards.errors import ConfigError


class Aggregator(nn.Module):
    """tokens [B, M, W] → z_AGG [B, W], for any M ≥ 1.

    Post-norm layers with ReLU and biases, then one more LayerNorm; no positions and no mask, so that the tokens are
    a set. The learnable [AGG] token starts at zero and the layers start as identical copies of one. Of the last layer
    only [AGG]'s output is read, and no other is computed.
    """

    def __init__(self, width: int, config: ModelConfig) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, config.heads, config.ff_mult * width, dropout=config.dropout, batch_first=True
        )
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.encoder = nn.TransformerEncoder(layer, config.layers, norm=nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        *layers, last = self.encoder.layers
        tokens = self.with_token(tokens)
        for layer in layers:
            tokens = layer(tokens)
        return self.encoder.norm(_first_output(last, tokens))  # type: ignore[arg-type]

    def with_token(self, tokens: Tensor) -> Tensor:
        """[B, M + 1, W], [AGG] the first."""
        token = self.token.to(tokens.dtype).expand(tokens.shape[0], -1, -1)
        return torch.cat((token, tokens), dim=1)


def _first_output(layer: nn.TransformerEncoderLayer, tokens: Tensor) -> Tensor:
    """layer(tokens)[:, 0] of a post-norm TransformerEncoderLayer, of tokens [B, T, W]: that token alone is a query and
    goes through the feed-forward network. Dropout draws fewer numbers, so that a seed's are others."""
    first = tokens[:, :1]
    attended, _ = layer.self_attn(first, tokens, tokens, need_weights=False)
    first = layer.norm1(first + layer.dropout1(attended))[:, 0]
    hidden = layer.dropout(layer.activation(layer.linear1(first)))
    return layer.norm2(first + layer.dropout2(layer.linear2(hidden)))


def token_width(features: int, config: ModelConfig) -> int:
    """Width W of a token: features, plus the action embedding where the aggregator sees actions (Table 4).

    ConfigError: W is not a multiple of the heads.
    """
    action = config.action_dim if config.condition in ("both", "aggregator") else 0
    width = features + action
    if width % config.heads == 0:
        return width
    parts = f"{features} features + {action} action" if action else f"{features} features"
    divisors = ", ".join(str(n) for n in range(1, 17) if width % n == 0)
    step = config.heads - width % config.heads
    remedy = f" or model.action_dim to {action + step}" if action else ""
    raise ConfigError(
        f"a token has {width} values ({parts}), not a multiple of model.heads = {config.heads}; "
        f"set model.heads to one of {divisors}{remedy}"
    )
