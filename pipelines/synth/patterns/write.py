"""Patterns-Synth in CIFAR-100's own format: cifar-100-python/{train,test,meta}, pickles as Python 2 wrote them.

Protocol 2, text as byte strings, an array's bytes in one piece. Only what those files hold is written: tables of
texts, numbers, lists of them, and one array of bytes, which may come in pieces. Python 3's own pickler would spell
bytes in another way.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.synth.config import check_ranges
from pipelines.synth.own_folder import OwnFolder, filled, is_there, one_opencv_thread, remove_files
from pipelines.synth.patterns.picture import CLASSES, SHAPES, SIDE, SPLIT_NUMBERS, draw_pattern, fine_names, parts_of
from shards.machine.files import AtomicFile

FORMAT = "patterns-synth cifar100"
RENDERER = 1  # raised whenever the same numbers would give other pixels
FOLDER = "cifar-100-python"
FILES = tuple(f"{FOLDER}/{name}" for name in (*SPLIT_NUMBERS, "meta"))
ROW_BYTES = 3 * SIDE * SIDE
MOST = 500_000  # pictures of a split: a pickle of Python 2 counts an array's bytes with 31 bits
PIECE = 256  # pictures that are held at once


@dataclass(frozen=True)
class PatternsConfig:
    """How many pictures of each split, and of how many classes. UsageError: out of range.

    Picture i of a split depends on (seed, split, i, classes) alone.
    """

    seed: int = 0
    train: int = 5000
    test: int = 1000
    classes: int = CLASSES

    def __post_init__(self) -> None:
        limits = {"seed": (0, 2**63 - 1), "train": (1, MOST), "test": (1, MOST), "classes": (1, CLASSES)}
        check_ranges(self, limits)

    def identity(self) -> dict[str, Any]:
        return {**asdict(self), "renderer": RENDERER}


def synth_cifar100(cfg: PatternsConfig, out: Path | str, overwrite: bool = False) -> None:
    """Write the folder; killed at any moment, the same call goes on there, file by file.

    UsageError, with nothing written: a folder that holds anything else. DiskFullError. KeyboardInterrupt (also for
    SIGTERM) passes through.
    """
    folder = OwnFolder(Path(out), FORMAT, cfg.identity(), lambda: FILES, remove_files(*FILES))
    with filled(folder, overwrite) as wanted, one_opencv_thread():
        if not wanted:
            return
        (folder.root / FOLDER).mkdir(exist_ok=True)
        with tqdm(total=cfg.train + cfg.test, unit="img", disable=None) as bar:
            for split, count in (("train", cfg.train), ("test", cfg.test)):
                _write(folder, split, _split_table(cfg, split, count, bar))
        coarse = list(SHAPES[: min(cfg.classes, len(SHAPES))])
        meta: dict[str, Value] = {"fine_label_names": list(fine_names()[: cfg.classes]), "coarse_label_names": coarse}
        _write(folder, "meta", meta)


def _write(folder: OwnFolder, name: str, table: dict[str, Value]) -> None:
    path = folder.root / FOLDER / name
    if is_there(path):
        return
    with AtomicFile(path, folder.tmp) as file:
        for piece in python2_pickle(table):
            file.write(piece)


def _split_table(cfg: PatternsConfig, split: str, count: int, bar: tqdm) -> dict[str, Value]:
    names, fine = fine_names(), [index % cfg.classes for index in range(count)]
    return {
        "filenames": [f"{names[label]}_{index:06d}.png" for index, label in enumerate(fine)],
        "batch_label": f"{split}ing batch 1 of 1",
        "fine_labels": fine,
        "coarse_labels": [parts_of(label)[0] for label in fine],
        "data": ByteRows(count, ROW_BYTES, _rows(cfg, split, count, bar)),
    }


def _rows(cfg: PatternsConfig, split: str, count: int, bar: tqdm) -> Iterator[bytes]:
    """CIFAR's order: channel, row, column."""
    for start in range(0, count, PIECE):
        pictures = [draw_pattern(cfg.seed, split, i, cfg.classes) for i in range(start, min(start + PIECE, count))]
        yield np.stack([picture.pixels for picture in pictures]).transpose(0, 3, 1, 2).tobytes()
        bar.update(len(pictures))


BEGIN, END = b"\x80\x02", b"."
MARK, TUPLE, CALL, SET_STATE = b"(", b"t", b"R", b"b"
FALSE, NONE = b"\x89", b"N"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
DTYPE = b"cnumpy\ndtype\n("


@dataclass(frozen=True)
class ByteRows:
    """uint8 [count, width], row by row: `rows` yields bytes of one or more rows."""

    count: int
    width: int
    rows: Iterable[bytes]


Value = str | int | list[str] | list[int] | ByteRows


def python2_pickle(table: dict[str, Value]) -> Iterator[bytes]:
    """The file, in pieces. ValueError: rows that are not `count` times `width` bytes."""
    yield BEGIN + b"}" + MARK
    for key, value in table.items():
        yield _scalar(key)
        if isinstance(value, ByteRows):
            yield from _array(value)
        elif isinstance(value, list):
            yield b"]" + MARK + b"".join(map(_scalar, value)) + b"e"
        else:
            yield _scalar(value)
    yield b"u" + END


def _scalar(value: str | int) -> bytes:
    if isinstance(value, int):
        return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)
    data = value.encode()
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _array(value: ByteRows) -> Iterator[bytes]:
    empty = MARK + _scalar(0) + TUPLE
    yield ARRAY + empty + _scalar("b") + TUPLE + CALL
    dtype = DTYPE + _scalar("u1") + _scalar(0) + _scalar(1) + TUPLE + CALL
    order = MARK + _scalar(3) + _scalar("|") + 3 * NONE + _scalar(-1) + _scalar(-1) + _scalar(0) + TUPLE
    shape = MARK + _scalar(value.count) + _scalar(value.width) + TUPLE
    length = value.count * value.width
    yield MARK + _scalar(1) + shape + dtype + order + SET_STATE + FALSE + b"T" + struct.pack("<i", length)
    written = 0
    for rows in value.rows:
        written += len(rows)
        yield rows
    if written != length:
        raise ValueError(f"{written} bytes of rows, {length} were announced")
    yield TUPLE + SET_STATE
