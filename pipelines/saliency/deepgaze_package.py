"""The user's own installation of `deepgaze_pytorch`: imported when needed, built without downloads, loaded strictly."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from shards.errors import FormatError, UsageError, reason_of

COMMIT = (
    "874f12e1ee519860f49860638cf7f6375956d45a"  # the last commit whose declared dependencies are enough to import it
)
INSTALL = f'pip install "deepgaze_pytorch @ git+https://github.com/matthias-k/DeepGaze@{COMMIT}"'


def import_package() -> ModuleType:
    """`deepgaze_pytorch`. UsageError, each with its own text: not installed, a wrong commit, any other failure."""
    try:
        package = importlib.import_module("deepgaze_pytorch")
    except ModuleNotFoundError as error:
        if error.name == "deepgaze_pytorch":
            raise UsageError(f"DeepGaze IIE needs the package deepgaze_pytorch, install it: {INSTALL}") from error
        raise _import_failed(error) from error
    except Exception as error:
        raise _import_failed(error) from error
    if not hasattr(package, "DeepGazeIIE"):
        raise UsageError(f"{package.__name__} is installed but has no DeepGazeIIE; install this commit: {INSTALL}")
    return package


def _import_failed(error: Exception) -> UsageError:
    if isinstance(error, ImportError) and any(name in str(error).lower() for name in ("clip", "einops")):
        return UsageError(
            "deepgaze_pytorch is installed at a commit that cannot be imported without further packages "
            f"({error}); install this commit instead: {INSTALL}"
        )
    return UsageError(
        f"deepgaze_pytorch is installed but cannot be imported ({type(error).__name__}: {error}); "
        f"install it again with its dependencies: {INSTALL}"
    )


def package_version(package: ModuleType) -> dict[str, str]:
    """What provenance notes: the version, and the commit where the installer wrote one down (PEP 610)."""
    try:
        installed = importlib.metadata.distribution(package.__name__)
    except importlib.metadata.PackageNotFoundError:
        return {"package": f"{package.__name__} (version unknown)"}
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    commit = origin.get("vcs_info", {}).get("commit_id", "")
    return {"package": f"{package.__name__} {installed.version}"} | ({"package_commit": commit} if commit else {})


def load_model(package: ModuleType, weights: Path) -> nn.Module:
    """The package's DeepGaze IIE in eval mode on the CPU with all 5,461 tensors of `weights`, backbones included.

    FormatError if the file is not a state dict of this model, tensor by tensor.
    """
    model = build_untrained(package)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state, strict=True)
    except Exception as error:
        reason = reason_of(error)[:300]
        raise FormatError(f"{weights} does not fit {package.__name__}'s DeepGazeIIE: {reason}") from error
    return model


def build_untrained(package: ModuleType) -> nn.Module:
    """The model with random weights, in eval mode, no gradients. Nothing is downloaded: the file has the backbones."""
    with _backbones_without_downloads(package.__name__):
        model = package.DeepGazeIIE(pretrained=False)
    return model.eval().requires_grad_(False)


@contextmanager
def _backbones_without_downloads(package: str) -> Iterator[None]:
    """While open, the three ways in which the package fetches trained backbones return random ones instead."""
    shapenet = importlib.import_module(f"{package}.features.shapenet")
    efficientnet = importlib.import_module(f"{package}.features.efficientnet").EfficientNet

    def resnet(name: str) -> nn.Module:
        return nn.Sequential(OrderedDict(module=_torchvision("resnet50")))

    with (
        _replaced(torch.hub, "load", lambda repository, name, **options: _torchvision(name)),
        _replaced(shapenet, "load_model", resnet),
        _replaced(efficientnet, "from_pretrained", lambda name, **options: efficientnet.from_name(name)),
    ):
        yield


def _torchvision(name: str) -> nn.Module:
    import torchvision

    return torchvision.models.get_model(name, weights=None)


@contextmanager
def _replaced(owner: Any, name: str, stand_in: Callable[..., Any]) -> Iterator[None]:
    original = vars(owner)[name]  # as stored: a classmethod stays one
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        setattr(owner, name, original)
