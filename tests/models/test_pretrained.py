"""Weights that an encoder begins with, and encoders that are frozen: in files, in methods, in runs."""

from __future__ import annotations

import functools
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import small_backbone
import timm
import torch
import torchvision

from seqjepa.config import ContextSSLConfig, DataConfig, ModelConfig, OptimConfig, RunConfig
from seqjepa.data.sequence import ViewSequence
from seqjepa.methods import METHODS
from seqjepa.models.pretrained import build_encoder, doubts, read_weights_file, weights_note
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.distributed import World
from seqjepa.training.learner import Learner
from shards.errors import ConfigError
from shards.machine.files import sha256_of_file

VIT = ModelConfig(backbone="timm:test_vit", view_size=(32, 32), heads=1)
RESNET = ModelConfig(width=0.0625)


@functools.cache
def weights_of(name: str, seed: int = 5, **options) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return timm.create_model(name, **options).state_dict()


def with_weights(path: Path, model: ModelConfig = VIT, **settings) -> ModelConfig:
    return model.model_copy(update={"pretrained": str(path), **settings})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A classifier of ten classes, as somebody trained it at the same size."""
    safetensors.torch.save_file(weights_of("test_vit", num_classes=10, img_size=32), tmp_path / "vit.safetensors")
    return tmp_path / "vit.safetensors"


def test_the_encoder_has_the_files_weights(file: Path) -> None:
    net, features = build_encoder(with_weights(file))
    theirs = weights_of("test_vit", num_classes=10, img_size=32)
    assert (features, net.training) == (64, False)
    assert all(torch.equal(value, theirs[name]) for name, value in net.state_dict().items())


@torch.no_grad()
def test_positions_and_patches_of_another_size_are_resampled_by_timm(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": weights_of("test_vit", num_classes=0)}, tmp_path / "native.pth"
    )  # at 160 px, patches of 16
    net, _ = build_encoder(with_weights(tmp_path / "native.pth", patch_size=8))
    torch.manual_seed(5)
    native = timm.create_model("test_vit", num_classes=0)
    native.set_input_size(img_size=32, patch_size=8)  # timm's own way
    views = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(views), native.eval()(views), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("nested", ["", "state_dict", "model", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module.", "encoder.", "module.backbone."])
def test_names_of_other_trainers(tmp_path: Path, nested: str, prefix: str) -> None:
    plain = {"conv1.weight": torch.ones(2, 3), "bn1.bias": torch.zeros(2)}
    named = {f"{prefix}{name}": value for name, value in plain.items()}
    if prefix.endswith(("encoder.", "backbone.")):
        named["module.head.weight" if prefix.startswith("module") else "head.weight"] = torch.ones(1)
    torch.save({nested: named, "epoch": 3} if nested else named, tmp_path / "weights.pth")
    found, _ = read_weights_file(tmp_path / "weights.pth")
    assert found.keys() == plain.keys()
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_weights_of_torchvision_without_their_classifier(tmp_path: Path) -> None:
    plain = torchvision.models.resnet18().state_dict()
    torch.save(plain, tmp_path / "resnet18.pth")
    net, _ = build_encoder(with_weights(tmp_path / "resnet18.pth", ModelConfig()))
    assert all(torch.equal(value, plain[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.backbone.", "model.encoder.", "backbone."])
@pytest.mark.parametrize("backbone", ["resnet18", "timm:test_vit"])
def test_what_the_encoder_has_no_place_for_is_left_out_in_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, backbone: str, prefix: str
) -> None:
    vit = backbone != "resnet18"
    plain = weights_of("test_vit", num_classes=0, img_size=32) if vit else build_encoder(RESNET)[0].state_dict()
    heads = {"head.weight": torch.ones(3, 64), "head.bias": torch.ones(3), "classifier.1.weight": torch.ones(2)}
    stored = {f"{prefix}{name}": value for name, value in {**plain, **heads, "fc.weight": torch.ones(2)}.items()}
    torch.save(
        {"state_dict": {**stored, **({"projector.0.weight": torch.ones(1)} if prefix else {})}}, tmp_path / "w.pth"
    )
    net, _ = build_encoder(with_weights(tmp_path / "w.pth", VIT if vit else RESNET))
    assert all(torch.equal(value, plain[name]) for name, value in net.state_dict().items())
    (said,) = (record.getMessage() for record in caplog.records)
    for part in ("head (2)", "classifier (1)", "fc (1)", *(["projector (1)"] if prefix else [])):
        assert part in said
    assert "\n" not in said


def test_missing_weights_and_other_shapes_are_refused_although_there_are_more(tmp_path: Path) -> None:
    plain = {**build_encoder(RESNET)[0].state_dict(), "classifier.weight": torch.ones(1)}
    for name, change in (("layer4.1.bn2.weight", None), ("conv1.weight", torch.zeros(8, 3, 7, 7))):
        torch.save(
            {key: value for key, value in {**plain, name: change}.items() if value is not None}, tmp_path / "w.pth"
        )
        with pytest.raises(ConfigError, match=name) as refused:
            build_encoder(with_weights(tmp_path / "w.pth", RESNET))
        assert "\n" not in str(refused.value)


def test_of_a_run_the_encoder(tmp_path: Path) -> None:
    method = initial_method(RunConfig(model=VIT, seed=9), 4)
    safetensors.torch.save_file(method.state_dict(), tmp_path / "model.safetensors")
    net, _ = build_encoder(with_weights(tmp_path / "model.safetensors"))
    assert all(torch.equal(value, method.encoder.state_dict()[name]) for name, value in net.state_dict().items())


def changed(**tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**weights_of("test_vit", num_classes=0), **tensors}


class Harmful:
    def __reduce__(self):
        return Path("/nowhere").touch, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file; give weights"),
        (b"", "cannot be read as weights"),
        (b"not weights at all, but words", "cannot be read as weights"),
        (pickle.dumps(Harmful()), "cannot be read as weights: it holds other things than plain numbers"),
        ({"epoch": 3}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"cls_token": torch.zeros(1, 1, 64)}, "does not fit timm:test_vit: .*Missing key"),
        (lambda: changed(cls_token=torch.zeros(1, 1, 3)), "does not fit .*size mismatch"),
        (lambda: build_encoder(RESNET)[0].state_dict(), "does not fit timm:test_vit: .*Missing key"),
        (lambda: changed(**{"norm.bias": torch.full((64,), torch.nan)}), "not finite"),
        (lambda: changed(**{"norm.bias": torch.ones(64).long()}), "norm.bias is torch.int64, not"),
        (lambda: changed(**{"norm.bias": torch.ones(64) * 1j}), "norm.bias is torch.complex64"),
    ],
)
def test_files_that_do_not_do_are_refused_in_a_line(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content() if callable(content) else content, path)
    with pytest.raises(ConfigError, match=message) as refused:
        build_encoder(with_weights(path))
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


def test_timms_own_weights_are_for_timm_and_have_to_exist() -> None:
    with pytest.raises(ConfigError, match=r"encoders of timm; set model\.backbone=timm:resnet18"):
        build_encoder(ModelConfig(pretrained="timm"))
    with pytest.raises(ConfigError, match="timm has no weights for 'timm:test_vit_relpos'"):
        build_encoder(ModelConfig(backbone="timm:test_vit_relpos", pretrained="timm"))


def test_downloads_that_fail_say_what_to_do(monkeypatch) -> None:
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(ConfigError, match=r"no route to host.* model\.pretrained=PATH"):
        build_encoder(VIT.model_copy(update={"pretrained": "timm"}))


def test_timms_own_weights_by_its_own_way(monkeypatch) -> None:
    theirs = weights_of("test_vit")  # 1000 classes at 160 px, as on the hub
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *args, **kwargs: dict(theirs))
    config = VIT.model_copy(update={"pretrained": "timm"})
    net, _ = build_encoder(config)
    assert torch.equal(net.blocks[0].attn.qkv.weight, theirs["blocks.0.attn.qkv.weight"])  # type: ignore[index, union-attr]
    note = weights_note(net, config)
    assert note["weights"] == "timm:test_vit"
    assert len(note["sha256_of_tensors"]) == 64
    again = weights_note(build_encoder(config)[0], config)
    with torch.no_grad():
        net.cls_token += 1  # type: ignore[operator]
    assert note == again != weights_note(net, config)


def test_the_note_of_a_file_is_its_checksum(file: Path) -> None:
    config = with_weights(file)
    assert weights_note(build_encoder(config)[0], config) == {"weights": str(file), "sha256": sha256_of_file(file)}
    assert weights_note(build_encoder(VIT)[0], VIT) == {}


def test_targets_begin_with_the_weights_too(file: Path) -> None:
    plain, begun = (initial_method(config_of("seq_jepa", model), 4) for model in (VIT, with_weights(file)))
    encoder, target = begun.encoder.state_dict(), begun.get_submodule("target_encoder").state_dict()
    assert all(torch.equal(encoder[name], target[name]) for name in encoder)
    assert not torch.equal(encoder["pos_embed"], plain.encoder.state_dict()["pos_embed"])
    rest = {name for name in plain.state_dict() if "encoder." not in name}  # heads are of the seed, as without
    assert all(torch.equal(plain.state_dict()[name], begun.state_dict()[name]) for name in rest)


def batch(config: RunConfig, seed: int = 0, size: int = 32) -> ViewSequence:
    g = torch.Generator().manual_seed(seed)
    T = config.data.context + 1
    views = torch.randn(6, T, 3, size, size, generator=g)
    params = torch.zeros(6, T, 7 if config.method == "context_ssl" else 0)
    actions = torch.randn(6, T - 1, 4, generator=g)
    return ViewSequence(views, actions, params, torch.arange(6), [""] * 6)


def config_of(name: str, model: ModelConfig) -> RunConfig:
    views = METHODS[name].views_needed or 2
    small = {"action_dim": 16, "predictor_hidden": 16, "layers": 1, "ff_mult": 1, "heads": 4}
    small |= {} if name in ("seq_jepa", "context_ssl") else {"projector": (16, 16)}
    data = DataConfig(context=views - 1, action="position" if name == "conv_jepa" else "rotation")
    model = model.model_copy(update=small)
    context = ContextSSLConfig(width=16, pairs=4)
    optim = OptimConfig(lr=1e-2, batch_size=6)
    return RunConfig(method=name, data=data, model=model, context_ssl=context, optim=optim)


@pytest.mark.parametrize("name", METHODS)
def test_a_frozen_encoder_stays_as_it_is_in_every_method(name: str) -> None:
    # Batch norm would move its statistics, and drop its frozen gradient, if anything was not as it should be.
    config = config_of(name, ModelConfig(backbone=small_backbone.small.__name__, width=0.0625, freeze=True))
    actions = 2 if name == "conv_jepa" else 4
    learner = Learner(initial_method(config, actions), config, World(), torch.device("cpu"))
    method = learner.method
    before = {key: value.clone() for key, value in method.state_dict().items()}
    seq = batch(config)
    seq = replace(seq, actions=seq.actions[..., :actions])
    z = method.embed(seq.views[:, 0])
    for step in range(2):
        learner.update(seq, step, 1e-2, 0.5)
    after = method.state_dict()
    encoder = {key for key in after if key.startswith("encoder.")}
    assert encoder
    assert all(torch.equal(before[key], after[key]) for key in encoder)
    assert any(not torch.equal(before[key], after[key]) for key in after.keys() - encoder)
    assert not any(key.startswith("target_encoder") for key in after)
    assert torch.equal(method.embed(seq.views[:, 0]), z)
    assert (method.training, method.encoder.training) == (True, False)
    trained = {id(p) for group in learner.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(p) for p in method.encoder.parameters()}


def test_targets_of_a_frozen_encoder_are_its_own_features() -> None:
    method = initial_method(config_of("seq_jepa", ModelConfig(width=0.0625, freeze=True)), 4).train()
    views = torch.randn(4, 3, 32, 32)
    assert torch.equal(method.embed_target(views), method.embed(views))  # type: ignore[operator]


def test_what_is_allowed_and_perhaps_not_meant(file: Path) -> None:
    def said(model: ModelConfig, mean: float = 0.5, **optim) -> list[str]:
        config = config_of("seq_jepa", model).model_copy(update={"optim": OptimConfig(**optim)})
        return list(doubts(config, (mean,) * 3, (0.5,) * 3, initial_method(config, 4)))

    assert said(VIT) == []
    own = with_weights(file)
    assert said(own.model_copy(update={"freeze": True}), mean=0.5) == []
    assert "data.normalisation=encoder takes its own" in said(own, mean=0.45)[0]
    assert "stays at random weights" in said(VIT.model_copy(update={"freeze": True}))[0]
    assert "batch norm in action_embedding, predictor sees" in said(VIT, accumulate=2)[0]
    assert "batch norm in encoder, action_embedding, predictor sees" in said(RESNET, accumulate=2)[0]
