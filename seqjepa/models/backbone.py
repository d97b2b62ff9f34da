"""Image encoders: any torchvision ResNet, at any width, standard or CIFAR stem (paper §A.2); timm's; one of BACKBONES.

Weights that an encoder begins with, other than random, are read in pretrained.py.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seqjepa.config import ModelConfig
from seqjepa.models.timm_encoder import PREFIX, build_timm, is_timm
from seqjepa.plugins import load_plugin, plugin_names
from shards.errors import ConfigError

if TYPE_CHECKING:  # it brings torch's compiler, a third of the time in which a command starts that builds no network
    from torchvision.models.resnet import ResNet

Builder = Callable[[ModelConfig], tuple[nn.Module, int]]
BACKBONES: dict[str, Builder] = {}
"""Other encoders, by the name that `model.backbone` gives: config → module [B, 3, H, W] → [B, D], and D.

Packages add theirs by entry points in the group "seqjepa.backbones" (plugins.py).
"""
PLUGINS = "seqjepa.backbones"
OF_TIMM = ("pool", "patch_size", "input_size")
"""Keys of ModelConfig."""


def build_backbone(config: ModelConfig) -> tuple[nn.Module, int]:
    """An encoder [B, 3, H, W] → [B, D] at random weights, and its feature width D (512 for resnet18 at width 1).

    With model.freeze it takes no gradient; that it stays in eval mode is up to Method.train. Of torchvision's ResNets
    the last norm of every residual branch begins at zero, and features are averages of a rectified map, so never
    negative. ConfigError: unknown backbone, settings that it has not, width that leaves no whole channels.
    """
    net, features = _builder(config)(config)
    return (net.requires_grad_(False) if config.freeze else net), features


def _builder(config: ModelConfig) -> Builder:
    if is_timm(config):
        return build_timm
    if config.backbone in BACKBONES:
        return BACKBONES[config.backbone]
    return load_plugin(PLUGINS, config.backbone) if config.backbone in plugin_names(PLUGINS) else _build_resnet


def _build_resnet(config: ModelConfig) -> tuple[nn.Module, int]:
    _check_name(config.backbone)
    net = (_whole if config.width == 1.0 else _undrawn)(config.backbone)
    if given := [f"model.{key}" for key in OF_TIMM if getattr(config, key)]:
        raise ConfigError(
            f"only timm's encoders have {' and '.join(given)}; leave that out for {config.backbone}, or set "
            f"model.backbone={PREFIX}{config.backbone}"
        )
    features = _scaled(net.fc.in_features, config)
    if config.width != 1.0:
        _rescale_channels(net, config)
    if config.stem == "cifar":
        # 3×3 stride 1 without pooling, with PyTorch's initialisation (hafezgh/seq-jepa@73e0550 models.py:211).
        net.conv1 = nn.Conv2d(3, net.conv1.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
        net.maxpool = nn.Identity()  # type: ignore[assignment]
    else:
        net.conv1 = StemConv2d.of(net.conv1)
    net.fc = nn.Identity()  # type: ignore[assignment]
    return net, features


def is_resnet(net: nn.Module) -> TypeGuard[ResNet]:
    """Whether it is torchvision's, at any width and with any stem, and nobody's subclass."""
    from torchvision.models.resnet import ResNet

    return type(net) is ResNet


def _check_name(name: str) -> None:
    from torchvision import models
    from torchvision.models.resnet import ResNet

    names = models.list_models(module=models)
    choices = [known for known in names if models.get_model_builder(known).__module__ == ResNet.__module__]
    if name not in choices:
        others = (*BACKBONES, *plugin_names(PLUGINS))
        raise ConfigError(
            f"model.backbone is {name!r}; allowed are {', '.join(sorted([*choices, *others]))}, or {PREFIX}NAME, any "
            "encoder of timm"
        )


def _whole(name: str) -> ResNet:
    from torchvision import models

    return cast("ResNet", models.get_model(name, weights=None, zero_init_residual=True))


def _undrawn(name: str) -> ResNet:
    """The network without numbers; the generator as drawing them would leave it, which the weights of a seed follow."""
    if torch.get_default_device().type == "cpu":
        torch.set_rng_state(_state_after_drawing(name, torch.get_rng_state().numpy().tobytes()))
    return _copied(_without_numbers(name))


def _copied(module: nn.Module) -> Any:
    """With modules of its own, but for parameters, all of which are replaced: in a tenth of the time of deepcopy."""
    copied = copy.copy(module)
    vars(copied).update({name: value.copy() for name, value in vars(module).items() if isinstance(value, dict | set)})
    copied._modules.update({name: _copied(child) for name, child in module._modules.items() if child is not None})
    return copied


@lru_cache(maxsize=8)
def _without_numbers(name: str) -> ResNet:
    with torch.device("meta"):
        return _whole(name)


@lru_cache(maxsize=64)
def _state_after_drawing(name: str, before: bytes) -> Tensor:
    """Of the generator, which is in the state `before`. Remembered, as 22 million draws take a tenth of a second."""
    _whole(name)
    return torch.get_rng_state()


def _rescale_channels(net: ResNet, config: ModelConfig) -> None:
    """Multiply every channel count by `width`.

    torchvision has no width for basic blocks. Equal counts stay equal under rounding, so replacing each convolution
    and norm by a scaled one keeps every shape consistent, in any ResNet.
    """
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                setattr(parent, name, _scaled_conv(child, config))
            elif isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.BatchNorm2d(_scaled(child.num_features, config)))
    fill_last_norms(net, 0.0)  # as zero_init_residual did before the norms were replaced


def _scaled_conv(conv: nn.Conv2d, config: ModelConfig) -> nn.Conv2d:
    """A convolution like `conv` with scaled channels and torchvision's initialisation; the image keeps its three."""
    inputs = 3 if conv.in_channels == 3 else _scaled(conv.in_channels, config)
    outputs = _scaled(conv.out_channels, config)
    if inputs % conv.groups or outputs % conv.groups:
        raise ConfigError(
            f"model.width {config.width} gives {config.backbone} {outputs} channels, "
            f"which its {conv.groups} groups do not divide; choose another width"
        )
    # Conv2d types these as tuples of any length.
    same = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation", "groups")}
    narrow = conv.kernel_size == (1, 1) and conv.stride != (1, 1) and inputs < NarrowConv2d.SAFE_CHANNELS
    scaled = (NarrowConv2d if narrow else nn.Conv2d)(inputs, outputs, bias=False, **same)
    nn.init.kaiming_normal_(scaled.weight, mode="fan_out", nonlinearity="relu")
    return scaled


