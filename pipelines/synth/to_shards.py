"""3DIE-Synth straight into a shard set, without the tree and its generation of JPEGs in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.build.encode import JpegSetting, choose_setting, encode_image, encoder_versions
from pipelines.build.fill import Results, Transformed
from pipelines.build.plan import PlannedShard, plan_shards
from pipelines.build.stage import BuildReport, Prepared, run_build
from pipelines.sources.keys import sample_key
from pipelines.synth.config import SynthConfig, check_config
from pipelines.synth.objects import PlannedObject, make_object, plan_objects, work_through
from shards.errors import UsageError
from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, DatasetInfo, ViewSpec
from shards.stats import PixelStats

_NO_OPTIONS = ("ood", "renderer", "device", "preset_version")
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
    prepared = Prepared(
        identity=_identity(cfg, setting, samples_per_shard),
        plan=plan,
        work=partial(_work, planned, cfg, setting),
        images=len(planned) * cfg.views,
        provenance=partial(_provenance, cfg, setting),
    )
    return run_build(prepared, Path(out), max_bad=0, overwrite=overwrite)


def _work(
    planned: Sequence[PlannedObject], cfg: SynthConfig, setting: JpegSetting, shards: Iterator[PlannedShard]
) -> Results:
    places = [(shard, position) for shard in shards for position in shard.positions]
    items = [planned[position] for _, position in places]
    made = work_through(partial(object_to_sample, cfg=cfg, setting=setting), items, cfg)
    for (shard, _), (_, result) in zip(places, made, strict=True):
        yield shard, result


def object_to_sample(item: PlannedObject, cfg: SynthConfig, setting: JpegSetting) -> Transformed:
    """One object, rendered and encoded."""
    made = make_object(item, cfg)
    views, stats, psnr_sum = [], PixelStats(), 0.0
    for image in made.images:
        data, of_view, psnr = encode_image(image, setting)
        views.append(data)
        stats, psnr_sum = stats + of_view, psnr_sum + psnr
    params = made.latents.astype(np.float32)
    meta: dict[str, str | int] = {"synset": item.synset, "object": item.object_id}
    key = sample_key(item.synset, item.object_id)
    sample = ViewSample(key, views, range(cfg.views), params, item.label, meta)
    return Transformed(sample, stats, psnr_sum, images=cfg.views)


def _choose_setting(cfg: SynthConfig, planned: Sequence[PlannedObject]) -> JpegSetting:
    few = SynthConfig(**{**vars(cfg), "views": min(cfg.views, _TRIED_VIEWS)})
    return choose_setting([image for item in planned[:_TRIED_OBJECTS] for image in make_object(item, few).images])


def _identity(cfg: SynthConfig, setting: JpegSetting, samples_per_shard: int) -> dict[str, Any]:
    """What SetBuilder holds two builds against each other by."""
    fingerprint = {**cfg.identity(), "samples_per_shard": samples_per_shard, "jpeg": str(setting)}
    return {
        "name": "3die-synth" + ("" if cfg.preset == "plain" else f"-{cfg.preset}") + ("-ood" if cfg.ood else ""),
        "spec": ViewSpec(cfg.views, cfg.size, cfg.size, "jpeg", THREE_DIEBENCH_PARAMS),
        "classes": cfg.class_names,
        "fingerprint": {**fingerprint, "encoder": encoder_versions()},
    }


def _provenance(cfg: SynthConfig, setting: JpegSetting, report: BuildReport) -> dict[str, Any]:
    return {
        "command": f"seqjepa-data synth 3die --shards {_options(cfg)}",
        "source": cfg.identity(),
        "channels": "red and blue swapped, as in 3DIEBench's files",
        "views": report.images,
        "jpeg": str(setting),
        "psnr_db": round(report.psnr_db or 0.0, 3),  # mean over views
        "versions": encoder_versions(),
    }


def _options(cfg: SynthConfig) -> str:
    values = {name: value for name, value in cfg.identity().items() if name not in _NO_OPTIONS}
    text = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
    return text + (" --ood" if cfg.ood else "")
