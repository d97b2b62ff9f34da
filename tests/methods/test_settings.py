"""What a method says of itself is true: the settings that it reads, its name, whether it sees actions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from methods_lab import A, noise, small_config, views_of

from seqjepa.config import RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import METHODS, build_method
from shards.errors import ConfigError
from shards.schema import ActionSpec, ActionTerm

CHANGES: dict[str, Any] = {
    "model.action_dim": 24,
    "model.action_calls": 2,
    "model.condition": "none",
    "model.predictor_hidden": 48,
    "model.layers": 2,
    "model.heads": 2,
    "model.ff_mult": 2,
    "model.dropout": 0.5,
    "optim.ema_tau": 0.5,
    "context_ssl.width": 48,
    "context_ssl.pairs": 2,
    "context_ssl.mask": 0.9,
    "context_ssl.temperature": 0.9,
    "context_ssl.regression": 50.0,
}
"""Every setting that some methods read and others do not, with another value than small_config's."""


def changed(config: RunConfig, *keys: str) -> RunConfig:
    for key in keys:
        section, name = key.split(".")
        config = config.model_copy(update={section: getattr(config, section).model_copy(update={name: CHANGES[key]})})
    return config


def observed(config: RunConfig, seq: ViewSequence) -> dict[str, torch.Tensor]:
    """Everything that a method begins with and does in one step."""
    torch.manual_seed(0)
    method = build_method(config, A)
    found = {f"start {name}": value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(1)
    for parameter in method.parameters():  # away from the start, where a token of zeros attends to all alike
        parameter.data += 0.1 * torch.randn_like(parameter)
    found["loss"] = method.step(seq).loss.detach()
    for parameter in method.encoder.parameters():
        parameter.data += 1
    method.after_step(0.5)
    return found | {f"end {name}": value for name, value in method.state_dict().items()}


@pytest.mark.parametrize("name", METHODS)
def test_it_reads_the_settings_that_it_names_and_no_others(name: str) -> None:
    assert set(CHANGES) == {key for method in METHODS.values() for key in method.settings}
    config, seq, reads = small_config(name), noise(views_of(name)), METHODS[name].settings
    before = observed(config, seq)

    def same_with(*keys: str) -> bool:
        after = observed(changed(config, *keys), seq)
        return before.keys() == after.keys() and all(
            value.shape == after[k].shape and torch.equal(value, after[k]) for k, value in before.items()
        )

    assert same_with(*(key for key in CHANGES if key not in (*reads, "model.condition")))
    for key in CHANGES.keys() & reads:
        assert not same_with(key), key
    if "model.condition" not in reads:
        with pytest.raises(ConfigError, match="condition"):
            build_method(changed(config, "model.condition"), A)


@pytest.mark.parametrize("name", METHODS)
def test_actions_move_the_loss_of_methods_that_use_them(name: str) -> None:
    torch.manual_seed(0)
    method, seq = build_method(small_config(name), A).eval(), noise(views_of(name))
    losses = [method.step(replace(seq, actions=seq.actions * factor)).loss for factor in (1.0, 5.0)]
    assert (losses[0] != losses[1]) == method.uses_actions


def test_names_differ() -> None:
    names = [method.display_name for method in METHODS.values()]
    assert all(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", METHODS)
def test_methods_that_need_actions_refuse_a_run_without_in_one_line(name: str) -> None:
    config = small_config(name)
    config = config.model_copy(update={"data": config.data.model_copy(update={"action": "none"})})
    if not METHODS[name].uses_actions:
        assert build_method(config, 0)
        return
    with pytest.raises(ConfigError, match="actions") as caught:
        build_method(config, 0)
    assert "\n" not in str(caught.value)
    if "model.condition" in METHODS[name].settings:
        assert "set model.condition=none" in str(caught.value)
        assert build_method(changed(config, "model.condition"), 0)


POSE = ("x", "y", "z", "rot_x", "rot_y", "rot_z")


@pytest.mark.parametrize(
    ("terms", "refused"),
    [
        ([ActionTerm("relative_pose", POSE)], "relative_pose"),
        ([ActionTerm("difference", ("x",)), ActionTerm("relative_rotation", POSE[3:])], "relative_rotation"),
        ([ActionTerm("relative_rotation", POSE[3:]), ActionTerm("difference", ("x",))], ""),
        ([ActionTerm("command", ("x", "y"))], ""),
    ],
)
def test_conv_jepa_refuses_actions_that_do_not_add_up(terms: list[ActionTerm], refused: str) -> None:
    spec, config = ActionSpec(tuple(terms)), small_config("conv_jepa")
    config = config.model_copy(update={"data": config.data.model_copy(update={"action": spec})})
    if not refused:
        assert build_method(config, spec.size).rotations == (terms[0].op == "relative_rotation")  # type: ignore[union-attr]
        return
    with pytest.raises(ConfigError, match=f"adds actions up .* {refused} is not made for"):
        build_method(config, spec.size)
