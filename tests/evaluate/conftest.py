"""Shard sets and run directories that most tests of evaluation share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_backbone import narrow_mlps
from small_runs import (
    CLASSES,
    SIZE,
    TINY,
    VIEWS,
    build_images,
    run_directory,
    saccade_run_of,
    sample,
)

from seqjepa.config import RunConfig
from seqjepa.evaluate import heads
from seqjepa.training.run import DataInfo
from shards.schema import THREE_DIEBENCH_PARAMS, ViewSpec
from shards.writer import SetBuilder

__all__ = ["narrow_mlps"]


@pytest.fixture
def wide_mlps(narrow_mlps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what an MLP of 64 units does not learn."""
    monkeypatch.setattr(heads, "HIDDEN", narrow_mlps)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 24 validation objects in two shards a split, with 4 to 6 views of 16×16 pixels."""
    out, rng = tmp_path_factory.mktemp("evaluate") / "shards", np.random.default_rng(0)
    spec = ViewSpec(VIEWS, SIZE, SIZE, "jpeg", THREE_DIEBENCH_PARAMS)
    with SetBuilder(out, name="coloured-noise", spec=spec, classes=CLASSES, fingerprint={"by": "test"}) as builder:
        number = 0
        for split, count in (("train", 24), ("val", 12)):
            for shard in range(2):
                with builder.open_shard(split, shard) as writer:
                    for _ in range(count):
                        writer.add(*sample(number, rng))
                        number += 1
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="session")
def saccade_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training, 24 test and 6 unlabelled images of 40×40 pixels with maps, as STL-10 is split."""
    splits = {"train": 48, "test": 24, "unlabeled": 6}
    return build_images(tmp_path_factory.mktemp("saccades") / "shards", splits)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory as `seqjepa train` leaves it, of a model that differs from its own initial weights."""
    data = DataInfo("rotation", 4, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), SIZE, SIZE)
    return run_directory(tmp_path / "run", RunConfig(name="tiny", model=TINY), data)


@pytest.fixture
def saccade_run(tmp_path: Path) -> Path:
    """The same on patches of images."""
    return saccade_run_of(tmp_path / "saccades")
