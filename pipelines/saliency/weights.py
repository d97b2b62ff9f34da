"""Where DeepGaze IIE's two files are, and that they are the released ones. Nothing is downloaded unless asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pipelines.saliency.download import download_checked
from shards.errors import UsageError
from shards.files import sha256_of_file, write_atomic
from shards.json_fields import strict_json

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
        check(path, asset)
        return path
    for path in _usual_places(asset):
        if path.is_file():
            check(path, asset)
            return path
    path = cache_folder() / asset.name
    if not download:
        raise UsageError(f"{path} ({asset.size:,} bytes) is missing; {_advice(asset)}")
    download_checked(asset.url, path, size=asset.size, sha256=asset.sha256)
    return path


def check(path: Path, asset: Asset) -> None:
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


def _usual_places(asset: Asset) -> Iterator[Path]:
    yield cache_folder() / asset.name
    yield cache_folder().parents[1] / "torch" / "hub" / "checkpoints" / asset.name


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
