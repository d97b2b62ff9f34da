from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqjepa.data.sampling import BY_SAMPLE, part_of
from shards.reader import ImageIndex, ShardSet, SplitIndex
from shards.sample import ImageSample, encode_raw
from shards.schema import ImageSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder


@pytest.fixture
def images(tmp_path: Path) -> ImageIndex:
    """Twenty images in two shards, image k of grey value k."""
    with SetBuilder(
        tmp_path / "images", name="grey", spec=ImageSpec(4, 4, "raw", "none"), classes=("a",), fingerprint={}
    ) as builder:
        for shard in range(2):
            with builder.open_shard("train", shard) as writer:
                for number in range(10 * shard, 10 * shard + 10):
                    pixels = np.full((4, 4, 3), number, np.uint8)
                    sample = ImageSample(f"i{number:02d}", encode_raw(pixels), (), 0, {"place": number})
                    writer.add(sample, PixelStats.of(pixels[None]))
        builder.finish({"command": "test"})
    return ShardSet.open(tmp_path / "images").images("train")


def test_what_a_kept_sample_is_read_as_is_what_it_was(build_index, images: ImageIndex) -> None:
    part = part_of(images, 0.5, seed=3)
    assert len(part) == 10
    for row, key in enumerate(part.keys):
        number = int(key[1:])
        assert (part.read_image(row) == number).all()
        assert part.meta["place"][row] == number
    whole: SplitIndex = build_index()
    views = part_of(whole, 0.3, seed=0)
    assert len(views) == 7
    for row, key in enumerate(views.keys):
        place = whole.keys.index(key)
        assert views.labels[row] == whole.labels[place]
        np.testing.assert_array_equal(views.params[row], whole.params[place])
        np.testing.assert_array_equal(views.read_view(row, 2), whole.read_view(place, 2))


def test_the_seed_decides_and_smaller_parts_lie_in_larger_ones(images: ImageIndex) -> None:
    assert part_of(images, 0.5, 1).keys == part_of(images, 0.5, 1).keys
    assert part_of(images, 0.5, 1).keys != part_of(images, 0.5, 2).keys
    assert set(part_of(images, 0.2, 1).keys) < set(part_of(images, 0.6, 1).keys)
    assert part_of(images, 0.6, 1).keys == sorted(part_of(images, 0.6, 1).keys)
    assert part_of(images, 0.001, 1).keys == part_of(images, 0.05, 1).keys  # never none


def test_every_seed_takes_every_sample_equally_often(images: ImageIndex) -> None:
    taken = np.zeros(20)
    for seed in range(400):
        taken[[int(key[1:]) for key in part_of(images, 0.25, seed).keys]] += 1
    # 400 draws with probability 1/4: mean 100, standard deviation 8.7
    assert np.abs(taken - 100).max() < 5 * 8.7


def test_all_of_it_is_the_split_itself_and_a_part_has_a_fingerprint_of_its_own(images: ImageIndex) -> None:
    assert part_of(images, 1.0, 5) is images
    prints = {part_of(images, f, s).fingerprint() for f, s in ((1.0, 1), (0.5, 1), (0.5, 2), (0.6, 1))}
    assert len(prints) == 4


@pytest.mark.parametrize("kind", [SplitIndex, ImageIndex])
def test_no_array_with_a_row_for_each_sample_is_forgotten(kind, build_index, images: ImageIndex) -> None:
    index = images if kind is ImageIndex else build_index(samples=23)
    arrays = {name for name, value in vars(index).items() if isinstance(value, np.ndarray)}
    assert set(BY_SAMPLE[kind]) == arrays
