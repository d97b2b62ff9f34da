"""A set's rows as other people's readers give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shard_sets import PLAN

from shards.reader import ShardSet


def webdataset_rows(shards: ShardSet, split: str) -> list[dict[str, Any]]:
    webdataset = pytest.importorskip("webdataset")
    names = f"{shards.path}/{split}-{{000000..{PLAN[split] - 1:06d}}}.tar"
    return list(webdataset.WebDataset(names, shardshuffle=False).decode("rgb8"))


def hugging_face_splits(shards: ShardSet, cache: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """All splits as `datasets` loads them."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(str(shards.path), cache_dir=str(cache))
    assert set(loaded) == set(PLAN)
    return loaded
