"""What every method promises to the trainer and to evaluation, one test for all of them."""

from __future__ import annotations

import copy
from typing import Any

import methods_lab
import pytest
import small_backbone
import torch
from methods_lab import (
    BASELINES,
    BYOL_LIKE,
    CONDITIONED,
    NO_PROJECTOR,
    D,
    frozen,
    noise,
    separability,
    small_config,
    stripes,
    views_of,
)
from torch import Tensor

from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import build_method
from seqjepa.methods.base import Predicting
from seqjepa.methods.flops import count_macs
from shards.errors import ConfigError

METHODS = (*BASELINES, "seq_jepa", "conv_jepa", "context_ssl")
WITH_TARGET = (*BYOL_LIKE, "seq_jepa", "conv_jepa")
ONE_ONLINE_VIEW = ("conditional_byol", "seq_jepa", "conv_jepa")
KINDS = [
    (name, kind) for name in METHODS for kind in ("mlp", "transformer") if kind == "mlp" or name not in NO_PROJECTOR
]


def small(name: str, kind: str = "mlp", fidelity: str = "paper", **more: Any) -> Any:
    """With an encoder that has convolutions and batch norm, as a ResNet has, and is made and trained in less time."""
    return methods_lab.small(name, kind, fidelity, **{"backbone": small_backbone.small.__name__, **more})


def loss_of(method: Any, seq: ViewSequence) -> Tensor:
    """Of one step of a copy, with what Context SSL draws (environment, masks) the same every time."""
    torch.manual_seed(3)
    return copy.deepcopy(method).step(seq).loss


@pytest.mark.parametrize("fidelity", ["paper", "author"])
@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_step_gives_a_loss_features_and_gradients_where_they_belong(name: str, kind: str, fidelity: str) -> None:
    method, seq = small(name, kind, fidelity), noise(views_of(name))
    seq.views.requires_grad_()
    out = method.step(seq)
    assert out.loss.ndim == 0
    assert torch.isfinite(out.loss)
    online = 1 if name in ONE_ONLINE_VIEW else views_of(name)
    assert out.features["z"].shape == (6, online, D)
    assert not out.features["z"].requires_grad
    out.loss.backward()
    for parameter_name, parameter in method.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
        assert parameter.requires_grad != parameter_name.startswith("target_"), parameter_name
    reached = (seq.views.grad != 0).flatten(2).any(2).all(0)
    assert reached.tolist() == [view < online for view in range(views_of(name))]
    assert bool(frozen(method)) == (name in WITH_TARGET)
    assert method.embed(seq.views[:, 0]).shape == (6, D)


@pytest.mark.parametrize(("name", "targets"), [("byol", (1, 0)), ("conditional_byol", (1,))])
def test_a_target_has_no_graph_and_statistics_of_its_own(name: str, targets: tuple[int, ...]) -> None:
    """targets: the views that go through the target branch, in that order."""
    method, seq = small(name, backbone="resnet18"), noise(2)
    seq.views.requires_grad_()
    expected = torch.zeros(8)
    for view in targets:
        expected = 0.9 * expected + 0.1 * method.target_encoder.conv1(seq.views[:, view]).mean((0, 2, 3))
    method.step(seq)
    torch.testing.assert_close(method.target_encoder.bn1.running_mean, expected)
    assert not method.embed_target(seq.views[:, 1]).requires_grad


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_after_a_step_only_the_targets_parameters_move(name: str, kind: str) -> None:
    method = small(name, kind)
    method.step(noise(views_of(name)))
    torch.manual_seed(1)
    for parameter in method.parameters():
        parameter.data += torch.randn_like(parameter)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    method.after_step(0.0)
    targets = frozen(method)
    for key, value in method.state_dict().items():
        wanted = before[key]
        if key in targets:
            wanted = 0.9 * before[key] + 0.1 * before[key.removeprefix("target_")]
        torch.testing.assert_close(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_the_action_matters_where_there_is_one_to_matter(name: str) -> None:
    method, seq = small(name), noise(views_of(name))
    method.after_step(0.0)
    loss = loss_of(method, seq)
    assert torch.equal(loss, loss_of(method, seq))
    seq.actions.copy_(noise(views_of(name), seed=1).actions)
    same = torch.equal(loss, loss_of(method, seq))
    assert same == (name not in (*CONDITIONED, "seq_jepa", "conv_jepa", "context_ssl"))
    assert isinstance(method, Predicting) == (name in (*CONDITIONED, "conv_jepa"))


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_a_method_is_a_function_of_its_seed_and_a_loss_of_the_method(name: str, kind: str) -> None:
    losses = []
    for seed in (0, 0, 1):
        method = small(name, kind, seed=seed)
        method.step(noise(views_of(name)))
        losses.append(method.step(noise(views_of(name), seed=1)).loss.item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("name", METHODS)
def test_eval_mode_changes_nothing_and_knows_no_batch(name: str) -> None:
    method = small(name)
    method.step(noise(views_of(name)))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    seq = noise(views_of(name), seed=1)
    z = method.eval().step(seq).features["z"]
    torch.testing.assert_close(method.embed(seq.views[:2, 0]), z[:2, 0])
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_under_bfloat16_the_loss_is_float32_and_near(name: str) -> None:
    method, seq = small(name), noise(views_of(name), batch=16)
    exact = loss_of(method, seq).item()
    torch.manual_seed(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = method.step(seq)
    out.loss.backward()
    assert out.loss.dtype == out.features["z"].dtype == torch.float32
    assert out.loss.item() == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_its_multiplications_can_be_counted(name: str) -> None:
    context = views_of(name) - 1
    macs = count_macs(small(name), 4, 32, context)
    assert macs.training > 2 * macs.forward > 0


@pytest.mark.parametrize("name", METHODS)
def test_it_learns_what_the_views_of_an_object_share(name: str) -> None:
    method: Any = small(name)
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=1e-2, fused=True)
    assert separability(method) < 0.85
    for step in range(100):  # 20 at most are needed
        method.step(stripes(views_of(name), 16, step)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(0.0)
        if step % 5 == 4 and separability(method) > 0.95:
            return
    pytest.fail(f"after 100 steps a line gets {separability(method):.0%} right")


@pytest.mark.parametrize("name", [*BASELINES, "context_ssl"])
def test_views_that_it_does_not_take_are_refused_with_the_setting(name: str) -> None:
    config, context = small_config(name), views_of(name) - 1
    wrong = config.model_copy(update={"data": config.data.model_copy(update={"context": 4})})
    with pytest.raises(ConfigError, match=rf"{name} takes exactly {context + 1} .* set data\.context={context}$"):
        build_method(wrong, 4)
    with pytest.raises(ConfigError, match=rf"choice of conv_jepa and seq_jepa; leave it out for {name}"):
        small(name, condition="none")
