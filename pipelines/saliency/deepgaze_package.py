"""What the user installs for DeepGaze IIE: the package `deepgaze_pytorch`, and the two released files.

The package is imported when needed, built without downloads and loaded strictly. The files are found in the usual
places, told by their sha256, and downloaded only if asked for: bounded in size, hashed on the way, renamed when right.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import torch
from torch import nn
from tqdm import tqdm

from pipelines.get.download import Patience, fetch
from pipelines.get.published import PublishedFile
from shards.errors import FormatError, UsageError, reason_of
from shards.json_fields import strict_json
from shards.machine.files import sha256_of_file, write_atomic

# The last commit whose declared dependencies are enough to import it.
COMMIT = "874f12e1ee519860f49860638cf7f6375956d45a"
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
    model = build_untrained(package, empty=True)
    try:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        model.load_state_dict(state, strict=True)
    except Exception as error:
        reason = reason_of(error)[:300]
        raise FormatError(f"{weights} does not fit {package.__name__}'s DeepGazeIIE: {reason}") from error
    return model


def build_untrained(package: ModuleType, *, empty: bool = False) -> nn.Module:
    """The model with random weights, in eval mode, no gradients. Nothing is downloaded: the file has the backbones.

    empty: torchvision's backbones hold whatever the memory did, for a file with all of them to fill; half the time.
    """
    with _backbones_without_downloads(package.__name__, empty):
        model = package.DeepGazeIIE(pretrained=False)
    return model.eval().requires_grad_(False)


@contextmanager
def _backbones_without_downloads(package: str, empty: bool) -> Iterator[None]:
    """While open, the three ways in which the package fetches trained backbones return random ones instead."""
    shapenet = importlib.import_module(f"{package}.features.shapenet")
    efficientnet = importlib.import_module(f"{package}.features.efficientnet").EfficientNet

    def resnet(name: str) -> nn.Module:
        return nn.Sequential(OrderedDict(module=_torchvision("resnet50", empty)))

    with (
        patch.object(torch.hub, "load", lambda repository, name, **options: _torchvision(name, empty)),
        patch.object(shapenet, "load_model", resnet),
        patch.object(efficientnet, "from_pretrained", lambda name, **options: efficientnet.from_name(name)),
    ):
        yield


def _torchvision(name: str, empty: bool) -> nn.Module:
    import torchvision

    with torch.device("meta" if empty else "cpu"):
        net = torchvision.models.get_model(name, weights=None)
    return net.to_empty(device="cpu") if empty else net


PATIENCE = Patience(tries=4)
SECONDS_FOR_OTHERS = 3600.0
"""For another process that downloads the same file: of several devices each has its own."""
RELEASE = "https://github.com/matthias-k/DeepGaze/releases/download/v1.0.0/"


@dataclass(frozen=True)
class Asset:
    """One released file. size: bytes; variable: the environment variable that may name it; option: of the command."""

    name: str
    size: int
    sha256: str
    variable: str
    option: str
    url: str


DEEPGAZE_WEIGHTS = Asset(
    name="deepgaze2e.pth",
    size=419_676_716,
    sha256="49b65724184f43a2b60426c29c12fd2b743b47ad9eb3435d3dd28e50ea4e2585",
    variable="SEQJEPA_DEEPGAZE_WEIGHTS",
    option="--weights",
    url=RELEASE + "deepgaze2e.pth",
)
CENTRE_BIAS = Asset(
    name="centerbias_mit1003.npy",
    size=8_388_688,
    sha256="051645b7da47884c138e81f28a4afbadd99b6c3262eaf086434a9626e3578be9",
    variable="SEQJEPA_CENTRE_BIAS",
    option="--centre-bias",
    url=RELEASE + "centerbias_mit1003.npy",
)


def locate(asset: Asset, given: Path | None = None, *, download: bool = False) -> Path:
    """The checked path of an asset: `given` (a file or its folder), else the environment variable, else our cache,
    else torch's own cache, where the package would have put it. download: fetch it into our cache if it is in none.

    Raises UsageError if it is missing, or is not the released file by its size and sha256; FailureError if the
    download fails.
    """
    named = given or (Path(os.environ[asset.variable]) if os.environ.get(asset.variable) else None)
    if named is not None:
        path = named / asset.name if named.is_dir() else named
        if not path.is_file():
            raise UsageError(f"{path} does not exist; {_advice(asset)}")
        check_asset(path, asset)
        return path
    path = cache_folder() / asset.name
    for usual in (path, cache_folder().parents[1] / "torch" / "hub" / "checkpoints" / asset.name):
        if usual.is_file():
            check_asset(usual, asset)
            return usual
    if not download:
        raise UsageError(f"{path} ({asset.size:,} bytes) is missing; {_advice(asset)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    file = PublishedFile(asset.name, asset.url, asset.size, digest=asset.sha256)
    elsewhere = f"or name a copy with {asset.option} or {asset.variable}"
    return fetch(file, path.parent, PATIENCE, elsewhere=elsewhere, wait=SECONDS_FOR_OTHERS)


def check_asset(path: Path, asset: Asset) -> None:
    """UsageError unless size and sha256 are the released ones. An unchanged file's hash is remembered beside it."""
    stat = path.stat()
    if stat.st_size != asset.size:
        raise UsageError(f"{path} has {stat.st_size:,} bytes, {asset.name} has {asset.size:,}; {_advice(asset)}")
    found = _remembered_sha256(path, stat)
    if found != asset.sha256:
        raise UsageError(f"{path} has sha256 {found}, {asset.name} has {asset.sha256}; {_advice(asset)}")


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "seqjepa" / "deepgaze"


def _advice(asset: Asset) -> str:
    return f"get it from {asset.url} and name it with {asset.option} or {asset.variable}, or add --download"


def _remembered_sha256(path: Path, stat: os.stat_result) -> str:
    """sha256 of a file; read from the stamp beside it while its size and time of change are those of the stamp."""
    stamp, state = path.with_name(f".{path.name}.sha256.json"), [stat.st_size, stat.st_mtime_ns]
    with suppress(OSError, ValueError, KeyError, TypeError):
        noted = strict_json(stamp.read_bytes())
        if noted["state"] == state:
            return str(noted["sha256"])
    with tqdm(total=stat.st_size, unit="B", unit_scale=True, desc=f"checking {path.name}", disable=None) as bar:
        digest = sha256_of_file(path, bar.update)
    with suppress(OSError):  # a folder that we may not write to: hash again next time
        write_atomic(stamp, json.dumps({"state": state, "sha256": digest}).encode())
    return digest
