"""Encoders of timm: the same networks as timm's own, at any size of views; what is refused, and in which words."""

from __future__ import annotations

import copy
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from seqjepa.config import DataConfig, ModelConfig, RunConfig
from seqjepa.methods import build_method
from seqjepa.methods.flops import encoder_macs
from seqjepa.models import backbone
from seqjepa.models.backbone import build_backbone
from seqjepa.models.batch_norm import GlobalBatchNorm, with_batch_statistics
from seqjepa.models.timm_encoder import pixel_constants
from seqjepa.recipes import load_recipe
from seqjepa.training.checkpoint import initial_method
from seqjepa.training.data import with_view_size
from seqjepa.training.recipe_choice import Choice
from shards.errors import ConfigError, UsageError


def encoder(name: str, **settings) -> tuple[nn.Module, int]:
    torch.manual_seed(0)
    net, features = build_backbone(ModelConfig(backbone=f"timm:{name}", **settings))
    return net.eval(), features


@pytest.mark.parametrize(
    ("name", "settings", "options"),
    [
        ("test_vit", {"view_size": (48, 64)}, {"img_size": (48, 64)}),
        ("test_vit", {"view_size": (48, 48), "patch_size": 8, "pool": "avg"}, {"img_size": 48, "patch_size": 8}),
        ("test_convnext", {"view_size": (48, 48)}, {}),
    ],
)
@torch.no_grad()
def test_it_is_timms_own_model_at_the_views_size(name: str, settings: dict, options: dict) -> None:
    net, features = encoder(name, **settings)
    torch.manual_seed(0)
    theirs = timm.create_model(name, num_classes=0, **options).eval()
    ours, wanted = net.state_dict(), theirs.state_dict()
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(ours[key], value) for key, value in wanted.items())
    views = torch.randn(2, 3, *settings["view_size"])
    expected = theirs(views)
    if settings.get("pool") == "avg":  # by hand: the mean of the patches' tokens, after the last norm
        expected = theirs.forward_features(views)[:, theirs.num_prefix_tokens :].mean(1)
    torch.testing.assert_close(net(views), expected, rtol=1e-5, atol=1e-5)
    assert expected.shape == (2, features)


@torch.no_grad()
def test_the_class_token_by_name() -> None:
    views = torch.randn(2, 3, 48, 48)
    token, average = (encoder("test_vit", view_size=(48, 48), pool=pool)[0] for pool in ("token", "avg"))
    torch.testing.assert_close(token(views), token.forward_features(views)[:, 0])
    assert not torch.allclose(token(views), average(views), atol=1e-2)


