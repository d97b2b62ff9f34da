"""The forward pass of the paper's §2.2, the ablations of Table 4 and the counts of the released classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from seqjepa.config import ModelConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method
from seqjepa.methods.base import Aggregating
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.released.seq_jepa import author_key
from shards.errors import ConfigError

D, E = 64, 16
CONDITIONS = ("both", "aggregator", "predictor", "none")


def small(fidelity: Any = "paper", **changes: Any) -> SeqJEPA:
    """ResNet-18 at an eighth of its width: D = 64, E = 16."""
    torch.manual_seed(0)
    return SeqJEPA(RunConfig(model=ModelConfig(width=0.125, **{"action_dim": E, **changes}), fidelity=fidelity), 4)


def sequence(context: int, batch: int = 5, seed: int = 0) -> ViewSequence:
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(batch, context + 1, 3, 32, 32, generator=generator)
    actions = F.normalize(torch.randn(batch, context, 4, generator=generator), dim=-1)
    labels = torch.zeros(batch, dtype=torch.long)
    return ViewSequence(views, actions, torch.zeros(batch, context + 1, 7), labels, [""] * batch)


def warmed(method: SeqJEPA) -> SeqJEPA:
    """In eval mode, with running statistics and an [AGG] token that are not their initial values."""
    torch.nn.init.normal_(method.aggregator.token)
    method.step(sequence(3, batch=16, seed=9))
    return method.eval()


@pytest.mark.parametrize("fidelity", ["paper", "author"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_one_model_takes_any_number_of_views(fidelity: str, condition: str) -> None:
    method = small(fidelity, condition=condition)
    width = D + (E if condition in ("both", "aggregator") else 0)
    for context in (1, 2, 3, 8):
        out = method.step(sequence(context))
        assert out.loss.shape == ()
        assert 0 <= out.loss.item() <= 2
        assert out.features["z"].shape == (5, context, D)
        assert out.features["z_agg"].shape == (5, width)
        assert not any(value.requires_grad for value in out.features.values())


@pytest.mark.parametrize("condition", ["none", "predictor"])
def test_without_action_tokens_the_views_are_a_set(condition: str) -> None:
    method = warmed(small(condition=condition))
    z, actions = torch.rand(5, 4, D), torch.randn(5, 3, 4)
    shuffled = method.aggregate(z[:, [2, 0, 3, 1]], actions)
    torch.testing.assert_close(shuffled, method.aggregate(z, actions), rtol=1e-5, atol=1e-5)


def test_with_action_tokens_only_whole_tokens_are_a_set() -> None:
    method = warmed(small())
    z, actions = torch.rand(5, 4, D), torch.randn(5, 3, 4)
    reference = method.aggregate(z, actions)
    order = [2, 0, 1]
    swapped = method.aggregate(z[:, [*order, 3]], actions[:, order])
    torch.testing.assert_close(swapped, reference, rtol=1e-5, atol=1e-5)
    assert (method.aggregate(z[:, [*order, 3]], actions) - reference).abs().max() > 1e-3
    assert (method.aggregate(z[:, [0, 1, 3, 2]], actions) - reference).abs().max() > 1e-3


def test_target_branch_has_statistics_of_its_own_and_no_gradients() -> None:
    method, seq = small(), sequence(3)
    start = {name: b.clone() for name, b in method.target_encoder.named_buffers()}
    seq.views.requires_grad_()
    method.step(seq).loss.backward()
    assert (seq.views.grad[:, -1] == 0).all()
    assert (seq.views.grad[:, :-1] != 0).any()
    assert all(p.grad is None and not p.requires_grad for p in method.target_encoder.parameters())
    assert all(p.grad is not None for p in method.encoder.parameters())
    # One training step moves a running mean by a tenth of this batch's mean: that of the targets alone.
    moved = method.target_encoder.bn1.running_mean
    of_targets = method.target_encoder.conv1(seq.views[:, -1]).mean((0, 2, 3))
    torch.testing.assert_close(moved, 0.1 * of_targets)
    after = {name: b.clone() for name, b in method.target_encoder.named_buffers()}
    assert not torch.equal(after["layer4.1.bn2.running_var"], start["layer4.1.bn2.running_var"])
    method.eval().step(seq)
    assert all(torch.equal(b, after[name]) for name, b in method.target_encoder.named_buffers())
    assert not method.target_encoder.training


@pytest.mark.parametrize("fidelity", ["paper", "author"])
def test_last_action_reaches_the_prediction_but_not_the_aggregate(fidelity: str) -> None:
    method, seq = warmed(small(fidelity)), sequence(3)
    tokens: list[Tensor] = []
    method.aggregator.register_forward_pre_hook(lambda _module, inputs: tokens.append(inputs[0]))
    predictions: list[Tensor] = []
    method.predictor.register_forward_hook(lambda _module, _inputs, output: predictions.append(output))
    reference = method.step(seq).features["z_agg"]
    seq.actions[:, -1] = seq.actions[:, -1].flip(-1)
    assert torch.equal(method.step(seq).features["z_agg"], reference)
    assert (predictions[1] - predictions[0]).abs().max() > 1e-4
    assert (tokens[0][:, -1, D:] == 0).all()
    assert (tokens[0][:, :-1, D:] != 0).all()


@pytest.mark.parametrize("context", [1, 3])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_aggregate_and_predict_are_the_parts_of_step(condition: str, context: int) -> None:
    method, seq = warmed(small(condition=condition)), sequence(context)
    assert isinstance(method, Aggregating)
    out = method.step(seq)
    z = method.embed(seq.views[:, :-1].flatten(0, 1)).unflatten(0, (5, context))
    z_agg = method.aggregate(z, seq.actions[:, :-1])
    torch.testing.assert_close(z_agg, out.features["z_agg"])
    prediction = method.predict(z_agg, seq.actions[:, -1])
    loss = 1 - F.cosine_similarity(prediction, method.embed_target(seq.views[:, -1])).mean()
    torch.testing.assert_close(loss, out.loss)


def test_fidelities_differ_in_training_and_agree_in_eval() -> None:
    paper, author = small("paper", dropout=0.0), small("author", dropout=0.0)
    losses = [method.step(sequence(3)).loss.item() for method in (paper, author)]
    assert losses[0] != pytest.approx(losses[1], abs=1e-5)
    author.load_state_dict(paper.state_dict())
    a, b = (method.eval().step(sequence(3)).loss.item() for method in (paper, author))
    assert a == b


def test_ema_step_is_the_convex_combination_for_every_parameter() -> None:
    method = small()
    method.step(sequence(2))
    torch.manual_seed(1)
    for parameter in method.encoder.parameters():
        parameter.data += torch.randn_like(parameter)
    before = {name: value.clone() for name, value in method.target_encoder.state_dict().items()}
    method.after_step(0.0)
    for name, parameter in method.target_encoder.named_parameters():
        wanted = 0.996 * before[name] + 0.004 * method.encoder.get_parameter(name)
        torch.testing.assert_close(parameter.data, wanted.data, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(b, before[name]) for name, b in method.target_encoder.named_buffers())
    after = {name: value.clone() for name, value in method.target_encoder.state_dict().items()}
    method.after_step(1.0)
    assert all(torch.equal(value, after[name]) for name, value in method.target_encoder.state_dict().items())


@pytest.mark.parametrize(
    ("condition", "action_size", "count"),
    [("both", 4, 27_262_784), ("both", 6, 27_263_040), ("none", 4, 21_686_336),
     ("aggregator", 4, 27_262_784 - 128 * 1024), ("predictor", 4, 21_686_336 + 512 + 128 * 1024)],
)  # fmt: skip
def test_parameter_counts(condition: Any, action_size: int, count: int) -> None:
    with torch.device("meta"):
        method = SeqJEPA(RunConfig(model=ModelConfig(condition=condition)), action_size)
    assert sum(p.numel() for p in method.parameters() if p.requires_grad) == count
    assert len({author_key(name) for name in method.state_dict()}) == len(method.state_dict())
    assert len(method.state_dict()) == (287 if condition == "none" else 291)  # as the released class has


@pytest.mark.parametrize("action_dim", [16, 64, 128, 256])
def test_action_dimensions_of_the_ablation_fit(action_dim: int) -> None:
    with torch.device("meta"):
        method = SeqJEPA(RunConfig(model=ModelConfig(action_dim=action_dim)), 4)
    assert method.aggregator.token.shape == (1, 1, 512 + action_dim)
    assert method.predictor[0].weight.shape == (1024, 512 + 2 * action_dim)


def test_start_is_zero_token_and_identical_layers() -> None:
    method = small()
    assert (method.aggregator.token == 0).all()
    layers = method.aggregator.encoder.layers
    for first, second in zip(layers[0].parameters(), layers[2].parameters(), strict=True):
        assert torch.equal(first, second)
        assert first is not second


@pytest.mark.parametrize("conditioned", ["both", "predictor"])
def test_channels_last_batches_give_the_same_and_stay_channels_last(conditioned: str) -> None:
    method, seq = small(condition=conditioned).eval(), sequence(3)
    seen: list[Tensor] = []
    method.encoder.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    bytes_last = seq.views.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    other = ViewSequence(bytes_last, seq.actions, seq.params, seq.labels, seq.keys)
    torch.testing.assert_close(method.step(other).loss, method.step(seq).loss)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen[0], seen[1])


def test_bfloat16_autocast_keeps_loss_and_features_in_float32() -> None:
    method, seq = small(dropout=0.0), sequence(3)
    exact = method.step(seq).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method.step(seq)
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in out.features.values())
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)
    assert out.loss.item() == pytest.approx(exact.item(), abs=0.05)


def test_wrong_widths_name_what_fits() -> None:
    with pytest.raises(
        ConfigError, match=r"529 values \(512 features \+ 17 action\).*heads = 4; .* 1.*action_dim to 20"
    ):
        SeqJEPA(RunConfig(model=ModelConfig(action_dim=17)), 4)
    with pytest.raises(ConfigError, match=r"512 values \(512 features\).*heads = 3; .* 1, 2, 4, 8, 16$"):
        SeqJEPA(RunConfig(model=ModelConfig(condition="none", heads=3)), 4)


def test_methods_are_built_by_name_and_by_seed() -> None:
    config = RunConfig(fidelity="author", model=ModelConfig(width=0.125, action_dim=E))
    built = []
    for _ in range(2):
        torch.manual_seed(7)
        built.append(build_method(config, 6))
    assert built[0].two_calls
    for (name, a), (_, b) in zip(built[0].state_dict().items(), built[1].state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(ConfigError, match=r"'dino'; allowed are byol, .*seq_jepa"):
        build_method(RunConfig(method="dino"), 4)
