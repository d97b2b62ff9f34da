from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from seqjepa.config import ModelConfig
from seqjepa.models.backbone import NarrowConv2d, StemConv2d, build_backbone
from shards.errors import ConfigError


def test_resnet18_is_torchvisions_own() -> None:
    torch.manual_seed(0)
    net, features = build_backbone(ModelConfig())
    torch.manual_seed(0)
    reference = torchvision.models.resnet18(weights=None, zero_init_residual=True)
    reference.fc = nn.Identity()
    assert features == 512
    assert sum(p.numel() for p in net.parameters()) == 11_176_512  # torchvision's, without fc
    for (name, ours), (wanted, theirs) in zip(net.named_parameters(), reference.named_parameters(), strict=True):
        assert name == wanted
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [("resnet18", 0.25, 128), ("resnet34", 0.3, 154), ("resnet50", 0.5, 1024), ("wide_resnet50_2", 0.125, 256),
     ("resnext50_32x4d", 0.5, 1024), ("resnet18", 2.0, 1024)],
)  # fmt: skip
def test_width_scales_every_channel_count(name: str, width: float, expected: int) -> None:
    with torch.device("meta"):
        net, features = build_backbone(ModelConfig(backbone=name, width=width))
        whole, _ = build_backbone(ModelConfig(backbone=name))
        assert net(torch.empty(2, 3, 32, 32)).shape == (2, expected)
    assert features == expected
    assert net.state_dict().keys() == whole.state_dict().keys()
    for ours, theirs in zip(net.modules(), whole.modules(), strict=True):
        if isinstance(theirs, nn.BatchNorm2d):
            assert ours.num_features == round(theirs.num_features * width)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_scaled_net_starts_like_torchvisions(name: str) -> None:
    net, _ = build_backbone(ModelConfig(backbone=name, width=0.5))
    last = {"resnet18": "bn2", "resnet50": "bn3"}[name]
    for path, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == (0.0 if path.endswith(last) else 1.0)).all()
    conv = net.get_submodule("layer3.0.conv1")
    fan_out = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
    assert conv.weight.std().item() == pytest.approx((2.0 / fan_out) ** 0.5, rel=0.05)


def test_the_weights_of_a_scaled_net_follow_torchvisions_draws() -> None:
    torch.manual_seed(9)
    torchvision.models.resnet18(weights=None, zero_init_residual=True)
    stem = nn.Conv2d(3, 8, 7, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    after = []
    for _ in range(2):  # the second time, what the generator is left in is remembered
        torch.manual_seed(9)
        net, _ = build_backbone(ModelConfig(width=0.125))
        assert torch.equal(net.conv1.weight, stem.weight)
        after.append(torch.randn(4))
    assert torch.equal(*after)
    torch.manual_seed(9)
    with torch.device("meta"):
        build_backbone(ModelConfig(width=0.125))
    assert torch.equal(torch.get_rng_state(), torch.manual_seed(9).get_state())


@pytest.mark.parametrize("width", [1.0, 0.5])
def test_cifar_stem_keeps_the_resolution(width: float) -> None:
    net, _ = build_backbone(ModelConfig(stem="cifar", width=width))
    assert net.conv1.weight.shape == (round(64 * width), 3, 3, 3)
    assert net.maxpool(net.conv1(torch.zeros(1, 3, 32, 32))).shape[-2:] == (32, 32)
    if width == 1.0:
        assert sum(p.numel() for p in net.parameters()) == 11_168_832  # torchvision's, without fc


def test_networks_have_modules_hooks_and_weights_of_their_own() -> None:
    one, two = (build_backbone(ModelConfig(width=0.125))[0] for _ in range(2))
    one.get_submodule("layer1.0").register_forward_hook(lambda *_: None)
    assert not two.get_submodule("layer1.0")._forward_hooks
    parts = [{id(part) for part in (*net.modules(), *net.parameters(), *net.buffers())} for net in (one, two)]
    assert not parts[0] & parts[1]


def test_features_are_never_negative() -> None:
    net, _ = build_backbone(ModelConfig(width=0.25))
    assert net(torch.randn(4, 3, 32, 32)).min() >= 0


def test_bad_backbones_say_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"'vit_b_16'; allowed are resnet101, .*wide_resnet50_2"):
        build_backbone(ModelConfig(backbone="vit_b_16"))
    with pytest.raises(ConfigError, match="leaves no channels"):
        build_backbone(ModelConfig(width=0.001))
    with pytest.raises(ConfigError, match="32 groups"):
        build_backbone(ModelConfig(backbone="resnext50_32x4d", width=0.3))


@pytest.mark.parametrize("size", [33, 96])
@pytest.mark.parametrize("channels", [4, 8, 12])
def test_narrow_strided_convolutions_are_those_of_torch_in_nchw(channels: int, size: int) -> None:
    """In channels-last, torch's own writes beyond its buffer on AVX-512 and ends the process."""
    torch.manual_seed(0)
    narrow = NarrowConv2d(channels, 2 * channels, 1, stride=2, bias=False).to(memory_format=torch.channels_last)
    plain = nn.Conv2d(channels, 2 * channels, 1, stride=2, bias=False)
    plain.load_state_dict(narrow.state_dict())
    x = torch.randn(8, channels, size, size)
    ours, theirs = x.to(memory_format=torch.channels_last).requires_grad_(), x.clone().requires_grad_()
    for conv, images in ((narrow, ours), (plain, theirs)):
        conv(images).sin().sum().backward()
    assert narrow(ours).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(narrow(ours), plain(theirs))
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.equal(ours.grad, theirs.grad)
    assert torch.equal(narrow.weight.grad, plain.weight.grad)
    assert torch.allclose(
        narrow(ours).double(),
        torch.einsum("dc,bchw->bdhw", plain.weight[:, :, 0, 0].double(), x[:, :, ::2, ::2].double()),
        atol=1e-5,
    )


def test_every_strided_convolution_of_few_channels_is_a_narrow_one() -> None:
    for name, width in (("resnet18", 0.125), ("resnet50", 1 / 32), ("resnet18", 0.25), ("resnet18", 1.0)):
        with torch.device("meta"):
            net, _ = build_backbone(ModelConfig(backbone=name, width=width))
        convs = [
            m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.stride == (2, 2)
        ]
        assert convs
        assert all(isinstance(m, NarrowConv2d) == (m.in_channels < 16) for m in convs)


def test_a_stem_that_is_padded_is_the_stem() -> None:
    """Its weights and their gradient have three channels; on a CPU, or uncompiled, nothing is padded."""
    stem = build_backbone(ModelConfig(width=0.25))[0].double().conv1
    assert isinstance(stem, StemConv2d)
    views = torch.randn(2, 3, 16, 16, dtype=torch.float64).to(memory_format=torch.channels_last)
    maps, slopes = [], []
    for function in (stem, stem.padded):
        maps.append(function(views))
        maps[-1].square().sum().backward()
        slopes.append(stem.weight.grad)
        stem.zero_grad(set_to_none=True)
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-12, atol=1e-12)
    assert stem.weight.shape == (16, 3, 7, 7)
