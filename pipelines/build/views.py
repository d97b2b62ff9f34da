"""A source of views with parameters → `views` shards: all views of an object in one sample."""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pipelines.archives import printable, read_content
from pipelines.build.encode import Frame, JpegSetting, choose_by, encoder_versions, fit_image, psnrs
from pipelines.build.fill import Records
from pipelines.build.options import BuildOptions, look_first
from pipelines.build.plan import Notes, plan_shards
from pipelines.build.run_build import LISTING, BuildReport, Prepared, finished_set, named, outcome, run_build
from pipelines.build.source_watch import SourceWatch
from pipelines.build.transform import DecodedTogether, ViewJob, content_digest, load_view, transform, view_size
from pipelines.build.view_warnings import warnings_of
from pipelines.sources import ViewSource, ViewsRecord
from pipelines.sources.content import digest_of, file_stats, stamp_of
from pipelines.sources.decode import Pixels
from pipelines.sources.subset import evenly
from pipelines.sources.table import TableSource
from shards.building.store_build import made_in
from shards.engines.ray_engine import spread
from shards.errors import FormatError, UsageError
from shards.layout import Layout
from shards.reader import ShardSet
from shards.schema import DatasetInfo, ViewSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """What has to be known of a source before its first shard.

    Of a tar that takes one pass over the whole file, so it is kept beside the build: a resumed build reads it back if
    the file still has the size and time that it had. `source_size` is (height, width) in pixels; `setting` is None for
    raw pixels.
    """

    records: list[ViewsRecord]
    identity: dict[str, Any]
    classes: tuple[str, ...]
    source_size: tuple[int, int]
    setting: JpegSetting | None


def shard_views(
    source: ViewSource,
    out: Path | str,
    *,
    max_bad: int = 0,
    workers: int | None = None,
    overwrite: bool = False,
    context: int | None = 3,
    **options: Any,
) -> DatasetInfo:
    """Write a shard set of the objects of `source`. Says what of a table may not be meant so; `context` None: nothing.

    Views are resized as PIL does (bilinear, antialiased) and always encoded anew, also those that have the size
    already. `options`: those of BuildOptions, by default size 128 and 256 samples a shard. `workers` None: one for each
    usable core; 0 or 1: in this process. Bytes do not depend on it.

    Raises UsageError or FormatError for bad input (also for more than `max_bad` bad views), FailureError if a worker
    fails. What is finished stays; the same call goes on there. KeyboardInterrupt (also for SIGTERM) passes through.
    """
    asked, out = BuildOptions(**{"size": 128, "samples_per_shard": 256, "fit": None, **options}), Path(out)
    for line in warnings_of(source.table, context) if context is not None and isinstance(source, TableSource) else ():
        log.warning("%s: %s", printable(str(source.path)), line)
    if look_first(out, _request(source, asked), overwrite) and not source.random_access:
        _refuse_other_archive(out, source.path)
        return finished_set(out)
    found = _stored_survey(source, asked, out) or survey(source, asked)
    return run_build(prepare_views(source, asked, found, workers), out, max_bad=max_bad, overwrite=overwrite)


def prepare_views(source: ViewSource, asked: BuildOptions, found: Survey, workers: int | None) -> Prepared:
    """Raises UsageError if nothing is to be written."""
    records = found.records
    kept = _limited(records, asked.limit)
    chosen = [record for record, keep in zip(records, kept, strict=True) if keep]
    counts = [len(record.view_ids) for record in chosen if record.view_ids]
    if not counts:
        asked_split = source.options.get("split") or "all"
        raise UsageError(f"split {asked_split!r} has no objects in {source.path}; nothing to write")
    splits = [record.split if keep and record.view_ids else None for record, keep in zip(records, kept, strict=True)]
    frame = _frame(asked, found.source_size)
    size = None if _may_differ(source, asked) else found.source_size
    angles = tuple((i, field.name) for i, field in enumerate(source.params) if field.unit == "rad")
    job = ViewJob(frame, found.setting, size, len(source.params), angles)
    together = DecodedTogether.of(frame, sum(counts), workers)
    stream = not source.random_access
    work = Records(partial(source.read, records), partial(transform, job=job), workers, together, stream)
    return Prepared(
        identity={
            "name": re.sub(r"(\.tar)?(\.gz|\.tgz)?$", "", str(found.identity["name"])),
            "spec": ViewSpec(
                source.views_per_sample or max(counts),
                frame.height,
                frame.width,
                asked.encoding,
                source.params,
                actions=source.actions,
                ordered=source.ordered,
                chunked=source.views_per_sample > 0,
            ),
            "classes": found.classes,
            "fingerprint": _fingerprint(source, asked, found),
        },
        plan=plan_shards(splits, asked.samples_per_shard),
        work=work,
        over_ray=work.over_ray,
        images=sum(counts),
        watch=_watch(source, found),
        provenance=partial(_views_provenance, source, asked, found),
        left_out=[line for record in chosen for line in record.missing],
        listing=None if source.random_access else _survey_to_json(source, asked, found),
    )


