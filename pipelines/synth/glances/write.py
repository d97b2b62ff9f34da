"""Glances-Synth in STL-10's own binary format: train_X.bin, train_y.bin, test_…, unlabeled_X.bin, class_names.txt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.synth.config import check_ranges
from pipelines.synth.glances.picture import CLASS_NAMES, SPLIT_NUMBERS, draw_glance
from pipelines.synth.own_folder import OwnFolder, filled, is_there, one_opencv_thread, remove_files
from shards.machine.files import AtomicFile, write_atomic

FORMAT = "glances-synth stl10"
RENDERER = 1  # raised whenever the same numbers would give other pixels
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
        check_ranges(self, limits)

    def identity(self) -> dict[str, Any]:
        return {**asdict(self), "renderer": RENDERER}


def synth_stl10(cfg: GlancesConfig, out: Path | str, overwrite: bool = False) -> None:
    """Write the folder; killed at any moment, the same call goes on there, file by file.

    UsageError, with nothing written: a folder that holds anything else. DiskFullError. KeyboardInterrupt (also for
    SIGTERM) passes through.
    """
    folder = OwnFolder(Path(out), FORMAT, cfg.identity(), lambda: _names(cfg), remove_files(*FILES))
    with filled(folder, overwrite) as wanted, one_opencv_thread():
        if wanted:
            _write_files(folder, cfg)


def _names(cfg: GlancesConfig) -> list[str]:
    return [*(name for split in SPLIT_NUMBERS if getattr(cfg, split) for name in _split_names(split)), *FILES[-2:]]


def _split_names(split: str) -> tuple[str, ...]:
    return (f"{split}_X.bin",) if split == "unlabeled" else (f"{split}_X.bin", f"{split}_y.bin")


def _write_files(folder: OwnFolder, cfg: GlancesConfig) -> None:
    counts = {split: getattr(cfg, split) for split in SPLIT_NUMBERS}
    with tqdm(total=sum(counts.values()), unit="img", disable=None) as bar:
        for split, count in counts.items():
            if count and not all(is_there(folder.root / name) for name in _split_names(split)):
                _write_split(folder, cfg.seed, split, count, bar)
            else:
                bar.update(count)
    write_atomic(folder.root / "class_names.txt", "".join(f"{name}\n" for name in CLASS_NAMES).encode(), folder.tmp)
    write_atomic(folder.root / "fold_indices.txt", _folds(cfg).encode(), folder.tmp)


def _write_split(folder: OwnFolder, seed: int, split: str, count: int, bar: tqdm) -> None:
    labels = bytearray()
    with AtomicFile(folder.root / f"{split}_X.bin", folder.tmp) as file:
        for index in range(count):
            picture = draw_glance(seed, split, index)
            file.write(picture.pixels.transpose(2, 1, 0).tobytes())  # STL-10's order: channel, column, row
            labels.append(picture.label + 1)
            bar.update()
        if split != "unlabeled":
            write_atomic(folder.root / f"{split}_y.bin", bytes(labels), folder.tmp)


def _folds(cfg: GlancesConfig) -> str:
    """Ten lines, each the positions of a fifth of the training pictures, as in STL-10."""
    uniform = np.random.Generator(np.random.Philox(key=np.array([cfg.seed, 2**63], np.uint64))).random
    chosen = [np.sort(np.argsort(uniform(cfg.train))[: max(1, cfg.train // 5)]) for _ in range(FOLDS)]
    return "".join(" ".join(map(str, fold.tolist())) + "\n" for fold in chosen)
