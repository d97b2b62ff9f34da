"""3DIEBench, its OOD twin, and any data set in their layout → `views` shards.

What has to be known of a source before its first shard: objects, image size, JPEG setting.

For a tar that takes one pass over the whole file, so the result is kept beside the build: a resumed build reads it
back if the file still has the size and time that it had.

Opening a folder tree or a tar of objects.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.build.encode import JpegSetting, choose_setting, decode_jpeg, encoder_versions, resize
from pipelines.build.options import Request, look_first, split_rule
from pipelines.build.plan import evenly
from pipelines.build.stage import BadItems, BuildReport, PlannedShard, build_shards, plan_shards, taken_back_if_empty
from pipelines.build.transform import ObjectRecord, ViewJob, transform
from pipelines.sources.content import file_sha256, file_stats, stamp_of
from pipelines.sources.decode import jpeg_size
from pipelines.sources.object_splits import Assignment, Split, assign
from pipelines.sources.object_tar import TarSource
from pipelines.sources.object_tree import TreeSource
from pipelines.sources.objects import Content, ListedObject, Listing, Source, read_content
from shards.errors import FormatError, UsageError
from shards.files import disk_full_named, write_atomic
from shards.json_fields import strict_json
from shards.layout import Layout
from shards.metadata import read_info
from shards.schema import THREE_DIEBENCH_PARAMS, DatasetInfo, Encoding, ViewSpec
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

NAMED_IN_PROVENANCE = 1000
KEY_LENGTH = 80


def shard_3diebench(
    source: Path | str,
    out: Path | str,
    *,
    split_lists: Path | None = None,
    val_match: str | None = None,
    val_fraction: float | None = None,
    split: Split = "all",
    size: int = 128,
    encoding: Encoding = "jpeg",
    jpeg_quality: str = "auto",
    samples_per_shard: int = 256,
    max_bad: int = 0,
    workers: int | None = None,
    limit: int | None = None,
    overwrite: bool = False,
) -> DatasetInfo:
    """Write a shard set from an unpacked tree or its tar(.gz), which is read as a stream.

    Splits come from the distributed lists (`split_lists`, or lying in the tree's root), or from `val_match` (objects of
    this name are validation) or `val_fraction` (a share of each synset); `split` "ood" takes all objects. Views are
    resized to size × size as PIL does (bilinear, antialiased) and always encoded anew, also those that have the size
    already. `limit` takes so many objects of each split, evenly over the same synsets. `workers` None: one for each
    usable core; 0 or 1: in this process. Bytes do not depend on it.

    Raises UsageError or FormatError for bad input (also for more than `max_bad` bad views), FailureError if a worker
    fails. What is finished stays; the same call goes on there. KeyboardInterrupt (also for SIGTERM) passes through.
    """
    source, out = Path(source), Path(out)
    origin = open_objects(source)
    rule = split_rule(source, split_lists, val_match, val_fraction, split)
    request = Request(source, rule, split, size, encoding, jpeg_quality, samples_per_shard, limit)
    if look_first(out, request.to_json(), overwrite) and source.is_file():
        return _finished(out, source)
    found = _survey_once(origin, request, Layout(out))
    work = plan_work(found, request)
    with taken_back_if_empty(out), SetBuilder(out, overwrite=overwrite, **_identity(work, found, request)) as builder:
        if builder.info is None:
            save_survey(builder.layout, found, _survey_key(request))
            report = _build(builder, origin, found, work, request.size, max_bad, workers)
            builder.finish(_provenance(request, found, work, report))
        assert builder.info is not None
        return builder.info


@dataclass(frozen=True)
class Work:
    """`views` counts those of all planned objects, `slots` (N) is the most that one has."""

    assignment: Assignment
    plan: list[PlannedShard]
    views: int
    slots: int
    orphans: list[str]


def plan_work(found: ObjectSurvey, request: Request) -> Work:
    """Which object goes into which shard. Raises UsageError or FormatError if the split does not fit the source."""
    objects = found.listing.objects
    assignment = assign(objects, request.rule, request.split)
    kept = evenly(assignment.split, assignment.label, request.limit)
    chosen = [name if keep else None for name, keep in zip(assignment.split, kept, strict=True)]
    orphans = [
        f"{item.path}/{file}: its {'latent' if file.startswith('image') else 'image'} is missing"
        for item, name in zip(objects, chosen, strict=True)
        if name is not None
        for file in item.orphans
    ]
    splits = [name if item.view_ids else None for item, name in zip(objects, chosen, strict=True)]
    counts = [len(item.view_ids) for item, name in zip(objects, splits, strict=True) if name is not None]
    if not counts:
        raise UsageError(f"split {request.split!r} has no objects in {request.source}; nothing to write")
    return Work(assignment, plan_shards(splits, request.samples_per_shard), sum(counts), max(counts), orphans)


def _survey_once(source: Source, request: Request, layout: Layout) -> ObjectSurvey:
    if (saved := load_survey(layout, _survey_key(request))) is not None and request.source.is_file():
        return saved
    return survey_objects(source, request.size, request.encoding, request.jpeg_quality)


def _survey_key(request: Request) -> dict[str, Any]:
    return {"source_stamp": stamp_of(file_stats([request.source])), **request.to_json(), **encoder_versions()}


def _identity(work: Work, found: ObjectSurvey, request: Request) -> dict[str, Any]:
    """What SetBuilder holds two builds against each other by."""
    size = request.size
    origin = {name: value for name, value in found.listing.identity.items() if name != "name"}
    fingerprint = {**request.to_json(), "source": origin, "encoder": encoder_versions()}
    if found.setting:
        fingerprint["jpeg"] = str(found.setting)
    return {
        "name": re.sub(r"(\.tar)?(\.gz|\.tgz)?$", "", str(found.listing.identity["name"])),
        "spec": ViewSpec(work.slots, size, size, request.encoding, THREE_DIEBENCH_PARAMS),
        "classes": work.assignment.classes,
        "fingerprint": fingerprint,
    }


def _build(
    builder: SetBuilder, source: Source, found: ObjectSurvey, work: Work, size: int, max_bad: int, workers: int | None
) -> BuildReport:
    bad = BadItems(max_bad)
    bad.add(work.orphans)
    job = ViewJob(size, found.setting, found.source_size, len(THREE_DIEBENCH_PARAMS))

    def read(positions: Sequence[int]) -> Iterator[ObjectRecord]:
        return _records(source, found.listing.objects, work.assignment, positions)

    made = partial(transform, job=job)
    watch = source.watch(found.listing)
    return build_shards(builder, work.plan, read, made, images=work.views, bad=bad, watch=watch, workers=workers)


def _records(
    source: Source, objects: Sequence[ListedObject], assignment: Assignment, positions: Sequence[int]
) -> Iterator[ObjectRecord]:
    for files in source.read(objects, positions):
        item = objects[files.position]
        yield ObjectRecord(
            key=sample_key(item.synset, item.name),
            label=assignment.label[files.position],
            split=str(assignment.split[files.position]),
            view_ids=list(item.view_ids),
            views=files.images,
            latents=files.latents,
            name=item.path,
            meta={"synset": item.synset, "object": item.name},
        )


def sample_key(synset: str, name: str) -> str:
    """ "02691156_dc8d9003"; names that a key cannot hold are spelled with "-" and told apart by a hash."""
    if re.fullmatch(r"[A-Za-z0-9-]+", synset) and re.fullmatch(r"[A-Za-z0-9_-]+", name):
        key = f"{synset}_{name}"
        if len(key) <= KEY_LENGTH:
            return key
    digest = hashlib.sha256(f"{synset}/{name}".encode("utf-8", "surrogateescape")).hexdigest()[:12]
    plain = re.sub(r"[^A-Za-z0-9-]", "-", f"{synset}-{name}")
    return f"{plain[: KEY_LENGTH - 13]}-{digest}"


def _provenance(request: Request, found: ObjectSurvey, work: Work, report: BuildReport) -> dict[str, Any]:
    """The same in every run of the same command on the same source, on whatever machine."""
    height, width = found.source_size
    record: dict[str, Any] = {
        "command": request.command(),
        "source": {**found.listing.identity, "objects": len(found.listing.objects), "image_size": [height, width]},
        "split_rule": request.rule.describe(),
        "views": report.images,
        "resize": "PIL bilinear, antialiased" if (height, width) != (request.size,) * 2 else "none, same size",
        "bad_views": {"count": len(report.bad), "names": report.bad[:NAMED_IN_PROVENANCE]},
        "versions": {**encoder_versions(), "pyarrow": version("pyarrow")},
    }
    if found.setting and report.psnr_db is not None:
        record |= {"jpeg": str(found.setting), "psnr_db": round(report.psnr_db, 3)}  # mean over views
    if report.odd:
        record["odd_views"] = {"count": len(report.odd), "names": report.odd[:NAMED_IN_PROVENANCE]}
        log.warning("%d views may be damaged, e.g. %s", len(report.odd), report.odd[0])
    if report.bad:
        log.warning("%d bad views were left out, e.g. %s", len(report.bad), report.bad[0])
    return record


def _finished(out: Path, tar: Path) -> DatasetInfo:
    """The set as it is, checked and tidied as SetBuilder does it. UsageError: it was made of another tar."""
    info = read_info(out)
    there, here = info.fingerprint.get("source", {}).get("sha256"), file_sha256(tar)
    if there != here:
        raise UsageError(
            f"{out} holds another set (the source's archive has other bytes than then; sha256 {there} there, {here} "
            "here): choose another --out, or give --overwrite"
        )
    log.info("%s is finished already", out)
    identity = {"name": info.name, "spec": info.spec, "classes": info.classes, "fingerprint": info.fingerprint}
    with SetBuilder(out, **identity) as builder:
        return builder.info or info


@dataclass(frozen=True)
class ObjectSurvey:
    """`source_size` is (height, width) in pixels; `setting` is None for raw pixels."""

    listing: Listing
    source_size: tuple[int, int]
    setting: JpegSetting | None


def survey_objects(source: Source, size: int, encoding: str, jpeg_quality: str) -> ObjectSurvey:
    """List the source and decide. Raises FormatError for a wrong layout or images of many sizes."""
    listing = source.list()
    sample = dict(_readable(listing.sample))
    sizes = {name: jpeg_size(data) for name, data in sample.items()}
    source_size = _common_size(sizes)
    if encoding == "raw":
        return ObjectSurvey(listing, source_size, None)
    if jpeg_quality != "auto":
        return ObjectSurvey(listing, source_size, JpegSetting.parse(jpeg_quality))
    pixels = []
    for name, data in sample.items():
        if sizes[name] == source_size:
            with contextlib.suppress(ValueError):
                pixels.append(resize(decode_jpeg(data), size))
    if not pixels:
        raise FormatError(f"{source.path}: not one of {len(sizes)} images that were tried can be decoded")
    return ObjectSurvey(listing, source_size, choose_setting(pixels))


def _readable(sample: Sequence[tuple[str, Content]]) -> list[tuple[str, bytes]]:
    """What is damaged is passed over here; the workers will name it."""
    found = []
    for name, content in sample:
        with contextlib.suppress(ValueError):
            data = read_content(content)
            jpeg_size(data)
            found.append((name, data))
    return found


def _common_size(sizes: dict[str, tuple[int, int]]) -> tuple[int, int]:
    """The size that most images have. Raises FormatError if not more than half have the same."""
    counts = Counter(sizes.values()).most_common()
    if not counts:
        raise FormatError("no image that was tried is a JPEG; image_<k>.jpg files have to be")
    if 2 * counts[0][1] <= len(sizes):
        found = ", ".join(f"{width}×{height}" for (height, width), _ in counts[:5])
        raise FormatError(f"images are of mixed size ({found}); all images of a set need the same")
    return counts[0][0]


def save_survey(layout: Layout, found: ObjectSurvey, request: dict) -> None:
    """Keep `found` in a build's folder, for the same request and source."""
    record = {
        "request": request,
        "identity": found.listing.identity,
        "source_size": found.source_size,
        "setting": str(found.setting) if found.setting else "",
        "objects": [[o.synset, o.name, _to_ranges(o.view_ids), o.orphans] for o in found.listing.objects],
    }
    with disk_full_named(layout.root, lambda: "free some and run the same command again"):
        write_atomic(_path(layout), json.dumps(record).encode(), layout.tmp)


