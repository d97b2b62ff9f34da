"""3DIE-Synth in 3DIEBench's own layout: `<synset>/<object>/image_k.jpg`, `latent_k.npy`, and the split lists.

Or straight into a shard set, without the tree and its generation of JPEGs in between.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.build.encode import JpegSetting, choose_setting, encode_image, encode_jpeg, encoder_versions
from pipelines.build.fill import Results, Transformed
from pipelines.build.plan import PlannedShard, plan_shards
from pipelines.build.run_build import BuildReport, Prepared, run_build
from pipelines.sources.keys import sample_key
from pipelines.synth.config import SynthConfig, check_config
from pipelines.synth.objects import PlannedObject, make_object, plan_objects, synset_id, work_through
from pipelines.synth.own_folder import OwnFolder, filled, is_there
from shards.describe import command_line
from shards.errors import UsageError
from shards.machine.files import write_atomic
from shards.pixels import npy_bytes
from shards.sample import ViewSample
from shards.schema import THREE_DIEBENCH_PARAMS, DatasetInfo, ViewSpec
from shards.stats import PixelStats

SETTING = JpegSetting("444", 95)
FORMAT = "3die-synth tree"
MOST_FAMILIES = 10_000  # far more than there are
LISTS = tuple(f"{split}_{kind}.npy" for split in ("train", "val") for kind in ("images", "labels"))
_OBJECT_FILE = re.compile(r"(image_\d{1,4}\.jpg)|(latent_\d{1,4}\.npy)")


def synth_tree(cfg: SynthConfig, out: Path | str, overwrite: bool = False) -> None:
    """Write the tree; killed at any moment, the same call goes on there, object by object.

    `train_images.npy` and `val_images.npy` hold "/<synset>/<object>/" ('<U43'), the labels (int64) lie beside them.
    An out-of-distribution tree has the validation objects and lists only. Images are JPEGs of quality 95 without chroma
    subsampling; red and blue are swapped as in 3DIEBench. `synth.json` says what the tree is.

    Raises UsageError for a bad configuration or a folder that holds anything else, before anything is written;
    DiskFullError when the disk is full. KeyboardInterrupt (also for SIGTERM) passes through.
    """
    check_config(cfg)
    folder = tree_folder(cfg, Path(out))
    with filled(folder, overwrite) as wanted:
        if not wanted:
            return
        planned = plan_objects(cfg)
        _write_objects(folder, cfg, planned)
        _write_lists(folder, cfg, planned)
        os.sync()  # one for all: a sync per image would take longer than rendering it


def tree_folder(cfg: SynthConfig, root: Path) -> OwnFolder:
    """The folder of the tree, whose synth.json also names the classes."""
    classes = {synset_id(label): name for label, name in enumerate(cfg.class_names)}
    return OwnFolder(root, FORMAT, cfg.identity(), lambda: _names(cfg), remove_tree, {"classes": classes})


def _names(cfg: SynthConfig) -> Iterator[str]:
    yield from LISTS[2:] if cfg.ood else LISTS
    for item in plan_objects(cfg):
        yield from (f"{item.synset}/{item.object_id}/{name}" for name in _object_names(cfg.views))


def _object_names(views: int) -> list[str]:
    return [name for k in range(views) for name in (f"image_{k}.jpg", f"latent_{k}.npy")]


def remove_tree(root: Path, config: dict[str, Any]) -> None:
    """Deletes the tree that `config` describes: lists and object folders by their names, nothing else.

    ValueError: no tree is made from `config`.
    """
    seed, families = config.get("seed", 0), config.get("families", 0)
    if not (type(seed) is int is type(families) and 0 <= seed < 2**64 and 0 <= families <= MOST_FAMILIES):
        raise ValueError(f"seed {seed}, {families} families")
    ours = re.compile(f"{seed:016x}[0-9a-f]{{16}}")
    for name in LISTS:
        (root / name).unlink(missing_ok=True)
    for synset in (root / synset_id(label) for label in range(families)):
        if synset.is_dir() and not synset.is_symlink():
            for folder in synset.iterdir():
                if ours.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                    _remove_object(folder)
            _remove_if_empty(synset)


def _remove_object(folder: Path) -> None:
    for path in folder.iterdir():
        if _OBJECT_FILE.fullmatch(path.name):
            path.unlink()
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if not any(folder.iterdir()):
        folder.rmdir()


def _write_objects(folder: OwnFolder, cfg: SynthConfig, planned: list[PlannedObject]) -> None:
    names = _object_names(cfg.views)
    whole = [all(is_there(folder.root / item.synset / item.object_id / name) for name in names) for item in planned]
    todo = [item for item, done in zip(planned, whole, strict=True) if not done]
    total, before = len(planned) * cfg.views, (len(planned) - len(todo)) * cfg.views
    with tqdm(total=total, initial=before, unit="img", disable=None) as bar:
        for item, files in work_through(partial(object_files, cfg=cfg), todo, cfg):
            _write_object(folder, item, files)
            bar.update(cfg.views)


def object_files(item: PlannedObject, cfg: SynthConfig) -> dict[str, bytes]:
    """File names and contents of one object's folder."""
    made = make_object(item, cfg)
    files = {}
    for k, (image, latent) in enumerate(zip(made.images, made.latents, strict=True)):
        files[f"image_{k}.jpg"] = encode_jpeg(image, SETTING)
        files[f"latent_{k}.npy"] = npy_bytes(latent)
    return files


def _write_object(folder: OwnFolder, item: PlannedObject, files: dict[str, bytes]) -> None:
    """Under a temporary name first: a folder with its final name is whole."""
    unfinished, final = folder.tmp / item.object_id, folder.root / item.synset / item.object_id
    unfinished.mkdir()
    for name, content in files.items():
        (unfinished / name).write_bytes(content)
    final.parent.mkdir(exist_ok=True)
    if final.exists():  # not whole: a power cut, or a hand; what does not belong there makes this fail
        for name in files:
            (final / name).unlink(missing_ok=True)
        final.rmdir()
    unfinished.rename(final)


def _write_lists(folder: OwnFolder, cfg: SynthConfig, planned: list[PlannedObject]) -> None:
    for split in ("val",) if cfg.ood else ("train", "val"):
        chosen = [item for item in planned if item.split == split]
        paths = np.array([f"/{item.synset}/{item.object_id}/" for item in chosen], dtype="<U43")
        labels = np.array([item.label for item in chosen], dtype=np.int64)
        write_atomic(folder.root / f"{split}_images.npy", npy_bytes(paths), folder.tmp)
        write_atomic(folder.root / f"{split}_labels.npy", npy_bytes(labels), folder.tmp)


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
    few = SynthConfig(**{**vars(cfg), "views": min(cfg.views, _TRIED_VIEWS)})
    tried = [image for item in planned[:_TRIED_OBJECTS] for image in make_object(item, few).images]
    setting = choose_setting(tried)
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
    values = {name: value for name, value in cfg.identity().items() if name not in _NO_OPTIONS}
    options = {"shards": True, **values, "ood": cfg.ood or None}
    return {
        "command": command_line("synth", "3die", options),
        "source": cfg.identity(),
        "channels": "red and blue swapped, as in 3DIEBench's files",
        "views": report.images,
        "jpeg": str(setting),
        "psnr_db": round(report.psnr_db or 0.0, 3),  # mean over views
        "versions": encoder_versions(),
    }
