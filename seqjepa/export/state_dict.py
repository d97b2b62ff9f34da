"""The encoder's weights under torchvision's or timm's own names, as a .safetensors file, and their network again.

A ResNet at width 1 with the standard stem loads into `torchvision.models.resnet18()` without `fc`. Of other widths and
stems the file has the same names and other shapes; `network_of` builds the network that takes them. An encoder of timm
loads into `timm.create_model` with the arguments that the file tells (docs/export.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import safe_open
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import ResNet

from seqjepa.config import ModelConfig
from seqjepa.models.timm_encoder import Resize, is_timm, timm_module
from shards.errors import UsageError

SAME = ("kernel_size", "stride", "padding", "dilation", "groups")


def state_bytes(encoder: nn.Module, config: ModelConfig, about: Mapping[str, str]) -> bytes:
    """A .safetensors file; `about` is its metadata. UsageError: the encoder is nobody else's, so no names are known."""
    if not isinstance(encoder, ResNet) and not is_timm(config):
        raise UsageError(
            f"a state dict needs a ResNet of torchvision or an encoder of timm, and model.backbone is "
            f"{config.backbone!r}; use --to pt2 or onnx"
        )
    tensors = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    return _in_order(safetensors.torch.save(tensors, dict(about)))


def _in_order(data: bytes) -> bytes:
    """The same file with its metadata sorted, which safetensors writes in an order of chance."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + data[start:]


def open_state(path: Path) -> nn.Module:
    """The network of a .safetensors file in eval mode, built from the file alone: views [B, 3, H, W] → z [B, D]."""
    with safe_open(path, "pt") as file:
        about = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if "timm" in about:
        return _of_timm(about, state)
    return network_of(about["backbone"], about["stem"], state)


def _of_timm(about: Mapping[str, str], state: Mapping[str, Tensor]) -> nn.Module:
    net = timm_module().create_model(**json.loads(about["timm"]))
    if about["pool"]:
        net.reset_classifier(0, about["pool"])
    net.load_state_dict(state)
    if side := json.loads(about["input_size"]):
        net.register_forward_pre_hook(Resize((side, side)))
    return net.eval()


def network_of(backbone: str, stem: str, state: Mapping[str, Tensor]) -> nn.Module:
    """torchvision's ResNet with the channels of `state`, filled with it. stem: "standard" or "cifar"."""
    net = models.get_model(backbone, weights=None)
    net.fc = nn.Identity()
    if stem == "cifar":
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    for name, module in list(net.named_modules()):
        owner = net.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d):
            outputs, inputs = state[f"{name}.weight"].shape[:2]
            same: dict[str, Any] = {key: getattr(module, key) for key in SAME}
            setattr(owner, name.rpartition(".")[2], nn.Conv2d(inputs * module.groups, outputs, bias=False, **same))
        elif isinstance(module, nn.BatchNorm2d):
            setattr(owner, name.rpartition(".")[2], nn.BatchNorm2d(len(state[f"{name}.weight"])))
    net.load_state_dict(state)
    return net.eval()
