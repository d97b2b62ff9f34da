"""Saliency, image and maps sets as the reader gives them back, and what `info` says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shard_sets import FLAVOURS, IMAGES, PLAN, VIEWS, build, map_of, map_size, sample_of

from shards.describe import describe_set, summarise
from shards.errors import ConfigError, DamageError, FormatError
from shards.pixels import npy_bytes
from shards.reader import ShardSet
from shards.reading.split_index import ImageIndex


@pytest.fixture(scope="module", params=IMAGES)
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp(request.param) / "set"
    build(folder, request.param)
    return ShardSet.open(folder)


def flavour_of(shards: ShardSet) -> str:
    return next(name for name, spec in FLAVOURS.items() if spec == shards.info.spec)


def test_every_value_comes_back(shards: ShardSet) -> None:
    flavour = flavour_of(shards)
    for split in shards.splits:
        index = shards.images(split)
        assert len(index) == 3 * PLAN[split]
        for row in range(len(index)):
            sample, pixels = sample_of(split, row // 3, row % 3, flavour)
            assert (index.keys[row], index.labels[row], index.shard[row]) == (sample.key, sample.label, row // 3)
            assert {name: values[row] for name, values in index.meta.items()} == sample.meta
            if index.encoding != "none":
                assert index.read_bytes(row, index.image_member) == sample.image
                np.testing.assert_allclose(index.read_image(row).astype(int), pixels[0], atol=12)
            if index.saliency != "none":
                check_map(index, row, split)
                assert tuple(index.read_bytes(row, member) for member in index.map_members) == sample.saliency


def check_map(index: ImageIndex, row: int, split: str) -> None:
    size = map_size(row % 3) if index.encoding == "none" else (8, 12)
    found, expected = index.read_map(row), map_of(split, row // 3, row % 3, size)
    assert (found.dtype, found.shape, tuple(index.sizes[row])) == (np.float32, size, size)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(found, expected, rtol=6e-4 if index.saliency == "float16" else 0.02)


def test_array_types_are_the_documented_ones(shards: ShardSet) -> None:
    index, count = shards.images("val"), len(shards.info.spec.suffixes())
    names = ("shard", "labels", "offsets", "lengths", "sizes")
    types = [(getattr(index, name).dtype.name, getattr(index, name).shape) for name in names]
    members = [("int64", (6, count)), ("int32", (6, count))]
    assert types == [("int32", (6,)), ("int64", (6,)), *members, ("int32", (6, 2))]
    assert (index.height, index.width) == ((0, 0) if shards.info.kind == "maps" else (8, 12))


def test_what_a_set_does_not_have_is_named(shards: ShardSet) -> None:
    index = shards.images("val")
    with pytest.raises(ConfigError, match=f"holds {shards.info.kind} shards, this needs views shards"):
        shards.split("val")
    with pytest.raises(ConfigError, match="no split 'test'"):
        shards.images("test")
    if index.saliency == "none":
        with pytest.raises(ConfigError, match="images without saliency maps"):
            index.read_map(0)
    if index.encoding == "none":
        with pytest.raises(ConfigError, match="maps without their images"):
            index.read_image(0)


@pytest.mark.parametrize("flavour", VIEWS)
def test_views_are_not_images(tmp_path: Path, flavour: str) -> None:
    build(tmp_path, flavour)
    shards = ShardSet.open(tmp_path)
    with pytest.raises(ConfigError, match="holds views shards, this needs saliency, image or maps shards"):
        shards.images("val")
    assert shards.split("val").sequence == (2 if flavour == "sequence" else 0)


def test_kinds_follow_from_the_spec() -> None:
    kinds = ["views"] * 6 + ["saliency"] * 2 + ["image"] * 2 + ["maps"] * 2
    assert [spec.kind for spec in FLAVOURS.values()] == kinds


@pytest.mark.parametrize("flavour", ["saliency-raw", "maps-float16"])
def test_a_map_damaged_after_opening_is_one_line(tmp_path: Path, flavour: str) -> None:
    build(tmp_path, flavour)
    index = ShardSet.open(tmp_path).images("val")
    shard, whole = index.shard_paths[0], index.shard_paths[0].read_bytes()
    size, start = tuple(index.sizes[0]), int(index.offsets[0, index.map_member])
    other = np.ones(size[::-1], np.float16) if size[0] != size[1] else np.ones((1, size[0] ** 2), np.float16)
    bad = {
        "a map with NaN": np.full(size, np.nan, np.float16),
        "a map with zero mass": np.zeros(size, np.float16),
        "a map of another size than its image": other,
    }
    for found, values in bad.items():
        data = npy_bytes(values)
        shard.write_bytes(whole[:start] + data + whole[start + len(data) :])
        with pytest.raises(FormatError, match=f"map of sample 'val_0-0' in val-000000.tar: {found}") as error:
            index.read_map(0)
        assert "\n" not in str(error.value)
    shard.write_bytes(whole[: start + 10])
    with pytest.raises(DamageError, match="ends inside sample 'val_0-0'"):
        index.read_map(0)


@pytest.mark.parametrize("flavour", ["saliency-raw", "image-jpeg"])
def test_an_image_damaged_after_opening_is_one_line(tmp_path: Path, flavour: str) -> None:
    build(tmp_path, flavour)
    index = ShardSet.open(tmp_path).images("val")
    data = bytearray(index.shard_paths[0].read_bytes())
    start = int(index.offsets[0, 0])
    data[start : start + 100] = bytes(100)
    index.shard_paths[0].write_bytes(data)
    with pytest.raises(DamageError, match=r"image of sample 'val_0-0' in val-000000\.tar does not decode"):
        index.read_image(0)


def test_description(shards: ShardSet) -> None:
    found, flavour = describe_set(shards.path), flavour_of(shards)
    assert found["bytes_total"] == sum(p.stat().st_size for p in shards.path.rglob("*") if p.is_file())
    assert found["kind"] == shards.info.kind
    assert ("normalisation" in found) == ("psnr_db" in found) == (found["kind"] != "maps")
    assert found["splits"]["train"]["samples"] == 9
    expected = {
        "saliency-raw": ["  images  12×8 raw", "  maps    float16", "416 B an image, 320 B a map"],
        "saliency-jpeg": ["  images  12×8 jpeg", "  maps    log8", "an image, 360 B a map"],
        "image-raw": ["  images  12×8 raw", "416 B an image"],
        "image-jpeg": ["  images  12×8 jpeg", "B an image"],
        "maps-float16": ["  maps    float16", "9 samples of 7–9 × 5–7 in 3 shards"],
        "maps-log8": ["  maps    log8", "9 samples of 7–9 × 5–7 in 3 shards"],
    }
    for part in expected[flavour]:
        assert part in summarise(found)
    assert ("  maps " in summarise(found)) == (shards.images("val").saliency != "none")
