"""3DIE-Synth straight into a shard set, without the tree and its generation of JPEGs in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.build.encode import (
    JpegSetting,
    choose_setting,
    decode_jpeg,
    encode_jpeg,
    encoder_versions,
    pixel_sums,
    psnr_db,
    squared_difference,
)
from pipelines.build.plan import Notes, PlannedShard, plan_shards
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.build.stage import OpenShard, Transformed
from pipelines.sources.three_diebench import sample_key
from pipelines.synth.config import SynthConfig, check_config
from pipelines.synth.families import class_names
from pipelines.synth.objects import PlannedObject, make_object, plan_objects, work_through
from shards.errors import UsageError
from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, DatasetInfo, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

log = logging.getLogger(__name__)

_TRIED_OBJECTS, _TRIED_VIEWS = 16, 2  # for choosing the JPEG setting


def synth_shards(
    cfg: SynthConfig, out: Path | str, samples_per_shard: int = 64, overwrite: bool = False
) -> DatasetInfo:
    """Write the shard set; killed at any moment, the same call goes on there.

    Splits "train" and "val", or, out of distribution, "ood" with the validation objects. Labels, keys and views are
    those of `synth_tree`; pixels are encoded once here, not twice. The JPEG setting is the fastest to decode that keeps
    the usual PSNR (encode.py) on some views of the first objects.

    Raises UsageError for a bad configuration or a folder that is not ours; DiskFullError. What is finished stays.
    """
    check_config(cfg)
    if samples_per_shard < 1:
        raise UsageError(f"samples_per_shard={samples_per_shard} is out of range; allowed is 1 or more")
    planned = plan_objects(cfg)
    if not planned:
        raise UsageError("there are no validation objects; ask for more objects or a larger val_fraction")
    setting = _choose_setting(cfg, planned)
    plan = plan_shards(["ood" if cfg.ood else item.split for item in planned], samples_per_shard)
    with SetBuilder(out, overwrite=overwrite, **_identity(cfg, setting, samples_per_shard)) as builder:
        if builder.info:
            log.info("%s is finished already", out)
            return builder.info
        with sigterm_as_interrupt():
            _write_shards(builder, plan, planned, cfg, setting)
        return builder.finish(_provenance(builder, plan, cfg, setting))


def object_to_sample(item: PlannedObject, cfg: SynthConfig, setting: JpegSetting) -> Transformed:
    """One object, rendered and encoded."""
    made = make_object(item, cfg)
    views, stats, psnr_sum = [], PixelStats(), 0.0
    for image in made.images:
        data = encode_jpeg(image, setting)
        seen = decode_jpeg(data)
        error = squared_difference(seen, image)
        of_view = pixel_sums(seen)
        of_view.sq_err, of_view.sq_err_count = error, image.size
        views.append(data)
        stats, psnr_sum = stats + of_view, psnr_sum + psnr_db(error, image.size)
    params = made.latents.astype(np.float32)
    meta: dict[str, str | int] = {"synset": item.synset, "object": item.object_id}
    key = sample_key(item.synset, item.object_id)
    sample = ViewSample(key, views, range(cfg.views), params, item.label, meta)
    return Transformed(sample, stats, psnr_sum, images=cfg.views)


def _choose_setting(cfg: SynthConfig, planned: Sequence[PlannedObject]) -> JpegSetting:
    few = SynthConfig(**{**vars(cfg), "views": min(cfg.views, _TRIED_VIEWS)})
    return choose_setting([image for item in planned[:_TRIED_OBJECTS] for image in make_object(item, few).images])


def _write_shards(
    builder: SetBuilder, plan: list[PlannedShard], planned: list[PlannedObject], cfg: SynthConfig, setting: JpegSetting
) -> None:
    notes, done = Notes(builder.layout), builder.done()
    todo = [shard for shard in plan if shard.name not in done]
    items = [planned[position] for shard in todo for position in shard.positions]
    made = work_through(partial(object_to_sample, cfg=cfg, setting=setting), items, cfg)
    total, left = len(planned) * cfg.views, len(items) * cfg.views
    with tqdm(total=total, initial=total - left, unit="img", disable=None) as bar:
        for shard in todo:
            _write_shard(OpenShard(builder, shard), made, notes, bar, cfg.views)


def _write_shard(
    shard: OpenShard, made: Iterator[tuple[PlannedObject, Transformed]], notes: Notes, bar: tqdm, views: int
) -> None:
    try:
        while shard.awaited:
            shard.take(next(made)[1])
            bar.update(views)
        shard.close(notes)
    except BaseException:
        shard.writer.abort()
        raise


def _identity(cfg: SynthConfig, setting: JpegSetting, samples_per_shard: int) -> dict[str, Any]:
    """What SetBuilder holds two builds against each other by."""
    fingerprint = {**cfg.identity(), "samples_per_shard": samples_per_shard, "jpeg": str(setting)}
    return {
        "name": "3die-synth-ood" if cfg.ood else "3die-synth",
        "spec": ViewSpec(cfg.views, cfg.size, cfg.size, "jpeg", THREE_DIEBENCH_PARAMS),
        "classes": class_names(cfg.family_count),
        "fingerprint": {**fingerprint, "encoder": encoder_versions()},
    }


def _provenance(
    builder: SetBuilder, plan: Sequence[PlannedShard], cfg: SynthConfig, setting: JpegSetting
) -> dict[str, Any]:
    notes = [Notes(builder.layout).read(shard.name) for shard in plan]
    views = sum(note.images for note in notes)
    return {
        "command": f"seqjepa-data synth 3die --shards {_options(cfg)}",
        "source": cfg.identity(),
        "channels": "red and blue swapped, as in 3DIEBench's files",
        "views": views,
        "jpeg": str(setting),
        "psnr_db": round(sum(note.psnr_sum for note in notes) / views, 3),  # mean over views
        "versions": encoder_versions(),
    }


def _options(cfg: SynthConfig) -> str:
    values = {name: value for name, value in cfg.identity().items() if name not in ("ood", "renderer", "device")}
    text = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
    return text + (" --ood" if cfg.ood else "")