def load_survey(layout: Layout, request: dict) -> ObjectSurvey | None:
    """What save_survey kept for the same request; None if there is nothing of use."""
    try:
        record = strict_json(_path(layout).read_bytes())
        if record["request"] != request:
            return None
        shared: dict[str, tuple[int, ...]] = {}
        objects = [
            ListedObject(synset, name, shared.setdefault(ids, _from_ranges(ids)), tuple(orphans))
            for synset, name, ids, orphans in record["objects"]
        ]
        setting = JpegSetting.parse(record["setting"]) if record["setting"] else None
        height, width = record["source_size"]
        return ObjectSurvey(Listing(objects, record["identity"]), (height, width), setting)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.info("the saved listing is of no use (%s); listing again", error)
        return None


def _path(layout: Layout) -> Path:
    return layout.parts / "survey.json"


def _to_ranges(ids: Sequence[int]) -> str:
    """(0, 1, 2, 5) → "0-2,5-5"."""
    ranges: list[list[int]] = []
    for k in ids:
        if ranges and ranges[-1][1] == k - 1:
            ranges[-1][1] = k
        else:
            ranges.append([k, k])
    return ",".join(f"{first}-{last}" for first, last in ranges)


def _from_ranges(text: str) -> tuple[int, ...]:
    pairs = (part.split("-") for part in text.split(",") if part)
    return tuple(k for first, last in pairs for k in range(int(first), int(last) + 1))


def open_objects(path: Path) -> Source:
    """TreeSource for a folder, TarSource for a file. Raises FormatError if there is neither."""
    if path.is_dir():
        return TreeSource(path)
    if path.is_file():
        return TarSource(path)
    raise FormatError(f"{path} is not there; give the unpacked tree or its .tar or .tar.gz")
