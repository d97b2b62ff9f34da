"""What path integration is read from, and the released code's zero row among the actions of saccades."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from seqjepa.config import DataConfig, ModelConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method
from seqjepa.methods.seq_jepa import SeqJEPA

D, E = 64, 16


def warmed(condition: Any = "both") -> SeqJEPA:
    """In eval mode; actions were seen, so that the embedding of a zero action is not zero."""
    torch.manual_seed(0)
    method = SeqJEPA(RunConfig(model=ModelConfig(width=0.125, action_dim=E, condition=condition)), 2)
    torch.nn.init.normal_(method.aggregator.token)
    if condition != "none":
        method.action_embedding(torch.randn(64, 2) + 1)
    return method.eval()


def batch(M: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(5, M, D, generator=generator), torch.randn(5, M, 2, generator=generator)


@pytest.mark.parametrize("M", [1, 3])
def test_features_are_the_predictors_input(M: int) -> None:
    method, (z, actions) = warmed(), batch(M)
    features = method.path_features(z, actions)
    assert features.shape == (5, D + 2 * E)
    torch.testing.assert_close(
        method.predictor(features), method.predict(method.aggregate(z, actions[:, :-1]), actions[:, -1])
    )


@pytest.mark.parametrize("M", [1, 3])
def test_each_ablation_shows_only_what_it_says(M: int) -> None:
    method, (z, actions) = warmed(), batch(M)
    other_z, other_actions = z.flip(0), actions.flip(0)
    blind = method.path_features(z, actions, vision=False)
    assert torch.equal(blind, method.path_features(other_z, actions, vision=False))
    assert (blind - method.path_features(other_z, other_actions, vision=False)).abs().max() > 1e-2
    torch.testing.assert_close(blind, method.path_features(torch.zeros_like(z), actions))
    still = method.path_features(z, actions, action=False)
    assert torch.equal(still, method.path_features(z, other_actions, action=False))
    assert (still - method.path_features(other_z, actions, action=False)).abs().max() > 1e-2
    assert (still[:, -E:] == 0).all()


def test_without_action_the_tokens_hold_zeros_not_embeddings_of_zero() -> None:
    method, (z, actions) = warmed(), batch(3)
    tokens: list[Tensor] = []
    method.aggregator.register_forward_pre_hook(lambda _module, inputs: tokens.append(inputs[0]))
    method.path_features(z, actions, action=False)
    method.path_features(z, torch.zeros_like(actions))
    assert (tokens[0][..., D:] == 0).all()
    assert (tokens[1][:, :-1, D:] != 0).all()


@pytest.mark.parametrize(("condition", "width"), [("none", D), ("predictor", D + E), ("aggregator", D + 2 * E)])
def test_a_model_without_action_embedding_gives_its_aggregate(condition: str, width: int) -> None:
    method, (z, actions) = warmed(condition), batch(3)
    for shown in (True, False):
        assert method.path_features(z, actions, action=shown).shape == (5, width)
    if condition == "none":
        assert torch.equal(method.path_features(z, actions), method.aggregate(z, actions[:, :-1]))


@pytest.mark.parametrize(("action", "size", "last_matters"), [("rotation", 4, True), ("position", 2, False)])
def test_in_author_fidelity_the_last_action_is_a_zero_row_for_positions_only(
    action: Any, size: int, last_matters: bool
) -> None:
    """docs/fidelity.md #24: the row is overwritten after embedding, but counts in the tokens' batch statistics."""
    config = RunConfig(fidelity="author", data=DataConfig(action=action), model=ModelConfig(width=0.125, action_dim=E))
    torch.manual_seed(0)
    method = build_method(config, size)
    calls: list[Tensor] = []
    method.action_embedding.register_forward_pre_hook(lambda _module, inputs: calls.append(inputs[0].clone()))
    actions = torch.randn(4, 3, size)
    seq = ViewSequence(torch.randn(4, 4, 3, 16, 16), actions, actions, torch.zeros(4), [""] * 4)
    method.step(seq)
    assert torch.equal(calls[0], actions[:, -1])
    assert torch.equal(calls[1][:, :-1], actions[:, :-1])
    assert torch.equal(calls[1][:, -1], actions[:, -1] if last_matters else torch.zeros(4, size))
