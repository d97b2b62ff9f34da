"""Conv-JEPA beside a slow reference that works pair by pair, and the contract that every method with a target keeps."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from seqjepa.config import DataConfig, ModelConfig, OptimConfig, RunConfig
from seqjepa.data.actions import quaternion, relative_quaternion
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method
from seqjepa.methods.base import Aggregating
from seqjepa.methods.conv_jepa import ConvJEPA, to_last
from shards.errors import ConfigError

D, P, E = 64, 24, 16
POSITION = DataConfig(action="position")


def small(fidelity: Any = "paper", **changes: Any) -> ConvJEPA:
    """ResNet-18 at an eighth of its width, projector 64 → 40 → 24."""
    torch.manual_seed(0)
    sizes = {"action_dim": E, "projector": (40, P), "predictor_hidden": 32, **changes}
    model = ModelConfig(width=0.125, stem="cifar", **sizes)
    return ConvJEPA(RunConfig(model=model, data=POSITION, fidelity=fidelity), 2)


def sequence(context: int, batch: int = 5, seed: int = 0) -> tuple[ViewSequence, Tensor]:
    """A batch and the positions [B, T, 2] that its actions are the differences of."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(batch, context + 1, 3, 16, 16, generator=generator)
    positions = torch.rand(batch, context + 1, 2, generator=generator)
    labels = torch.full((batch,), -1)
    return ViewSequence(views, positions.diff(dim=1), positions, labels, [""] * batch), positions


def by_hand(x: Tensor, linear: nn.Module, norm: nn.Module, relu: bool) -> Tensor:
    """A linear layer and its batch norm in train mode, from their definitions."""
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    x = torch.stack([linear.weight @ row for row in x])
    x = (x - x.mean(0)) / torch.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5)
    x = x if norm.weight is None else x * norm.weight + norm.bias
    return x.clamp(min=0) if relu else x


def reference_loss(method: ConvJEPA, seq: ViewSequence, positions: Tensor) -> Tensor:
    """The loss from views and absolute positions, rows in another order than the method's: pair by pair."""
    B, M = seq.actions.shape[:2]
    pairs = [(b, i) for i in range(M) for b in range(B)]
    z = method.encoder(torch.stack([seq.views[b, i] for b, i in pairs]))
    y = by_hand(by_hand(z, *method.projector[:2], relu=True), *method.projector[3:], relu=False)
    moves = torch.stack([positions[b, M] - positions[b, i] for b, i in pairs])
    e = by_hand(moves, method.action_embedding.proj, method.action_embedding.norm, relu=False)
    hidden = by_hand(torch.cat([e, y], 1), *method.predictor[:2], relu=True)
    last = method.predictor[3]
    assert isinstance(last, nn.Linear)
    predicted = [last.weight @ row + last.bias for row in hidden]
    target = method.target_encoder(seq.views[:, -1])
    target = by_hand(target, *method.target_projector[:2], relu=True)
    target = by_hand(target, *method.target_projector[3:], relu=False)
    cosines = [p @ target[b] / (p.norm() * target[b].norm()) for p, (b, _) in zip(predicted, pairs, strict=True)]
    return torch.stack([1 - c for c in cosines]).sum() / (B * M)


