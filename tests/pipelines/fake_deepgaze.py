"""A stand-in for `deepgaze_pytorch`: the contract of its DeepGazeIIE with one weight, and the files that go with it."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipelines.saliency import deepgaze

BIAS_SIDE = 64


class FakeEfficientNet(nn.Module):
    @classmethod
    def from_pretrained(cls, name: str) -> nn.Module:
        raise AssertionError(f"download of {name}")

    @classmethod
    def from_name(cls, name: str) -> nn.Module:
        return nn.Linear(1, 1)


class FakeDeepGaze(nn.Module):
    """log density = log softmax of gain · mean over RGB / 255 + centre bias."""

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        assert not pretrained, "would download"
        features = (
            sys.modules["deepgaze_pytorch.features.efficientnet"],
            sys.modules["deepgaze_pytorch.features.shapenet"],
        )
        features[0].EfficientNet.from_pretrained("efficientnet-b5")
        features[1].load_model("resnet50_trained_on_SIN")
        torch.hub.load("pytorch/vision:v0.6.0", "resnet18", pretrained=True)
        self.gain = nn.Parameter(torch.zeros(()))
        self.register_buffer("scale", torch.tensor(255.0), persistent=False)
        self.seen: Tensor | None = None

    def forward(self, images: Tensor, centre_bias: Tensor) -> Tensor:
        self.seen = images
        assert centre_bias.shape[1:] == images.shape[2:]
        log = self.gain * images.mean(1) / self.scale + centre_bias
        return (log - log.logsumexp((1, 2), keepdim=True))[:, None]


def _no_download(*args: object, **options: object) -> nn.Module:
    raise AssertionError("download")


def install(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Puts the stand-in where `import deepgaze_pytorch` finds it."""
    package = ModuleType("deepgaze_pytorch")
    shapenet, efficientnet = (ModuleType(f"deepgaze_pytorch.features.{name}") for name in ("shapenet", "efficientnet"))
    package.DeepGazeIIE = FakeDeepGaze  # type: ignore[attr-defined]
    shapenet.load_model = _no_download  # type: ignore[attr-defined]
    efficientnet.EfficientNet = FakeEfficientNet  # type: ignore[attr-defined]
    for module in (package, ModuleType("deepgaze_pytorch.features"), shapenet, efficientnet):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(torch.hub, "load", _no_download)
    return package


def write_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor] | None = None
) -> dict[str, Path]:
    """Weights with gain 2 (or `state`) and a centre bias of 64 × 64, declared to be the released ones."""
    weights, bias = folder / "deepgaze2e.pth", folder / "centerbias_mit1003.npy"
    torch.save({"gain": torch.tensor(2.0)} if state is None else state, weights)
    np.save(bias, np.random.default_rng(0).normal(-8, 1, (BIAS_SIDE, BIAS_SIDE)))
    for name, path in {"DEEPGAZE_WEIGHTS": weights, "CENTRE_BIAS": bias}.items():
        data = path.read_bytes()
        released = replace(getattr(deepgaze, name), size=len(data), sha256=hashlib.sha256(data).hexdigest())
        monkeypatch.setattr(deepgaze, name, released)
    return {"weights": weights, "centre_bias": bias}
