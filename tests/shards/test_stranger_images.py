"""Saliency, image and maps sets from strangers: every field, size and header is checked before it is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from shard_sets import FLAVOURS, build
from tampering import at, edit, one_line_refusal, parquet, put, put_index, replace_in_tar, rewrite

from shards.errors import FormatError, SeqJepaError
from shards.pixels import npy_bytes
from shards.reader import ShardSet
from shards.verify import verify


@pytest.mark.parametrize(
    ("flavour", "change", "found"),
    [
        (
            "saliency-raw",
            put("spec", "saliency", value="pickle"),
            "saliency 'pickle' is unknown, allowed: none, float16",
        ),
        ("saliency-raw", put("spec", "saliency", value=["log8"]), "is unknown, allowed"),
        ("saliency-raw", put("spec", "saliency", value="none"), "kind is 'saliency', but the spec is that of 'image'"),
        ("image-raw", put("kind", value="saliency"), "kind is 'saliency', but the spec is that of 'image'"),
        ("image-raw", put("kind", value="maps"), "storage None is unknown"),
        ("image-raw", put("kind", value=["image"]), r"kind \['image'\] is unknown"),
        ("image-raw", put("spec", "height", value=10**9), "height is 1000000000, allowed are 1 to 8192"),
        ("image-raw", put("spec", "width", value=0.5), "width must be a int"),
        ("image-raw", put("normalisation", value={}), "mean must be a list"),
        ("maps-log8", put("spec", "storage", value="linear8"), "storage 'linear8' is unknown, allowed: float16, log8"),
        ("maps-log8", put("spec", value=[]), "spec must be a dict"),
        ("sequence", put("spec", "sequence", value=3), "sequence is 3, which does not divide the 4 views"),
        ("sequence", put("spec", "sequence", value=-2), "sequence is -2, allowed are 0 to 4"),
        ("sequence", put("spec", "sequence", value="2"), "sequence must be a int"),
    ],
)
def test_dataset_json_is_checked_field_by_field(tmp_path: Path, flavour: str, change: Callable, found: str) -> None:
    build(tmp_path, flavour)
    rewrite(tmp_path, change)
    for reading in (ShardSet.open, verify):
        with pytest.raises(FormatError, match=found) as error:
            reading(tmp_path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("flavour", "column", "change", "found"),
    [
        ("saliency-raw", "lengths", at(4, 1, 319), "'train_1-1' has a map of another size than its image"),
        ("saliency-jpeg", "lengths", at(4, 1, 2**31 - 1), "a map of another size than its image"),
        ("saliency-jpeg", "lengths", at(0, 2, 137), "a map of another size than its image"),
        ("saliency-raw", "lengths", at(0, 0, 417), "an image of an impossible length"),
        ("saliency-raw", "lengths", at(0, 2, 0), "a member of an impossible length"),
        ("image-jpeg", "lengths", at(0, 0, -5), "a member of an impossible length"),
        ("image-jpeg", "offsets", at(2, 0, 2**62), "a member that is not where the one before it ends"),
        ("image-jpeg", "label", at(2, 0, 7), "a label without a class"),
        ("maps-float16", "height", at(1, 0, 0), "'train_0-1' has a height or width that is not 1 to 8192"),
        ("maps-float16", "width", at(1, 0, 2**31 - 1), "a height or width that is not 1 to 8192"),
        ("maps-log8", "height", at(1, 0, -6), "a height or width that is not 1 to 8192"),
        ("maps-log8", "width", at(1, 0, 9), "a map that is not of its height and width"),
        ("maps-float16", "lengths", at(1, 0, 130), "a map that is not of its height and width"),
        ("sequence", "n_views", at(0, 0, 1), "an impossible number of views"),
    ],
)
def test_an_index_cannot_point_elsewhere(
    tmp_path: Path, flavour: str, column: str, change: Callable, found: str
) -> None:
    build(tmp_path, flavour)
    table = pq.read_table(tmp_path / "_meta" / "index-train.parquet")
    put_index(tmp_path, parquet(edit(table, column, change)))
    one_line_refusal(tmp_path, found)


@pytest.mark.parametrize("flavour", [name for name in FLAVOURS if name not in ("raw", "jpeg", "features")])
def test_an_index_of_another_kind_is_refused(tmp_path: Path, flavour: str) -> None:
    build(tmp_path / "set", flavour)
    build(tmp_path / "other", "raw")
    put_index(tmp_path / "set", (tmp_path / "other" / "_meta" / "index-train.parquet").read_bytes())
    one_line_refusal(tmp_path / "set", "has columns|: column")


@pytest.mark.parametrize("flavour", ["saliency-raw", "saliency-jpeg", "maps-float16", "maps-log8"])
def test_a_map_whose_header_says_another_size_is_found(tmp_path: Path, flavour: str) -> None:
    """As many values, every checksum fits, but rows and columns are swapped (or all in one row)."""
    build(tmp_path, flavour)
    index = ShardSet.open(tmp_path).images("train")
    height, width = (int(side) for side in index.sizes[3])
    other = np.ones((1, height * width), np.float16 if index.saliency == "float16" else np.uint8)
    replace_in_tar(tmp_path, 1, int(index.offsets[3, index.map_member]), npy_bytes(other))
    assert verify(tmp_path).problems == ["train-000001.tar: sample 'train_1-0' is not what the index says"]
    with pytest.raises(FormatError, match="a map of another size than its image: "):
        ShardSet.open(tmp_path).images("train").read_map(3)


@pytest.mark.parametrize("flavour", ["saliency-jpeg", "maps-log8"])
def test_a_range_that_is_no_array_of_two_is_found(tmp_path: Path, flavour: str) -> None:
    build(tmp_path, flavour)
    index = ShardSet.open(tmp_path).images("train")
    replace_in_tar(tmp_path, 0, int(index.offsets[1, index.map_members[1]]), npy_bytes(np.zeros(1, np.float64)))
    assert verify(tmp_path).problems == ["train-000000.tar: sample 'train_0-1' is not what the index says"]
    with pytest.raises(FormatError, match=r"map of sample 'train_0-1' in train-000000.tar: not the \.npy"):
        index.read_map(1)


@pytest.mark.parametrize("storage", ["float16", "log8"])
def test_a_height_that_the_index_belies_is_found(tmp_path: Path, storage: str) -> None:
    """Height and width swapped in the index alone: as many bytes, so only header and JSON tell."""
    build(tmp_path, f"maps-{storage}")
    table = pq.read_table(tmp_path / "_meta" / "index-train.parquet")
    height, width = table.column("height"), table.column("width")
    place = table.column_names.index("height")
    put_index(tmp_path, parquet(table.set_column(place, "height", width).set_column(place + 1, "width", height)))
    found = verify(tmp_path).problems
    square = {f"train_{shard}-2" for shard in range(3)}  # 7 × 7
    assert len(found) == 6
    assert not any(key in line for key in square for line in found)


@pytest.mark.parametrize("flavour", ["saliency-raw", "image-raw", "maps-log8"])
def test_tars_that_disagree_with_their_index_are_found(tmp_path: Path, flavour: str) -> None:
    """Every checksum fits, but label, JSON, or the header of a raw image is not what the index and the spec say."""
    build(tmp_path, flavour)
    table = ShardSet.open(tmp_path).table("train")
    places = {"label": (-2, b"0"), "JSON": (-1, b"[")}
    if flavour != "maps-log8":
        places["raw image"] = (0, npy_bytes(np.zeros((12, 8, 3), np.uint8)))
    whole = (tmp_path / "train-000001.tar").read_bytes()
    for member, data in places.values():
        replace_in_tar(tmp_path, 1, int(table.offsets[4, member]), data)
        assert verify(tmp_path).problems == ["train-000001.tar: sample 'train_1-1' is not what the index says"]
        replace_in_tar(tmp_path, 1, 0, whole)
    assert verify(tmp_path).ok


@pytest.mark.parametrize("flavour", ["saliency-jpeg", "maps-float16"])
def test_flipped_parquet_never_ends_in_anything_but_our_errors(tmp_path: Path, flavour: str) -> None:
    build(tmp_path, flavour)
    whole = (tmp_path / "_meta" / "index-train.parquet").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for _ in range(150):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        put_index(tmp_path, bytes(data))
        try:
            index = ShardSet.open(tmp_path).images("train")
        except SeqJepaError:
            refused += 1
        else:
            assert index.read_map(0).sum() == pytest.approx(1, abs=1e-5)
    assert refused > 75
