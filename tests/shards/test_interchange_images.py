"""Saliency, image and maps sets open, unchanged, in other people's readers."""

from __future__ import annotations

import gc
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from foreign_readers import hugging_face_splits, webdataset_rows
from shard_sets import IMAGES, PLAN, build

from shards.reader import ShardSet
from shards.reading.split_index import ImageIndex


@pytest.fixture(scope="module", params=IMAGES)
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp(request.param) / "set"
    build(folder, request.param)
    return ShardSet.open(folder)


def check_row(index: ImageIndex, row: int, found: dict) -> None:
    if index.encoding != "none":
        image = np.asarray(found["npy" if index.encoding == "raw" else "jpg"], int)
        np.testing.assert_allclose(image, index.read_image(row), atol=2 if index.encoding == "jpeg" else 0)
    if index.saliency != "none":
        density = as_the_card_says(np.asarray(found["sal.npy"]), found.get("salrange.npy"))
        np.testing.assert_allclose(density, index.read_map(row), rtol=1e-4)
    assert found["cls"] == index.labels[row]
    assert found["json"]["synset"] == index.meta["synset"][row]
    if index.encoding == "none":
        assert (found["json"]["height"], found["json"]["width"]) == tuple(index.sizes[row])


def as_the_card_says(stored: np.ndarray, limits: list[float] | np.ndarray | None) -> np.ndarray:
    """The formulas on the data card: what a reader without this package would write."""
    values = stored.astype(np.float64)
    if limits is not None:
        low, high = limits
        values = np.exp(low + values / 255 * (high - low))
    return values / values.sum()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
@pytest.mark.parametrize("split", PLAN)
def test_webdataset(shards: ShardSet, split: str) -> None:
    index, rows = shards.images(split), webdataset_rows(shards, split)
    assert [row["__key__"] for row in rows] == index.keys
    for number, row in enumerate(rows):
        check_row(index, number, row)
    gc.collect()


def test_hugging_face_datasets(shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, rows in hugging_face_splits(shards, tmp_path, monkeypatch).items():
        index = shards.images(split)
        assert rows["__key__"][:] == index.keys
        for number, row in enumerate(rows):
            check_row(index, number, row)


def test_plain_python(shards: ShardSet) -> None:
    """The standard library and numpy: names, order and contents of the first sample's members."""
    index = shards.images("train")
    with tarfile.open(index.shard_paths[0]) as tar:
        data = {member.name: tar.extractfile(member).read() for member in tar}
    names = [f"{index.keys[0]}{suffix}" for suffix in shards.info.spec.suffixes()]
    assert list(data)[: len(names)] == names
    for member, name in enumerate(names):
        assert index.read_bytes(0, member) == data[name]
        if name.endswith(".npy"):
            assert np.load(io.BytesIO(data[name]), allow_pickle=False).size


def test_the_card_says_what_is_in_the_set(shards: ShardSet) -> None:
    card = (shards.path / "README.md").read_text()
    for suffix in shards.info.spec.suffixes():
        assert f"`KEY{suffix}`" in card
    assert ("Normalisation" in card) == (shards.info.kind != "maps")
    assert "{" not in card.split("```")[0]