def _limited(records: list[ViewsRecord], limit: int | None) -> list[bool]:
    """Which records are kept: at most `limit` sequences of each split, with all of their chunks."""
    if limit is None:
        return [record.split is not None for record in records]
    firsts = [record for record in records if record.chunk == 0]
    kept = iter(evenly([record.split for record in firsts], [record.label for record in firsts], limit))
    flags: list[bool] = []
    for record in records:
        flags.append(next(kept) if record.chunk == 0 else flags[-1])
    return flags


def _request(source: ViewSource, asked: BuildOptions) -> dict[str, Any]:
    return {"pipeline": source.name, **source.settled, **asked.to_json()}


def _fingerprint(source: ViewSource, asked: BuildOptions, found: Survey) -> dict[str, Any]:
    origin = {name: value for name, value in found.identity.items() if name != "name"}
    fingerprint = {**_request(source, asked), "source": origin, "encoder": encoder_versions()}
    return {**fingerprint, "jpeg": str(found.setting)} if found.setting else fingerprint


def _views_provenance(source: ViewSource, asked: BuildOptions, found: Survey, report: BuildReport) -> dict[str, Any]:
    mixed = _may_differ(source, asked)
    same_size = not mixed and _frame(asked, found.source_size).keeps(*found.source_size)
    return {
        "command": asked.command(source),
        "source": {**found.identity, "objects": len(found.records), "image_size": list(found.source_size)},
        **({"split_rule": source.settled["split_rule"]} if "split_rule" in source.settled else {}),
        "views": report.images,
        "resize": "none, same size" if same_size else f"{f'{asked.fit}, ' if mixed else ''}{source.resampler}",
        "bad_views": named(report.bad),
        "versions": {**encoder_versions(), "pyarrow": version("pyarrow")},
        **outcome(report, found.setting, "views"),
    }


def _watch(source: ViewSource, found: Survey) -> SourceWatch:
    def digest(position: int) -> str:
        (content,) = source.read(found.records, [position])
        return content_digest(content)

    return SourceWatch(
        source.path,
        partial(source.stamp, found.records),
        partial(source.holds, found.records, found.identity),
        digest if source.random_access else None,
    )


def _refuse_other_archive(out: Path, archive: Path) -> None:
    """UsageError: the finished set was made of another file."""
    there, here = ShardSet.open(out).info.fingerprint.get("source", {}).get("sha256"), digest_of(archive)
    if there != here:
        raise UsageError(
            f"{out} holds another set (the source's archive has other bytes than then; sha256 {there} there, {here} "
            "here): choose another --out, or give --overwrite"
        )


