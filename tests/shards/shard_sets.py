"""Tiny sets for the tests, of every kind: deterministic by (seed, split, shard), ragged, and quick to build.

A flavour is a kind with the options of its spec; "raw" and "jpeg" are `views`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from shards.machine.files import sha256_of_bytes
from shards.saliency_map import encode_map
from shards.sample import ImageSample, MapSample, Sample, ViewSample, encode_raw
from shards.schema import (
    THREE_DIEBENCH_PARAMS,
    ActionSpec,
    ActionTerm,
    DatasetInfo,
    FeatureSpec,
    ImageSpec,
    MapSpec,
    ParamField,
    Spec,
    ViewSpec,
    features_of,
)
from shards.vectors import encode_vectors
from shards.writer import PixelStats, SetBuilder

PLAN = {"train": 3, "val": 2}
CLASSES = ["chair", "lamp", "table"]
SLOTS = 3
WEIGHTS = b"the weights of an encoder"
FEATURES = FeatureSpec(
    size=5,
    dtype="float16",
    encoder={"backbone": "resnet18", "width": 0.25, "stem": "cifar"},
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.2, 0.2),
    weights_sha256="ab" * 32,
    file_sha256=sha256_of_bytes(WEIGHTS),
)
FLAVOURS: dict[str, Spec] = {
    "raw": ViewSpec(SLOTS, 8, 12, "raw", THREE_DIEBENCH_PARAMS),
    "jpeg": ViewSpec(SLOTS, 8, 12, "jpeg", THREE_DIEBENCH_PARAMS),
    "sequence": ViewSpec(4, 8, 12, "raw", (ParamField("x", "1"), ParamField("y", "1")), sequence=2),
    "declared": ViewSpec(
        SLOTS,
        8,
        12,
        "raw",
        (ParamField("tx", "m"), ParamField("yaw", "rad"), ParamField("light", "1")),
        actions=ActionSpec((ActionTerm("difference", ("tx",)), ActionTerm("angle_difference", ("yaw",)))),
    ),
    "bare": ViewSpec(SLOTS, 8, 12, "raw", ()),
    "features": ViewSpec(SLOTS, 8, 12, "features", THREE_DIEBENCH_PARAMS, features=FEATURES),
    "saliency-raw": ImageSpec(8, 12, "raw", "float16"),
    "saliency-jpeg": ImageSpec(8, 12, "jpeg", "log8"),
    "image-raw": ImageSpec(8, 12, "raw"),
    "image-jpeg": ImageSpec(8, 12, "jpeg"),
    "maps-float16": MapSpec("float16"),
    "maps-log8": MapSpec("log8"),
}
VIEWS = [name for name, spec in FLAVOURS.items() if spec.kind == "views"]
IMAGES = [name for name in FLAVOURS if name not in VIEWS]


def spec_of(encoding: str = "raw", views: int = SLOTS) -> ViewSpec:
    return ViewSpec(views, 8, 12, encoding, THREE_DIEBENCH_PARAMS)


def pixels_of(split: str, shard: int, sample: int, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [count, 8, 12, 3], smooth enough for JPEG."""
    rng = np.random.default_rng([seed, len(split), shard, sample])
    coarse = rng.integers(0, 256, (count, 2, 3, 3), dtype=np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


def vectors_of(pixels: np.ndarray) -> np.ndarray:
    """float64 [n, 5] of pixels [n, 8, 12, 3], that float16 holds exactly."""
    return pixels[:, 0, :5, 0] / 4 - 20


def map_of(split: str, shard: int, sample: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """float64 [H, W]: a blob on a floor; sums to 1."""
    height, width = size
    centre = np.random.default_rng([seed, len(split), shard, sample, 7]).random(2)
    rows, columns = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    squares = (rows[:, None] - centre[0]) ** 2 + (columns[None] - centre[1]) ** 2
    blob = np.exp(-squares / 0.05) + 0.01
    return blob / blob.sum()


def map_size(number: int) -> tuple[int, int]:
    """Of the number-th sample of a `maps` shard."""
    return (5 + number, 9 - number)


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **{"quality": 95, "subsampling": 0} | options)
    return buffer.getvalue()


def encoded(pixels: np.ndarray, encoding: str) -> bytes:
    return encode_raw(pixels) if encoding == "raw" else jpeg(pixels)


def sample_of(split: str, shard: int, number: int, flavour: str = "raw", seed: int = 0) -> tuple[Sample, np.ndarray]:
    """A sample, and its pixels before encoding, uint8 [n, 8, 12, 3]: n is 0 for a map."""
    make = {"views": _view_sample, "saliency": _image_sample, "image": _image_sample, "maps": _map_sample}
    return make[FLAVOURS[flavour].kind](split, shard, number, FLAVOURS[flavour], seed)


def _identity(split: str, shard: int, number: int) -> dict:
    meta = {"synset": f"0{number}", "object": 100 * shard + number}
    return {"key": f"{split}_{shard}-{number}", "label": number % 3, "meta": meta}


def _view_sample(split: str, shard: int, number: int, spec: ViewSpec, seed: int) -> tuple[Sample, np.ndarray]:
    """1 to 3 views, so that most sets are ragged; or whole runs."""
    count = spec.sequence * (1 + number % 2) if spec.sequence else 1 + number % SLOTS
    pixels = pixels_of(split, shard, number, count, seed)
    params = np.random.default_rng([seed, shard, number]).normal(size=(count, len(spec.params))).astype(np.float32)
    ids = list(range(0, 2 * count, 2))
    if spec.features:
        views, pixels = encode_vectors(vectors_of(pixels), spec.features), pixels[:0]
    else:
        views = [encoded(p, spec.encoding) for p in pixels]
    return ViewSample(views=views, view_ids=ids, params=params, **_identity(split, shard, number)), pixels


def _image_sample(split: str, shard: int, number: int, spec: ImageSpec, seed: int) -> tuple[Sample, np.ndarray]:
    pixels = pixels_of(split, shard, number, 1, seed)
    saliency = ()
    if spec.saliency != "none":
        saliency = encode_map(map_of(split, shard, number, (spec.height, spec.width), seed), spec.saliency)
    image = encoded(pixels[0], spec.encoding)
    return ImageSample(image=image, saliency=saliency, **_identity(split, shard, number)), pixels


def _map_sample(split: str, shard: int, number: int, spec: MapSpec, seed: int) -> tuple[Sample, np.ndarray]:
    size = map_size(number)
    saliency = encode_map(map_of(split, shard, number, size, seed), spec.storage)
    sample = MapSample(saliency=saliency, height=size[0], width=size[1], **_identity(split, shard, number))
    return sample, np.zeros((0, 8, 12, 3), np.uint8)


def builder(out: Path, flavour: str = "raw", seed: int = 0, overwrite: bool = False) -> SetBuilder:
    fingerprint = {"seed": seed, "source": "tests"}
    return SetBuilder(
        out, name="toy", spec=FLAVOURS[flavour], classes=CLASSES, fingerprint=fingerprint, overwrite=overwrite
    )


def build(
    out: Path,
    flavour: str = "raw",
    seed: int = 0,
    samples: int = 3,
    overwrite: bool = False,
    on_shard: Callable[[str], None] = lambda name: None,
) -> DatasetInfo:
    """Builds, or resumes, the tiny set in `out`; `on_shard` hears the name of each shard that is written."""
    with builder(out, flavour, seed, overwrite) as target:
        if features_of(target.spec) and not target.complete:
            target.put_encoder(WEIGHTS)
        for split, shards in PLAN.items():
            for shard in range(shards):
                if (name := f"{split}-{shard:06d}") in target.done():
                    continue
                on_shard(name)
                with target.open_shard(split, shard) as writer:
                    for number in range(samples):
                        sample, pixels = sample_of(split, shard, number, flavour, seed)
                        writer.add(sample, PixelStats.of(pixels, pixels // 2 * 2))
        return target.finish({"command": "tests"})


def contents(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file under `folder`."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def final_files(folder: Path) -> dict[str, str]:
    """contents() without what belongs to a build under way."""
    under_way = ("_meta/tmp/", "_meta/claims/", "_meta/parts/", "_meta/build.json", "_meta/lock")
    return {name: digest for name, digest in contents(folder).items() if not name.startswith(under_way)}