class NarrowConv2d(nn.Conv2d):
    """A strided 1×1 convolution of few channels, which on the CPU runs in NCHW, whatever the layout of its input.

    oneDNN's AVX-512 kernel for its backward pass in channels-last writes beyond its buffer where there are fewer than
    16 input channels (torch 2.14: the process dies, on 64×64 and more of them nearly always). Values and gradients are
    the same bits in both layouts.
    """

    SAFE_CHANNELS = 16

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] → [B, D, H', W'], in the layout of the input."""
        if input.device.type != "cpu":
            return super().forward(input)
        layout = torch.contiguous_format if input.is_contiguous() else torch.channels_last
        weight = self.weight.clone(memory_format=torch.contiguous_format)  # its strides alone ask for channels-last
        return self._conv_forward(input.contiguous(), weight, self.bias).contiguous(memory_format=layout)


class StemConv2d(nn.Conv2d):
    """The first convolution, of an image's three channels, which a step compiled for a GPU pads with zeros to four.

    NVIDIA asks for four where the stride is two ("Channels In And Out" of its guide to convolutional layers,
    https://docs.nvidia.com/deeplearning/performance/dl-performance-convolutional/). The compiler writes normalised
    pixels and casts weights in any case, so padding takes no kernel (docs/training.md). Parameters stay as they are.
    """

    @classmethod
    def of(cls, conv: nn.Conv2d) -> StemConv2d:
        """With the weights of `conv`, which has no bias; nothing is drawn."""
        sizes = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding")}
        made = cls(conv.in_channels, conv.out_channels, bias=False, device="meta", **sizes)
        made.weight = conv.weight
        return made

    def forward(self, input: Tensor) -> Tensor:
        """[B, 3, H, W] → [B, D, H', W']."""
        compiled = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
        return self.padded(input) if input.is_cuda and compiled else super().forward(input)

    def padded(self, input: Tensor) -> Tensor:
        """The same by four channels, of which one is zero in both factors."""
        one = (0, 0, 0, 0, 0, 1)
        return self._conv_forward(F.pad(input, one), F.pad(self.weight, one), self.bias)


def fill_last_norms(net: nn.Module, weight: float) -> None:
    """Weights of the last norm of each residual branch of a torchvision ResNet; at 0 the branch starts at zero."""
    from torchvision.models.resnet import BasicBlock, Bottleneck

    for module in net.modules():
        if isinstance(module, Bottleneck | BasicBlock):
            last = module.bn3 if isinstance(module, Bottleneck) else module.bn2
            nn.init.constant_(cast(nn.BatchNorm2d, last).weight, weight)


def _scaled(channels: int, config: ModelConfig) -> int:
    scaled = round(channels * config.width)
    if scaled < 1:
        raise ConfigError(f"model.width {config.width} leaves no channels of {channels}; use at least {1 / 64}")
    return scaled


PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))
"""Which norm follows which convolution in torchvision's ResNets, their blocks and shortcuts."""


def fold_batch_norms(net: nn.Module) -> nn.Module:
    """A copy of a torchvision ResNet in eval mode, equal to within rounding; any other network itself.

    Its convolutions do their batch norms' work: a ResNet that is only read is a quarter faster so on a CPU.
    """
    if not is_resnet(net):
        return net
    folded = copy.deepcopy(net).eval()
    for parent in list(folded.modules()):
        for conv, norm in PAIRS:
            first, second = getattr(parent, conv, None), getattr(parent, norm, None)
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                setattr(parent, conv, fuse_conv_bn_eval(first, second))
                setattr(parent, norm, nn.Identity())
    return folded.requires_grad_(False).to(memory_format=torch.channels_last)
