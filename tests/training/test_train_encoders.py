"""Runs with encoders of timm and with frozen ones: resumed to the bit, opened without what they began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from safetensors.torch import load_file
from train_helpers import (
    SACCADES,
    assert_same_end,
    make_saliency_shards,
    make_shards,
    metrics,
    tiny_config,
    train_killed_at,
)

import seqjepa
from seqjepa.config import EvalConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.evaluate.run import evaluate_run
from seqjepa.training.checkpoint import initial_method, load_run
from seqjepa.training.train import train
from shards.errors import ConfigError, UsageError
from shards.machine.files import sha256_of_file


def of_timm(name: str, *settings: str) -> list[str]:
    """For tiny_config, whose ResNet has a width and a stem."""
    return [f"model.backbone=timm:{name}", "model.width=1.0", "model.stem=standard", *settings]


VIT = of_timm("test_vit", "optim.epochs=2")


def batch() -> ViewSequence:
    g = torch.Generator().manual_seed(0)
    views, actions = torch.randn(6, 3, 3, 32, 32, generator=g), torch.randn(6, 2, 4, generator=g)
    return ViewSequence(views, actions, torch.zeros(6, 3, 0), torch.arange(6), [""] * 6)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("set") / "set", objects=20)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    net = timm.create_model("test_vit", num_classes=3, img_size=32)
    safetensors.torch.save_file(net.state_dict(), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def test_an_interrupted_vit_ends_as_one_that_was_left_alone(shards, tmp_path, monkeypatch) -> None:
    config = tiny_config(*VIT)
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    train_killed_at(3, config, shards, tmp_path / "killed", monkeypatch)
    assert_same_end(tmp_path / "killed", tmp_path / "whole")
    loaded = load_run(tmp_path / "whole")
    assert loaded.config.model.view_size == (32, 32)
    assert json.loads((tmp_path / "whole" / "run.json").read_text())["versions"]["timm"] == timm.__version__


@pytest.mark.slow
def test_stochastic_depth_is_resumed_too(shards, tmp_path, monkeypatch) -> None:
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda *words, **options: make(*words, drop_path_rate=0.5, **options))
    config = tiny_config(*VIT)
    train(config, shards, tmp_path / "whole", workers=0, progress=False)
    drawn = [m for m in load_run(tmp_path / "whole").method.encoder.modules() if getattr(m, "drop_prob", 0)]
    assert drawn
    train_killed_at(3, config, shards, tmp_path / "killed", monkeypatch)
    assert_same_end(tmp_path / "killed", tmp_path / "whole")


FROZEN = of_timm("test_vit", "model.freeze=true", "data.normalisation=encoder", "optim.epochs=2")


def test_a_frozen_run_keeps_all_that_it_needs(shards, weights, tmp_path, monkeypatch) -> None:
    config, digest = tiny_config(*FROZEN, f"model.pretrained={weights}"), sha256_of_file(weights)
    run = tmp_path / "run"
    train_killed_at(3, config, shards, run, monkeypatch)
    info = json.loads((run / "run.json").read_text())
    assert info["pretrained"] == {"weights": str(weights), "sha256": digest}
    assert info["data"]["mean"] == [0.5, 0.5, 0.5]  # timm's record of test_vit
    theirs = load_file(weights)
    views = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    z = seqjepa.load(run).embed(views)
    weights.unlink()
    model = seqjepa.load(run)
    assert torch.equal(model.embed(views), z)
    assert torch.equal(seqjepa.load(run, untrained=True).embed(views), z)
    saved = load_file(run / "model.safetensors")
    assert all(torch.equal(saved[f"encoder.{name}"], value) for name, value in theirs.items() if "head" not in name)
    assert not any(name.startswith("target_encoder") for name in saved)
    longer = train(config, shards, run, workers=0, progress=False, extend_epochs=3)  # goes on without the file
    assert (longer["status"], longer["epochs"]) == ("finished", 3)


def test_weights_that_changed_are_not_taken_for_those_of_the_run(shards, weights, tmp_path) -> None:
    config = tiny_config(*VIT, f"model.pretrained={weights}", "optim.epochs=1")
    train(config, shards, tmp_path / "run", workers=0, progress=False)
    assert load_run(tmp_path / "run", untrained=True).epochs == 0.0
    for name in ("state.pt", "model.safetensors"):
        (tmp_path / "run" / name).unlink()
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({k: v for k, v in info.items() if k != "finished_epochs"}))
    other = {name: value + 1 for name, value in load_file(weights).items()}
    safetensors.torch.save_file(other, weights)
    with pytest.raises(ConfigError, match=r"is not what .* began with; restore it"):
        load_run(tmp_path / "run", untrained=True)
    with pytest.raises(UsageError, match=r"holds another run: model\.pretrained's sha256"):
        train(config, shards, tmp_path / "run", workers=0, progress=False)


def test_patches_at_fixations_and_another_patch_in_evaluation(tmp_path) -> None:
    images = make_saliency_shards(tmp_path / "images", splits=("train", "val"))
    config = tiny_config(*of_timm("test_vit", "model.patch_size=4", "optim.epochs=1"), *SACCADES)
    train(config, images, tmp_path / "run", workers=0, progress=False)
    assert load_run(tmp_path / "run").config.model.view_size == (8, 8)
    asked = EvalConfig(probe_epochs=1, m_val=(2,), patch=12, train_draws=1, val_draws=1)
    results = evaluate_run(tmp_path / "run", images, asked, device="cpu", progress=False)
    assert results["costs"]["macs_g"]["2"] > 0


def test_micro_batches_are_exact_for_layer_norms() -> None:
    """The gradient of the encoder in parts is that of the whole batch; of a ResNet it is not."""

    def gradients(parts: int, *settings: str) -> dict[str, torch.Tensor]:
        method = initial_method(tiny_config(*settings), 4).encoder.double().train()
        views = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for part in views.chunk(parts):
            (method(part).square().sum() / len(views)).backward()
        return {name: p.grad for name, p in method.named_parameters() if p.grad is not None}

    vit = of_timm("test_vit", "model.view_size=[32, 32]")
    for settings, exact in ((vit, True), (of_timm("test_convnext"), True), ([], False)):
        whole, split = (gradients(parts, *settings) for parts in (1, 3))
        same = [torch.allclose(split[name], value, rtol=1e-9, atol=1e-12) for name, value in whole.items()]
        assert all(same) == exact, settings


@pytest.mark.slow
@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet"])
def test_two_ranks_learn_what_one_process_does(two_ranks, shards, tmp_path, name: str) -> None:
    settings = [*of_timm(name, "optim.epochs=1"), "model.dropout=0.0"]
    train(tiny_config(*settings), shards, tmp_path / "one", workers=0, progress=False)
    done = two_ranks(shards, tmp_path / "two", settings)
    assert [code for code, _ in done] == [0, 0], done
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    one, two = (load_file(tmp_path / run / "model.safetensors") for run in ("one", "two"))
    assert max(float((one[key].float() - two[key].float()).abs().max()) for key in one) < 2e-3


@pytest.mark.slow
def test_a_compiled_step_is_the_same_step() -> None:
    """torch.compile's capture of the whole step, hook and stochastic depth included, without its code generator."""
    config = tiny_config(*VIT, "model.view_size=[32, 32]", "model.dropout=0.0")
    method = initial_method(config, 4).train()
    seq = batch()
    compiled = torch.compile(method, backend="aot_eager")
    torch.testing.assert_close(compiled(seq).loss, method(seq).loss, rtol=1e-4, atol=1e-5)