@torch.no_grad()
def test_views_of_other_sizes() -> None:
    views = torch.randn(2, 3, 64, 64)
    vit, _ = encoder("test_vit", view_size=(48, 48))
    torch.manual_seed(0)
    at_64 = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    at_64.load_state_dict({**vit.state_dict(), "pos_embed": at_64.pos_embed})
    assert not torch.allclose(vit(views), at_64(views))
    from timm.layers import resample_abs_pos_embed

    at_64.pos_embed.data = resample_abs_pos_embed(vit.pos_embed, (4, 4), num_prefix_tokens=vit.num_prefix_tokens)
    torch.testing.assert_close(vit(views), at_64(views))  # positions resampled
    odd = torch.randn(2, 3, 50, 70)
    for net in (vit, encoder("mixer_s32_224", view_size=(64, 64))[0]):  # no multiple of its patches; no other size
        (hook,) = net._forward_pre_hooks.values()
        resized = F.interpolate(odd, hook.size, mode="bilinear", antialias=True)
        assert torch.equal(net(odd), net(resized))
    large, _ = encoder("test_vit", view_size=(48, 48), input_size=96)  # asked for
    assert torch.equal(large(views), large(F.interpolate(views, (96, 96), mode="bilinear", antialias=True)))
    assert large.pos_embed.shape[1] - large.num_prefix_tokens == 36
    copied = copy.deepcopy(large)  # as a moving average is made
    assert torch.equal(copied(views), large(views))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "timm:vit_tiny_patch16_22"}, r"no model 'vit_tiny_patch16_22' \(did you mean 'vit_tiny"),
        ({"backbone": "timm:hf-hub:a/b"}, "no model 'hf-hub:a/b'"),
        ({"backbone": "timm:vit_tiny_patch16_224.augreg"}, r"no weights 'augreg' of .* \(did you mean 'augreg_in21k'"),
        ({"width": 0.5}, "model.width and model.stem are for torchvision's ResNets"),
        ({"stem": "cifar"}, "model.width and model.stem are for torchvision's ResNets"),
        ({"pool": "median"}, "test_vit with model.pool = 'median' cannot be built: Only avg"),
        ({"backbone": "timm:test_resnet", "patch_size": 8}, "model.patch_size = 8 cannot be built: .*patch_size"),
        ({"backbone": "timm:vit_small_patch14_dinov2", "view_size": (48, 48)}, "patches are of 14×14; .*input_size=42"),
        ({"backbone": "timm:coatnet_nano_rw_224", "view_size": (48, 48)}, "set model.input_size, 224 for instance"),
        ({"backbone": "resnet18", "pool": "avg"}, "only timm's .* model.pool; .* model.backbone=timm:resnet18"),
        ({"backbone": "vit_tiny_patch16_224"}, "resnet18.* or timm:NAME, any encoder of timm"),
    ],
)
def test_what_does_not_exist_or_fit_is_refused_in_a_line(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        build_backbone(ModelConfig(**{"backbone": "timm:test_vit", **settings}))
    assert "\n" not in str(refused.value)


def test_without_timm_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm, which is not installed: pip install 'seqjepa\[timm\]'"):
        build_backbone(ModelConfig(backbone="timm:test_vit"))
    assert build_backbone(ModelConfig(width=0.125))[1] == 64


def test_backbones_of_other_packages(monkeypatch) -> None:
    def plain(config: ModelConfig) -> tuple[nn.Module, int]:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3

    monkeypatch.setattr(backbone, "plugin_names", lambda group: ("mean",) if group == "seqjepa.backbones" else ())
    monkeypatch.setattr(backbone, "load_plugin", lambda group, name: {"mean": plain}[name])
    net, features = build_backbone(ModelConfig(backbone="mean"))
    assert (net(torch.ones(2, 3, 8, 8)).shape[1], features) == (3, 3)
    with pytest.raises(ConfigError, match="allowed are mean, resnet101"):
        build_backbone(ModelConfig(backbone="median"))


def test_macs_of_a_vit_by_hand() -> None:
    tokens, width = 197, 192
    block = 3 * tokens * width**2 + 2 * tokens**2 * width + tokens * width**2 + 8 * tokens * width**2
    expected = 196 * (16 * 16 * 3) * width + 12 * block
    config = RunConfig(model=ModelConfig(backbone="timm:vit_tiny_patch16_224", view_size=(48, 48)))
    with torch.device("meta"):
        method = build_method(config, 4)
    assert encoder_macs(method, (224, 224)) == pytest.approx(expected, rel=1e-6)
    assert encoder_macs(method, (48, 48)) < expected / 15


def test_the_shards_size_goes_into_the_configuration() -> None:
    config = RunConfig(model=ModelConfig(backbone="timm:test_vit"), data=DataConfig(action="position"))
    assert with_view_size(config, 48, 64).model.view_size == (48, 64)
    patches = config.model_copy(update={"data": DataConfig(patch=32, action="position")})
    assert with_view_size(patches, 48, 64).model.view_size == (32, 32)
    resnet = RunConfig()
    assert with_view_size(resnet, 48, 64) is resnet
    given = with_view_size(config, 96, 96)
    assert with_view_size(given, 48, 64) is given


def test_recipes_of_resnets_take_encoders_of_timm() -> None:
    choose = "model.backbone=timm:test_vit"
    assert load_recipe("synth-tiny").model.width == 0.25
    assert load_recipe("synth-tiny", [choose]).model.width == 1.0
    assert load_recipe("synth-tiny", [choose, "model.width=0.5"]).model.width == 0.5  # refused when it is built
    assert load_recipe("synth-tiny", ["model.stem=cifar", choose]).model.stem == "standard"  # in a grid's order
    assert load_recipe("stl-pls-M4", ['model.backbone="timm:test_vit"']).model.stem == "standard"
    choice = Choice("views-tiny", ("model.stem=cifar", "data.order=window"), "small views")
    assert choice.without([choose]).settings == ("data.order=window",)
    assert choice.without(["model.backbone=resnet34"]).settings == choice.settings


def test_pixels_as_the_weights_had_them() -> None:
    siglip = ModelConfig(backbone="timm:vit_base_patch16_siglip_224")
    assert pixel_constants(siglip) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    dino = ModelConfig(backbone="timm:vit_small_patch14_dinov2.lvd142m")
    assert pixel_constants(dino) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(ConfigError, match="constants of a timm encoder"):
        pixel_constants(ModelConfig())


def test_the_initial_method_is_a_function_of_the_seed() -> None:
    config = RunConfig(model=ModelConfig(backbone="timm:test_vit", view_size=(32, 32), heads=1))
    first, again = (initial_method(config, 4).state_dict() for _ in range(2))
    assert all(torch.equal(first[key], value) for key, value in again.items())
    other = initial_method(config.model_copy(update={"seed": 7}), 4).state_dict()
    assert not torch.equal(first["predictor.0.weight"], other["predictor.0.weight"])


def test_global_batch_norm_keeps_what_timm_does_after_a_norm() -> None:
    torch.manual_seed(0)
    norm = BatchNormAct2d(4, act_layer=nn.SiLU)
    nn.init.normal_(norm.weight)
    norm.running_mean.normal_()
    images = torch.randn(6, 4, 5, 5)
    ours = GlobalBatchNorm(copy.deepcopy(norm)).eval()
    assert norm.state_dict().keys() == ours.state_dict().keys()
    assert torch.equal(ours(images), norm.eval()(images))


def test_which_parts_have_batch_statistics_is_asked_of_the_network() -> None:
    def parts(**settings) -> dict[str, int]:
        model = ModelConfig(**{"heads": 1, "view_size": (32, 32), **settings})
        return with_batch_statistics(build_method(RunConfig(model=model), 4).train())

    heads = {"action_embedding": 1, "predictor": 1}
    assert parts(backbone="timm:test_vit") == heads
    assert parts(width=0.125, view_size=()) == {"encoder": 20, "target_encoder": 20, **heads}
    assert parts(width=0.125, view_size=(), freeze=True) == heads