@pytest.mark.parametrize("context", [1, 2, 4])
def test_loss_and_gradients_equal_a_slow_reference(context: int) -> None:
    method = small().double()
    seq, positions = sequence(context)
    seq = ViewSequence(seq.views.double(), seq.actions.double(), seq.params, seq.labels, seq.keys)
    # Away from the start, where every residual branch and half of the norms do nothing.
    for parameter in method.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    slow = copy.deepcopy(method)
    loss, expected = method.step(seq).loss, reference_loss(slow, seq, positions.double())
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)  # actions are embedded in float32 or wider
    loss.backward()
    expected.backward()
    for (name, one), two in zip(method.named_parameters(), slow.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_target_branch_has_no_gradients_and_statistics_of_its_own() -> None:
    method, (seq, _) = small(), sequence(3)
    seq.views.requires_grad_()
    method.step(seq).loss.backward()
    assert (seq.views.grad[:, -1] == 0).all()
    assert (seq.views.grad[:, :-1] != 0).any()
    for frozen, trained in ((method.target_encoder, method.encoder), (method.target_projector, method.projector)):
        assert all(p.grad is None and not p.requires_grad for p in frozen.parameters())
        assert all(p.grad is not None for p in trained.parameters())
    of_targets = method.target_encoder.conv1(seq.views[:, -1]).mean((0, 2, 3))
    torch.testing.assert_close(method.target_encoder.bn1.running_mean, 0.1 * of_targets)
    assert all(p.grad is not None for p in (*method.predictor.parameters(), *method.action_embedding.parameters()))
    before = {name: b.clone() for name, b in method.named_buffers()}
    method.eval().step(seq)
    assert all(torch.equal(b, before[name]) for name, b in method.named_buffers())


def test_the_average_moves_both_copies_over_parameters_only() -> None:
    method = small()
    method.step(sequence(2)[0])
    torch.manual_seed(1)
    for parameter in (*method.encoder.parameters(), *method.projector.parameters()):
        parameter.data += torch.randn_like(parameter)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.after_step(0.0)
    for online, target in (("encoder", "target_encoder"), ("projector", "target_projector")):
        for name, parameter in method.get_submodule(target).named_parameters():
            wanted = 0.996 * before[f"{target}.{name}"] + 0.004 * before[f"{online}.{name}"]
            torch.testing.assert_close(parameter.data, wanted, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(b, before[name]) for name, b in method.named_buffers())


@pytest.mark.parametrize("condition", ["both", "predictor", "aggregator", "none"])
def test_one_model_takes_any_number_of_views(condition: str) -> None:
    method = small(condition=condition)
    for context in (1, 2, 5):
        out = method.step(sequence(context)[0])
        assert 0 <= out.loss.item() <= 2
        assert out.features["z"].shape == (5, context, D)
        assert set(out.features) == {"z"}
        assert not out.features["z"].requires_grad
    assert hasattr(method, "action_embedding") == (condition in ("both", "predictor"))
    assert not isinstance(method, Aggregating)


def test_features_are_the_encoders_in_the_order_of_the_views() -> None:
    method, (seq, _) = small().eval(), sequence(3)
    z = method.step(seq).features["z"]
    for i in range(3):
        torch.testing.assert_close(z[:, i], method.encoder(seq.views[:, i]))
        assert torch.equal(method.embed(seq.views[:, i]), method.encoder(seq.views[:, i]))


def test_widths_follow_fidelity_unless_given() -> None:
    with torch.device("meta"):
        wide, narrow = (ConvJEPA(RunConfig(data=POSITION, fidelity=fidelity), 2) for fidelity in ("paper", "author"))
    assert [layer.weight.shape for layer in wide.projector[::3]] == [(2048, 512), (2048, 2048), (2048, 2048)]
    assert [layer.weight.shape for layer in narrow.projector[::3]] == [(2048, 512), (128, 2048)]
    assert narrow.predictor[0].weight.shape == (1024, 128 + 128)
    assert narrow.predictor[3].weight.shape == (128, 1024)
    assert wide.predictor[3].weight.shape == (2048, 1024)
    assert small("author").projector[-2].weight.shape == (P, 40)


def test_rotations_multiply_to_the_one_that_leads_to_the_last_view() -> None:
    """Beside SciPy's rotations; hues, which follow the quaternion, add up."""
    rng = np.random.default_rng(0)
    turns = [Rotation.from_euler("xyz", rng.uniform(-1.5, 1.5, (7, 3))) for _ in range(5)]
    hues = rng.uniform(size=(7, 5, 2))
    steps = [(a.inv() * b).as_quat() for a, b in pairwise(turns)]
    actions = np.concatenate((np.stack(steps, axis=1), np.diff(hues, axis=1)), axis=-1)
    found = to_last(torch.from_numpy(actions), rotations=True)
    for i in range(4):
        agreement = (found[:, i, :4].numpy() * (turns[i].inv() * turns[4]).as_quat()).sum(-1)
        np.testing.assert_allclose(abs(agreement), 1, rtol=1e-12)
        np.testing.assert_allclose(found[:, i, 4:], hues[:, 4] - hues[:, i], atol=1e-12)


def test_the_sign_of_a_quaternion_is_that_of_the_absolute_ones() -> None:
    absolute = quaternion(np.random.default_rng(1).uniform(-1.5, 1.5, (50, 5, 3)))
    actions = relative_quaternion(absolute[:, :-1], absolute[:, 1:])
    expected = relative_quaternion(absolute[:, :-1], absolute[:, -1:])
    np.testing.assert_allclose(to_last(torch.from_numpy(actions), rotations=True), expected, atol=1e-12)
    assert (expected[..., 3] < 0).any()


def test_it_is_built_by_name() -> None:
    config = RunConfig(
        method="conv_jepa",
        data=POSITION,
        model=ModelConfig(width=0.125, projector=(8,)),
        optim=OptimConfig(ema_tau=0.9),
    )
    method = build_method(config, 2)
    assert isinstance(method, ConvJEPA)
    assert method.ema_tau == 0.9
    assert not method.rotations
    assert build_method(config.model_copy(update={"data": DataConfig(action="rotation_colour")}), 6).rotations
    with pytest.raises(ConfigError, match="seq_jepa has no projector"):
        build_method(config.model_copy(update={"method": "seq_jepa"}), 2)


def test_it_is_deterministic_and_bfloat16_keeps_its_loss_in_float32() -> None:
    losses = []
    for _ in range(2):
        method = small()
        method.step(sequence(2)[0])
        losses.append(method.step(sequence(2, seed=1)[0]).loss)
    assert torch.equal(*losses)
    method = small()
    exact = method.step(sequence(3)[0]).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = small().step(sequence(3)[0]).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), abs=0.05)


def test_channels_last_batches_give_the_same() -> None:
    method, (seq, _) = small().eval(), sequence(3)
    bytes_last = seq.views.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    other = ViewSequence(bytes_last, seq.actions, seq.params, seq.labels, seq.keys)
    torch.testing.assert_close(method.step(other).loss, method.step(seq).loss)
    assert F.cosine_similarity(method.embed(seq.views[:, 0]), method.embed(other.views[:, 0])).min() > 0.9999