def survey(source: ViewSource, asked: BuildOptions) -> Survey:
    """List the source and decide. Raises FormatError for a wrong layout or images of many sizes."""
    records, sample, bad = source.records(), {}, []
    for name, content in source.sample:
        try:
            data, kind = read_content(content), "" if source.mixed_sizes else name
            sample[name] = (data, view_size(kind, data))
        except ValueError as error:  # what is damaged is passed over here; the workers will name it
            bad.append(f"{name}: {error}")
    source_size = _common_size(source, asked, [size for _, size in sample.values()], bad)

    def measured(least: int) -> list[list[float]]:
        kept = [
            ("" if source.mixed_sizes else name, data)
            for name, (data, size) in sample.items()
            if size == source_size or _may_differ(source, asked)
        ]
        measure = partial(_measured, frame=_frame(asked, source_size), least=least)
        images = [image for image in spread(measure, kept, "JPEG settings") if image]
        if not images:
            raise FormatError(f"{source.path}: not one of {len(sample)} images that were tried can be decoded")
        return images

    setting = asked.setting(lambda: choose_by(measured))
    return Survey(records, source.identity, source.classes, source_size, setting)


def _measured(images: Sequence[tuple[str, bytes]], frame: Frame, least: int) -> list[list[float]]:
    """`psnrs` of images, (kind, bytes) each, as they will be fitted into the frame; [] for one that is not decoded."""
    pixels: dict[int, Pixels] = {}
    for number, (kind, data) in enumerate(images):
        with contextlib.suppress(ValueError):
            pixels[number] = fit_image(load_view(kind, data, None), frame)
    found = dict(zip(pixels, psnrs(list(pixels.values()), least), strict=True)) if pixels else {}
    return [found.get(number, []) for number in range(len(images))]


def _frame(asked: BuildOptions, source_size: tuple[int, int]) -> Frame:
    return Frame(*((asked.size, asked.size) if asked.size else source_size), asked.fit or "squash")


def _may_differ(source: ViewSource, asked: BuildOptions) -> bool:
    """Whether images of any size will do."""
    return source.mixed_sizes and asked.size is not None


def _common_size(
    source: ViewSource, asked: BuildOptions, sizes: list[tuple[int, int]], bad: Sequence[str]
) -> tuple[int, int]:
    """The size that most images have. Raises FormatError if not more than half have the same, and must.

    bad: those that have none, and why.
    """
    counts = Counter(sizes).most_common()
    if not counts and source.mixed_sizes:
        example = f", e.g. {bad[0]}" if bad else ""
        raise FormatError(f"{source.path}: not one of the images that were tried can be decoded{example}")
    if not counts:
        raise FormatError("no image that was tried is a JPEG; image_<k>.jpg files have to be")
    if 2 * counts[0][1] <= len(sizes) and not _may_differ(source, asked):
        found = ", ".join(f"{width}×{height}" for (height, width), _ in counts[:5])
        advice = "give --size" if source.mixed_sizes else "all images of a set need the same"
        raise FormatError(f"images are of mixed size ({found}); {advice}")
    return counts[0][0]


def _survey_key(source: ViewSource, asked: BuildOptions) -> dict[str, Any]:
    """The saved survey is of use for the same request of the same, untouched file alone."""
    return {"source_stamp": stamp_of(file_stats([source.path])), **_request(source, asked), **encoder_versions()}


def _survey_to_json(source: ViewSource, asked: BuildOptions, found: Survey) -> dict[str, Any]:
    settled = {"request": _survey_key(source, asked), "setting": str(found.setting) if found.setting else ""}
    return {**vars(found), **settled, "records": [vars(record) for record in found.records]}


def _stored_survey(source: ViewSource, asked: BuildOptions, out: Path) -> Survey | None:
    """What an interrupted build of the same request kept; None if there is nothing of use."""
    record = None if source.random_access else Notes(Layout(made_in(out))).read_json(LISTING)
    if record is None:
        return None
    try:
        if record.pop("request") != _survey_key(source, asked):
            return None
        shared: dict[tuple[int, ...], tuple[int, ...]] = {}  # most objects have the same numbers
        records = []
        for fields in record["records"]:
            ids, missing = tuple(fields.pop("view_ids")), tuple(fields.pop("missing"))
            records.append(ViewsRecord(**fields, view_ids=shared.setdefault(ids, ids), missing=missing))
        setting = JpegSetting.parse(record["setting"]) if record["setting"] else None
        height, width = record["source_size"]
        return Survey(records, record["identity"], tuple(record["classes"]), (height, width), setting)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        log.info("the saved listing is of no use (%s); listing again", error)
        return None
