"""The authors' published saliency arrays → a `maps` set with the keys, labels and meta of our image sources.

STL-10    <maps>/<split>/saliency_<split>.npy, one float array (N, 1, 96, 96) or (N, 96, 96), in the images' order
ImageNet  <maps>/<split>/<wnid>/<stem>-sal.npy or <stem>_sal.npy, one float array (H, W) an image, leading ones allowed

The arrays (Hugging Face: Hafez/salmap-stl10, Hafez/ImageNet1k-Saliency-Maps) are probabilities up to a factor; shapes
as the released code writes and reads them (hafezgh/seq-jepa@73e0550 datasets.py:375-405). Nothing is unpickled;
of STL-10's arrays, which hold a whole split, one row is read at a time.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipelines.build.fill import Records, Transformed
from pipelines.build.maps import map_to_sample
from pipelines.build.options import look_first
from pipelines.build.plan import plan_shards
from pipelines.build.run_build import Prepared, finished_set, run_build
from pipelines.build.source_watch import images_watch
from pipelines.saliency.request import MapRequest, map_provenance
from pipelines.sources import ImageRecord, ImageSource
from pipelines.sources.content import pieces_sha256
from pipelines.sources.subset import limited
from shards.errors import FormatError, UsageError, few, reason_of
from shards.machine.environment import pass_environment_on
from shards.schema import DatasetInfo, MapSpec, MapStorage

log = logging.getLogger(__name__)

STL10_SIDE = 96
SUFFIXES = ("-sal.npy", "_sal.npy")
PUBLISHED = {
    "model": "published arrays",
    "what": "maps published by the seq-JEPA authors (DeepGaze IIE with pixels in [0, 1]), taken over as they are",
}


@dataclass(frozen=True)
class PublishedItem:
    """An image and where its map lies: `row` of the array in `file`, or the whole of it (None)."""

    record: ImageRecord
    file: Path
    row: int | None = None

    @property
    def name(self) -> str:
        return self.record.name


def import_saliency(
    source: ImageSource,
    maps: Path,
    out: Path | str,
    *,
    storage: MapStorage = "float16",
    samples_per_shard: int = 1024,
    workers: int | None = None,
    limit: int | None = None,
    max_bad: int = 0,
    overwrite: bool = False,
) -> DatasetInfo:
    """Write the published map of every image of `source` (stl10 or imagenet). Splits without arrays are left out.

    Up to `max_bad` images may have a map that is missing, of another size or no density. Resumable as every build.
    Raises UsageError or FormatError, naming the file: no arrays, a wrong shape or count, more bad than allowed.
    """
    out, published = Path(out), {"pipeline": "import-saliency", "maps": fingerprint(maps, source)}
    request = MapRequest(source, published, storage, samples_per_shard, limit)
    if look_first(out, request.to_json(), overwrite):
        return finished_set(out)
    if source.name not in ("stl10", "imagenet"):
        raise UsageError(f"there are published arrays for stl10 and imagenet, not for {source.name}")
    items, missing = (_stl10 if source.name == "stl10" else _imagenet)(source, maps, limit)
    transform = partial(take_over, source=source, storage=storage)
    command = request.command("import-saliency", maps=maps.resolve().name)
    work = Records(lambda positions: map(items.__getitem__, positions), transform, workers)
    prepared = Prepared(
        identity={
            "name": f"{source.name}-published",
            "spec": MapSpec(storage),
            "classes": source.classes,
            "fingerprint": request.to_json(),
        },
        plan=plan_shards([item.record.split for item in items], samples_per_shard),
        work=work,
        over_ray=work.over_ray,
        images=len(items),
        watch=images_watch(source, [item.record for item in items]),
        provenance=partial(map_provenance, request, command, PUBLISHED, len(items)),
        left_out=missing,
    )
    return run_build(prepared, out, max_bad=max_bad, overwrite=overwrite)


def fingerprint(maps: Path, source: ImageSource) -> dict[str, Any]:
    """What the arrays hold: names, sizes and a sample of the bytes, of large files some pieces."""
    if not maps.is_dir():
        raise UsageError(f"--maps {maps} is not a folder; give the one that holds train/ …")
    found = sorted(str(path.relative_to(maps)) for path in maps.rglob("*.npy") if path.is_file())
    arrays = sorted(maps.glob("*/saliency_*.npy")) if source.name == "stl10" else []
    sizes = {file.name: file.stat().st_size for file in arrays}
    return {"layout": source.name, **sizes, "content_sha256": pieces_sha256(maps, found)}


def _stl10(source: ImageSource, maps: Path, limit: int | None) -> tuple[list[PublishedItem], list[str]]:
    items, records = [], source.records()
    for split, images in Counter(record.split for record in records).items():
        file = maps / split / f"saliency_{split}.npy"
        if file.is_file():
            _check_stl10(file, images)
            chosen = [record for record in limited(records, limit) if record.split == split]
            items += [PublishedItem(record, file, record.position) for record in chosen]
    if not items:
        raise UsageError(f"{maps} holds no <split>/saliency_<split>.npy for train, test or unlabeled")
    _say_without_maps(maps, {record.split for record in records} - {item.record.split for item in items})
    return items, []


def _say_without_maps(maps: Path, splits: set[str]) -> None:
    if splits:
        log.warning("%s holds no maps of %s, whose images are left out", maps, few(sorted(splits)))


def _check_stl10(file: Path, images: int) -> None:
    found = open_array(file)
    if found.ndim not in (3, 4) or found.shape[1:] not in ((STL10_SIDE,) * 2, (1, STL10_SIDE, STL10_SIDE)):
        raise FormatError(f"{file} has shape {found.shape}, expected (N, 1, 96, 96) or (N, 96, 96)")
    if len(found) != images:
        raise FormatError(f"{file} has {len(found)} maps, its split has {images} images; fetch both anew")


def _imagenet(source: ImageSource, maps: Path, limit: int | None) -> tuple[list[PublishedItem], list[str]]:
    items, missing, without = [], [], set()
    splits = {split for split in ("train", "val", "test") if (maps / split).is_dir()}
    for record in limited(source.records(), limit):
        if record.split not in splits:
            without.add(record.split)
            continue
        place = PurePosixPath(str(record.meta["file"])).with_suffix("")
        stem = maps / record.split / source.classes[record.label] / place.name  # wherever the image itself lies
        stems = (maps / place, stem)
        tried = (stem.with_name(stem.name + suffix) for stem in stems for suffix in SUFFIXES)
        file = next((path for path in tried if path.is_file()), None)
        if file is None:
            missing.append(f"{record.name}: no {stem.name}-sal.npy or {stem.name}_sal.npy in {stem.parent}")
        else:
            items.append(PublishedItem(record, file))
    counts = Counter(item.file for item in items)  # x.JPEG and x.png: of which it is nobody knows
    missing += [f"{item.name}: {item.file} is by its name of several images" for item in items if counts[item.file] > 1]
    items = [item for item in items if counts[item.file] == 1]
    if not items:
        raise UsageError(f"{maps} holds no <split>/<wnid>/<stem>-sal.npy or …_sal.npy for any image of {source.path}")
    _say_without_maps(maps, without)
    return items, missing


def take_over(item: PublishedItem, source: ImageSource, storage: MapStorage) -> Transformed:
    """One map, normalised and stored anew; what is wrong with it is named in `bad`."""
    digest = source.digest(item.record)
    try:
        size = source.read(item.record).shape[:2]
        p = read_map(item)
        if p.shape != size:
            raise FormatError(f"a map of {p.shape[1]}×{p.shape[0]} for an image of {size[1]}×{size[0]}")
        return map_to_sample(item.record, p, size, storage, digest)
    except (ValueError, OSError, FormatError) as error:
        pass_environment_on(error)
        return Transformed.left_out(f"{item.name}: {error}", digest)


def read_map(item: PublishedItem) -> np.ndarray:
    """float [H, W]. FormatError: not a .npy of floats, or of another shape."""
    found = read_array(item.file, item.row)
    if found.ndim < 2 or any(side != 1 for side in found.shape[:-2]):
        raise FormatError(f"{item.file} has shape {found.shape}, expected (H, W)")
    return found.reshape(found.shape[-2:])


def read_array(file: Path, row: int | None) -> np.ndarray:
    """All of a float array, or one row. FormatError as open_array, also where the file has become shorter since: of a
    map, whoever reads what is gone is killed (SIGBUS)."""
    mapped = open_array(file)
    if not mapped.flags.c_contiguous:  # rows lie scattered over the file
        return np.array(mapped if row is None else mapped[row])
    start, shape = (0, mapped.shape) if row is None else (row * mapped.strides[0], mapped.shape[1:])
    values = np.fromfile(file, mapped.dtype, math.prod(shape), offset=mapped.offset + start)
    if len(values) < math.prod(shape):
        raise FormatError(f"{file} became shorter while it was read; fetch it again")
    return values.reshape(shape)


def open_array(file: Path) -> np.memmap:
    """Memory-mapped float array. FormatError: none. Never unpickles."""
    try:
        found = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, EOFError, OSError) as error:
        pass_environment_on(error)
        raise FormatError(f"{file} is not a whole .npy file of numbers ({reason_of(error)})") from error
    if found.dtype.kind != "f":
        raise FormatError(f"{file} holds {found.dtype}; saliency arrays are float32 or float64")
    return found
