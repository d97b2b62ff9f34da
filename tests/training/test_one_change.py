"""Settings that a fidelity, or the length of a run, brings along with others, each changed by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_helpers import make_shards, metrics, tiny_config

from seqjepa.data.actions import as_spec
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods.seq_jepa import SeqJEPA
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import initial_method, load_run
from seqjepa.training.run_files import kept_weights
from seqjepa.training.train import train
from shards.errors import ConfigError

EPOCHS = 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("set") / "set", objects=16)


def trained(shards: Path, out: Path, *settings: str) -> list[dict]:
    train(tiny_config(*settings), shards, out, workers=0, progress=False)
    return metrics(out)


@pytest.mark.parametrize("settings", [(), ("fidelity=author", "optim.schedule=cosine")])
def test_a_short_run_of_a_long_schedule_is_the_beginning_of_the_long_run(shards, tmp_path, settings):
    whole = trained(shards, tmp_path / "whole", *settings, "train.keep_epochs=[2]")
    short = ("optim.epochs=2", f"optim.schedule_epochs={EPOCHS}")
    assert trained(shards, tmp_path / "short", *settings, *short) == whole[:2]
    ours, expected = (
        load_file(tmp_path / "short" / "model.safetensors"),
        load_file(tmp_path / "whole" / kept_weights(2)),
    )
    assert all(torch.equal(ours[name], value) for name, value in expected.items())
    alone = trained(shards, tmp_path / "alone", *settings, "optim.epochs=2")
    assert alone[1]["lr"] <= whole[1]["lr"]
    assert alone[1]["tau"] > whole[1]["tau"]


def test_schedules_that_end_before_training_are_refused():
    with pytest.raises(ConfigError, match=r"optim\.schedule_epochs = 2 is less than optim\.epochs = 3"):
        tiny_config("optim.schedule_epochs=2")


def test_tau_by_step_or_by_epoch_whatever_the_fidelity(shards, tmp_path):
    taus = {
        (fidelity, update): [
            line["tau"] for line in trained(shards, tmp_path / f"{fidelity}-{update}", f"fidelity={fidelity}", how)
        ]
        for fidelity in ("paper", "author")
        for update, how in (("auto", "train.keep_epochs=[]"), ("step", "optim.ema_update=step"))
    }
    assert taus["paper", "auto"] == taus["paper", "step"] == taus["author", "step"]
    assert taus["author", "auto"] != taus["author", "step"]
    by_epoch = trained(shards, tmp_path / "epoch", "optim.ema_update=epoch")
    assert [line["tau"] for line in by_epoch] == taus["author", "auto"]


def step_of(*settings: str, action: str = "rotation") -> tuple[SeqJEPA, torch.Tensor, torch.Tensor]:
    """A method after one step in train mode, its loss, and the gradient of the action embedding."""
    config = tiny_config(f"data.action={action}", "model.dropout=0", *settings)
    size = as_spec(config.data.action).size
    method = initial_method(config, size)
    assert isinstance(method, SeqJEPA)
    generator = torch.Generator().manual_seed(1)
    views, actions = torch.randn(8, 3, 3, 16, 16, generator=generator), torch.randn(8, 2, size, generator=generator)
    labels = torch.zeros(8, dtype=torch.int64)
    loss = method.step(ViewSequence(views, actions, torch.zeros(8, 3, 0), labels, [""] * 8)).loss
    loss.backward()
    gradient = next(method.action_embedding.parameters()).grad
    assert gradient is not None
    return method, loss.detach(), gradient.clone()


@pytest.mark.parametrize("action", ["rotation", "position"])
def test_action_calls_are_what_fidelities_differ_in(action):
    (paper, loss_1, grad_1), (author, loss_2, grad_2) = (
        step_of(f"fidelity={fidelity}", action=action) for fidelity in ("paper", "author")
    )
    for fidelity in ("paper", "author"):
        for calls, (like, loss, grad) in ((1, (paper, loss_1, grad_1)), (2, (author, loss_2, grad_2))):
            method, found, gradient = step_of(f"fidelity={fidelity}", f"model.action_calls={calls}", action=action)
            assert torch.equal(found, loss)
            assert torch.equal(gradient, grad)
            assert all(torch.equal(value, method.state_dict()[name]) for name, value in like.state_dict().items())
    assert loss_1 != loss_2


@pytest.mark.parametrize("action", ["rotation_canonical", "rotation_6d"])
def test_a_form_of_rotation_is_chosen_by_a_setting_and_nothing_else_changes(shards, tmp_path, action):
    """No set is built anew. The released quirk of positions – a row of zeros – stays off for every form."""
    trained(shards, tmp_path, f"data.action={action}", "optim.epochs=1")
    loaded = load_run(tmp_path)
    assert (loaded.data.action, loaded.data.action_size) == (action, as_spec(action).size)
    methods = [step_of("fidelity=author", action=kind)[0] for kind in ("rotation", action, "position")]
    assert [method.blank_last for method in methods] == [False, False, True]
    assert all(
        torch.equal(value, methods[1].encoder.state_dict()[name])
        for name, value in methods[0].encoder.state_dict().items()
        if "running" not in name and "tracked" not in name
    )


def test_a_run_of_terms_that_have_a_name_since_is_still_read(shards, tmp_path):
    """As runs noted it that declared the terms of rotation_6d before it had a name."""
    trained(shards, tmp_path, "data.action=rotation_6d", "optim.epochs=1")
    noted = json.loads((tmp_path / "run.json").read_text())
    noted["data"]["action"] = "declared"
    (tmp_path / "run.json").write_text(json.dumps(noted))
    config = (tmp_path / "config.toml").read_text()
    terms = 'action = [{op = "relative_rotation", columns = ["rot_x", "rot_y", "rot_z"], result = "6d"}]'
    (tmp_path / "config.toml").write_text(config.replace('action = "rotation_6d"', terms))
    assert load_run(tmp_path).config.data.action == "rotation_6d"


CAUSES = {
    "optim.optimizer": "adam",
    "optim.schedule": "constant",
    "optim.lr_update": "epoch",
    "optim.ema_update": "epoch",
    "optim.schedule_epochs": 4000,
    "optim.batch_size": 64,
    "model.action_calls": 2,
    "model.width": 0.25,
    "data.context": 1,
    "data.action": "rotation_canonical",
}


@pytest.mark.parametrize("key", CAUSES)
def test_every_cause_is_one_key(key):
    plain = load_recipe("3die-rot-M3").model_dump()
    section, name = key.split(".")
    changed = load_recipe("3die-rot-M3", [f"{key}={CAUSES[key]}"]).model_dump()
    assert changed[section].pop(name) == CAUSES[key]
    assert plain[section].pop(name) != CAUSES[key]
    assert changed == plain
