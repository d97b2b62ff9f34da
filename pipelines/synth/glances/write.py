"""Glances-Synth in STL-10's own binary format: train_X.bin, train_y.bin, test_…, unlabeled_X.bin, class_names.txt.

The folder is ours if it has `synth.json`, which says what it is made from and, at the end, that it is finished.
"""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from pipelines.pool import sigterm_as_interrupt
from pipelines.synth.glances.picture import CLASS_NAMES, SPLIT_NUMBERS, draw
from shards.errors import UsageError
from shards.files import AtomicFile, disk_full_named, write_atomic
from shards.lock import FolderLock

log = logging.getLogger(__name__)

FORMAT = "glances-synth stl10"
RENDERER = 1  # raised whenever the same numbers would give other pixels
MARKER, WORK = "synth.json", ".synth"
FILES = (*(f"{split}_{part}.bin" for split in SPLIT_NUMBERS for part in "Xy"), "class_names.txt", "fold_indices.txt")
FOLDS = 10
MOST = 10_000_000


@dataclass(frozen=True)
class GlancesConfig:
    """How many pictures of each split. Picture i of a split depends on (seed, split, i) alone. UsageError: not that."""

    seed: int = 0
    train: int = 1000
    test: int = 500
    unlabeled: int = 4000

    def __post_init__(self) -> None:
        limits = {"seed": (0, 2**63 - 1), "train": (1, MOST), "test": (0, MOST), "unlabeled": (0, MOST)}
        for name, (low, high) in limits.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise UsageError(f"--{name} {value} is out of range; allowed are {low} to {high}")

    def identity(self) -> dict[str, Any]:
        return {**asdict(self), "renderer": RENDERER}


def synth_stl10(cfg: GlancesConfig, out: Path | str, overwrite: bool = False) -> None:
    """Write the folder; killed at any moment, the same call goes on there, file by file.

    UsageError, with nothing written: a folder that holds anything else. DiskFullError. KeyboardInterrupt (also for
    SIGTERM) passes through.
    """
    root = Path(out)
    if _look(root, cfg, overwrite):
        log.info("%s is finished already", root)
        return
    with _claimed(root), disk_full_named(root, lambda: "finished files are kept; free some and run it again"):
        _look(root, cfg, overwrite)  # it may have changed while we waited for the lock
        if overwrite and (root / MARKER).exists():
            _clear(root)
        _mark(root, cfg.identity(), finished=False)
        with sigterm_as_interrupt(), _one_thread():
            _write_files(root, cfg)
        _mark(root, cfg.identity(), finished=True)


def _look(root: Path, cfg: GlancesConfig, overwrite: bool) -> bool:
    """Whether the very set is there and finished. UsageError: the folder holds anything else."""
    if not root.exists():
        return False
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; choose another --out")
    if not (root / MARKER).is_file():
        if any(path.name != WORK for path in root.iterdir()):
            raise UsageError(f"{root} is not empty and was not made by this command; choose another --out")
        return False
    record = _read_marker(root / MARKER)
    if record["config"] != cfg.identity() and not overwrite:
        raise UsageError(f"{root} holds other pictures ({record['config']}); choose another --out, or give --overwrite")
    return record["finished"] is True and not overwrite


def _read_marker(path: Path) -> dict[str, Any]:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        record = json.loads(path.read_bytes())
        if record["format"] == FORMAT and isinstance(record["config"], dict) and "finished" in record:
            return record
    raise UsageError(f"{path} was not written by this command; choose another --out")


@contextlib.contextmanager
def _claimed(root: Path):
    """Holds the folder's lock; what lies in `.synth` is ours, and gone at the end."""
    work = root / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write to {root}: {error.strerror}") from error
    lock = FolderLock(work / "lock")
    try:
        yield
    finally:
        for name in (*FILES, MARKER):
            (work / name).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):
            work.rmdir()


def _clear(root: Path) -> None:
    """Removes what an earlier run wrote; killed meanwhile, the folder is that run's still, and unfinished."""
    _mark(root, _read_marker(root / MARKER)["config"], finished=False)
    for name in FILES:
        (root / name).unlink(missing_ok=True)


def _mark(root: Path, config: dict[str, Any], finished: bool) -> None:
    record = {"format": FORMAT, "finished": finished, "config": config}
    write_atomic(root / MARKER, json.dumps(record, indent=1).encode(), root / WORK)


def _write_files(root: Path, cfg: GlancesConfig) -> None:
    counts = {split: getattr(cfg, split) for split in SPLIT_NUMBERS}
    with tqdm(total=sum(counts.values()), unit="img", disable=None) as bar:
        for split, count in counts.items():
            if count and not (root / f"{split}_X.bin").exists():
                _write_split(root, cfg.seed, split, count, bar)
            else:
                bar.update(count)
    write_atomic(root / "class_names.txt", "".join(f"{name}\n" for name in CLASS_NAMES).encode(), root / WORK)
    write_atomic(root / "fold_indices.txt", _folds(cfg).encode(), root / WORK)


def _write_split(root: Path, seed: int, split: str, count: int, bar: tqdm) -> None:
    """Labels first: a split is whole when its images are there."""
    labels = bytearray()
    file = AtomicFile(root / f"{split}_X.bin", root / WORK)
    try:
        for index in range(count):
            picture = draw(seed, split, index)
            file.write(picture.pixels.transpose(2, 1, 0).tobytes())  # STL-10's order: channel, column, row
            labels.append(picture.label + 1)
            bar.update()
        if split != "unlabeled":
            write_atomic(root / f"{split}_y.bin", bytes(labels), root / WORK)
        file.publish()
    except BaseException:
        file.discard()
        raise


def _folds(cfg: GlancesConfig) -> str:
    """Ten lines, each the positions of a fifth of the training pictures, as in STL-10."""
    uniform = np.random.Generator(np.random.Philox(key=np.array([cfg.seed, 2**63], np.uint64))).random
    chosen = [np.sort(np.argsort(uniform(cfg.train))[: max(1, cfg.train // 5)]) for _ in range(FOLDS)]
    return "".join(" ".join(map(str, fold.tolist())) + "\n" for fold in chosen)


@contextlib.contextmanager
def _one_thread():
    """OpenCV's threads cost more than they give on pictures this small."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
