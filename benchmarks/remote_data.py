"""The remote benchmarks' data: one set as our shards, as litdata's chunks and as MDS, in folders and in a bucket.

moto's server stands for S3: a process of its own on this machine, everything in its memory or its temporary files.
1024 objects × 24 views of 64 px are some 55 MB in 16 shards; a sequence of four views takes 54 kB through the network,
as every loader here fetches whole objects.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.writer import PixelStats, SetBuilder

OBJECTS, VIEWS, SIDE, PER_SHARD, CLASSES = 1024, 24, 64, 64, 16
BUCKET = "benchmark"
AWS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
_LOW = np.array([-np.pi / 2] * 3 + [0, 0, 0, 0])
_HIGH = np.array([np.pi / 2] * 3 + [1, np.pi / 4, 2 * np.pi, 1])
_SERVE = (
    "import time; from moto.server import ThreadedMotoServer; s = ThreadedMotoServer(port=0, verbose=False); "
    "s.start(); print(s.get_host_and_port()[1], flush=True); time.sleep(1e9)"
)


def write_set(work: Path, objects: int = OBJECTS, per_shard: int = PER_SHARD) -> Path:
    """Our shards; what is there is not written again."""
    out, spec = work / f"shards-{objects}-{per_shard}", ViewSpec(VIEWS, SIDE, SIDE, "jpeg", THREE_DIEBENCH_PARAMS)
    classes = [f"class-{number:02d}" for number in range(CLASSES)]
    with SetBuilder(
        out, name="remote", spec=spec, classes=classes, fingerprint={"objects": objects, "of": per_shard}
    ) as builder:
        if builder.complete:
            return out
        for shard in range(-(-objects // per_shard)):
            with builder.open_shard("train", shard) as writer:
                for number in range(shard * per_shard, min(objects, (shard + 1) * per_shard)):
                    writer.add(*_sample(number))
        builder.finish({"command": "benchmarks/remote.py"})
    return out


def record(number: int) -> dict[str, Any]:
    """One object as one record: all JPEGs in one blob, where each starts (int64 [VIEWS + 1]), float64 latents."""
    jpegs = [simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="420") for picture in _pictures(number)]
    starts = np.cumsum([0, *map(len, jpegs)]).astype(np.int64)
    return {"blob": b"".join(jpegs), "starts": starts, "latents": _latents(number)}


@contextlib.contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """An empty bucket. Yields the environment in which every tool here finds it."""
    command = [sys.executable, "-W", "ignore", "-c", _SERVE]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        found = AWS | {
            "AWS_DEFAULT_REGION": AWS["AWS_REGION"],
            "AWS_ENDPOINT_URL": endpoint,
            "S3_ENDPOINT_URL": endpoint,
        }
        found |= {"AWS_EC2_METADATA_DISABLED": "true"}
        os.environ |= found
        _client().create_bucket(Bucket=BUCKET)
        yield found
    finally:
        server.kill()
        server.wait()


def upload(folder: Path, name: str) -> str:
    """Every file of a folder, to BUCKET/name. Its address."""
    client = _client()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            key = f"{name}/{path.relative_to(folder).as_posix()}"
            client.upload_file(str(path), BUCKET, key, ExtraArgs={"ACL": "public-read"})  # curl signs nothing
    return f"s3://{BUCKET}/{name}"


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _client() -> Any:
    import boto3

    return boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name=AWS["AWS_REGION"])


def _sample(number: int) -> tuple[ViewSample, PixelStats]:
    pictures, latents = _pictures(number), _latents(number).astype(np.float32)
    jpegs = [simplejpeg.encode_jpeg(picture, quality=90, colorsubsampling="420") for picture in pictures]
    sample = ViewSample(f"{number:06d}", jpegs, range(VIEWS), latents, number % CLASSES)
    return sample, PixelStats.of(pictures)


def _latents(number: int) -> np.ndarray:
    return np.random.default_rng([1, number]).uniform(_LOW, _HIGH, (VIEWS, 7))


def _pictures(number: int) -> np.ndarray:
    """uint8 [VIEWS, SIDE, SIDE, 3]: smooth noise."""
    rng = np.random.default_rng([0, number])
    coarse = rng.integers(0, 256, (VIEWS, 9, 9, 3), np.uint8)
    return np.stack([cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for view in coarse])
