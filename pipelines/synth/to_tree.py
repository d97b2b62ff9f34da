"""3DIE-Synth in 3DIEBench's own layout: `<synset>/<object>/image_k.jpg`, `latent_k.npy`, and the split lists."""

from __future__ import annotations

import io
import logging
import os
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pipelines.build.encode import JpegSetting, encode_jpeg
from pipelines.build.pool import sigterm_as_interrupt
from pipelines.synth.config import SynthConfig, check
from pipelines.synth.objects import PlannedObject, make_object, plan_objects, work_through
from pipelines.synth.own_folder import TreeFolder
from shards.files import disk_full_named, write_atomic

log = logging.getLogger(__name__)

SETTING = JpegSetting("444", 95)


def synth_tree(cfg: SynthConfig, out: Path | str, overwrite: bool = False) -> None:
    """Write the tree; killed at any moment, the same call goes on there, object by object.

    `train_images.npy` and `val_images.npy` hold "/<synset>/<object>/" ('<U43'), the labels (int64) lie beside them.
    An out-of-distribution tree has the validation objects and lists only. Images are JPEGs of quality 95 without chroma
    subsampling; red and blue are swapped as in 3DIEBench. `synth.json` says what the tree is.

    Raises UsageError for a bad configuration or a folder that holds anything else, before anything is written;
    DiskFullError when the disk is full. KeyboardInterrupt (also for SIGTERM) passes through.
    """
    check(cfg)
    folder = TreeFolder(Path(out))
    lock = folder.claim(cfg.identity(), overwrite)
    if lock is None:
        log.info("%s is finished already", out)
        return
    finished = False
    try:
        with sigterm_as_interrupt(), disk_full_named(folder.root, _advice):
            planned = plan_objects(cfg)
            _write_objects(folder, cfg, planned)
            _write_lists(folder, cfg, planned)
            os.sync()  # one for all: a sync per image would take longer than rendering it
            folder.mark(cfg.identity(), finished=True)
        finished = True
    finally:
        folder.release(lock, finished)


def _advice() -> str:
    return "finished objects are kept; free some and run the same command again"


def _write_objects(folder: TreeFolder, cfg: SynthConfig, planned: list[PlannedObject]) -> None:
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


def _write_object(folder: TreeFolder, item: PlannedObject, files: dict[str, bytes]) -> None:
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


def _write_lists(folder: TreeFolder, cfg: SynthConfig, planned: list[PlannedObject]) -> None:
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
