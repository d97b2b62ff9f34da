"""3DIE-Synth in 3DIEBench's own layout: `<synset>/<object>/image_k.jpg`, `latent_k.npy`, and the split lists."""

from __future__ import annotations

import io
import logging
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.build.encode import JpegSetting, encode_jpeg
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.synth.config import SynthConfig, check_config
from pipelines.synth.objects import PlannedObject, make_object, plan_objects, synset_id, work_through
from pipelines.synth.own_folder import OwnFolder
from shards.files import disk_full_named, write_atomic

log = logging.getLogger(__name__)

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
    if folder.is_finished(overwrite):
        log.info("%s is finished already", out)
        return
    advice = "finished objects are kept; free some and run the same command again"
    with sigterm_as_interrupt(), disk_full_named(folder.root, lambda: advice), folder.claimed(overwrite):
        planned = plan_objects(cfg)
        _write_objects(folder, cfg, planned)
        _write_lists(folder, cfg, planned)
        os.sync()  # one for all: a sync per image would take longer than rendering it


def tree_folder(cfg: SynthConfig, root: Path) -> OwnFolder:
    """The folder of the tree, whose synth.json also names the classes."""
    classes = {synset_id(label): name for label, name in enumerate(cfg.class_names)}
    return OwnFolder(root, FORMAT, cfg.identity(), remove_tree, {"classes": classes})


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
    todo = [item for item in planned if not _is_whole(folder.root / item.synset / item.object_id, cfg.views)]
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
        files[f"latent_{k}.npy"] = _npy(latent)
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


def _is_whole(folder: Path, views: int) -> bool:
    """Kills leave no half-written object under its final name; a power cut may leave empty files."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        sizes = {entry.name: entry.stat().st_size for entry in entries}
    names = [name for k in range(views) for name in (f"image_{k}.jpg", f"latent_{k}.npy")]
    return all(sizes.get(name) for name in names)


def _write_lists(folder: OwnFolder, cfg: SynthConfig, planned: list[PlannedObject]) -> None:
    for split in ("val",) if cfg.ood else ("train", "val"):
        chosen = [item for item in planned if item.split == split]
        paths = np.array([f"/{item.synset}/{item.object_id}/" for item in chosen], dtype="<U43")
        labels = np.array([item.label for item in chosen], dtype=np.int64)
        write_atomic(folder.root / f"{split}_images.npy", _npy(paths), folder.tmp)
        write_atomic(folder.root / f"{split}_labels.npy", _npy(labels), folder.tmp)


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
