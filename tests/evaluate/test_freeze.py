from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from seqjepa.evaluate import run as evaluation
from seqjepa.evaluate.results import read_results
from seqjepa.evaluate.run import frozen, state_sha256
from seqjepa.files import write_with_checksum
from seqjepa.recipes import load_recipe, to_toml
from shards.errors import FailureError


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_hash_sees_every_parameter_and_buffer():
    module = model()
    module.register_buffer("transient", torch.zeros(2), persistent=False)
    seen = {state_sha256(module)}
    tensors = [*module.parameters(), *module.buffers()]
    for tensor in tensors:
        tensor.data.view(-1)[0] += 1
        seen.add(state_sha256(module))
    assert len(seen) == len(tensors) + 1


def test_inside_it_is_in_eval_mode_without_gradients_and_afterwards_as_before():
    module = model()
    module[0].eval()
    with frozen(module) as digest:
        assert digest == state_sha256(module)
        assert not any(m.training for m in module.modules())
        assert not module(torch.randn(5, 3)).requires_grad
    assert [m.training for m in module.modules()] == [True, False, True]
    assert all(p.requires_grad for p in module.parameters())


def test_batch_norm_in_train_mode_is_caught():
    module = model()

    def probe_in_train_mode() -> None:
        with frozen(module):
            module.train()
            module(torch.randn(8, 3))

    with pytest.raises(FailureError, match="changed the model"):
        probe_in_train_mode()


def test_an_error_inside_is_not_hidden():
    module = model()

    def fail() -> None:
        with frozen(module):
            module[0].weight.data += 1
            raise KeyError("inner")

    with pytest.raises(KeyError, match="inner"):
        fail()


@pytest.mark.parametrize(("setting", "kept"), [("seed=7", False), ("optim.epochs=9", True)])
def test_numbers_of_a_run_that_was_begun_again_meanwhile_are_not_written(run, shards, monkeypatch, setting, kept):
    def measure(*_: object) -> dict[str, object]:
        changed = to_toml(load_recipe(run / "config.toml", [setting]))
        write_with_checksum(run / "config.toml", changed.encode())
        return {"top1_z": 0.5, "protocol": {}}

    monkeypatch.setattr(evaluation, "_measure", measure)
    with nullcontext() if kept else pytest.raises(FailureError, match="was begun again as another run"):
        evaluation.evaluate_run(run, shards, device="cpu", progress=False)
    assert ("trained" in read_results(run)) == kept
