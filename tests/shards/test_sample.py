from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shard_sets import SLOTS, jpeg, pixels_of, sample_of, spec_of

from shards.errors import FormatError
from shards.pixels import baseline_jpeg_size, raw_header
from shards.sample import encode_raw, members


def test_members_of_a_ragged_sample_repeat_its_views_in_turn() -> None:
    sample, _ = sample_of("train", 0, 1, "jpeg")
    assert len(sample.views) == 2
    *views, params, label, record = members(sample, spec_of("jpeg"))
    assert views == [sample.views[0], sample.views[1], sample.views[0]]
    rows = np.load(io.BytesIO(params), allow_pickle=False)
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, sample.params[[0, 1, 0]])
    assert label == b"1"
    assert json.loads(record) == {"views": 2, "view_ids": [0, 2], "synset": "01", "object": 1}


def test_suffixes_name_members_in_their_order() -> None:
    assert spec_of("raw").suffixes() == [".00.npy", ".01.npy", ".02.npy", ".params.npy", ".cls", ".json"]
    wide = spec_of("jpeg", views=101).suffixes()
    assert wide[:2] == [".000.jpg", ".001.jpg"]
    assert wide == sorted(wide[:101]) + wide[101:]


def test_a_raw_view_is_an_npy_file() -> None:
    pixels = pixels_of("train", 0, 0, 1)[0]
    np.testing.assert_array_equal(np.load(io.BytesIO(encode_raw(pixels)), allow_pickle=False), pixels)
    assert len(raw_header(8, 12)) + pixels.size == len(encode_raw(pixels))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"key": "a.b"}, "a key is"),
        ({"key": "../x"}, "a key is"),
        ({"key": ""}, "a key is"),
        ({"meta": {"views": 1}}, "meta name"),
        ({"meta": {"x": None}}, "NoneType"),
        ({"meta": {"x": True}}, "bool"),
        ({"views": []}, "0 views"),
        ({"views": [b""] * (SLOTS + 1)}, "4 views"),
        ({"view_ids": [1, 1]}, "different view numbers"),
        ({"view_ids": [1]}, "different view numbers"),
        ({"view_ids": [-1, 2]}, "different view numbers"),
        ({"params": np.zeros((2, 6))}, r"\[2, 6\]"),
        ({"params": np.full((2, 7), np.nan)}, "finite"),
    ],
)
def test_bad_samples_are_named(change: dict, found: str) -> None:
    sample, _ = sample_of("train", 0, 1, "jpeg")
    with pytest.raises(FormatError, match=found) as error:
        members(replace(sample, **change), spec_of("jpeg"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_size_is_what_pil_says(subsampling: int) -> None:
    data = jpeg(np.zeros((24, 40, 3), np.uint8), subsampling=subsampling, exif=b"Exif\0\0" + bytes(100))
    assert baseline_jpeg_size(data) == Image.open(io.BytesIO(data)).size[::-1] == (24, 40)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (jpeg(np.zeros((8, 12, 3), np.uint8), progressive=True), "baseline"),
        (jpeg(np.zeros((8, 12), np.uint8)), "1 components"),
        (jpeg(np.zeros((8, 16, 3), np.uint8)), "8×16 pixels"),
        (jpeg(np.zeros((8, 12, 3), np.uint8))[:-1], "not a whole JPEG"),
        (b"\xff\xd8\xff\xd9", "without a frame"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x00" * 9 + b"\xff\xd9", "without a frame"),
        (b"", "not a whole JPEG"),
    ],
)
def test_only_baseline_rgb_jpegs_of_the_right_size(data: bytes, found: str) -> None:
    sample, _ = sample_of("train", 0, 0, "jpeg")
    with pytest.raises(FormatError, match=found):
        members(replace(sample, views=[data]), spec_of("jpeg"))
    with pytest.raises(FormatError, match=r"not the \.npy"):
        members(replace(sample, views=[data]), spec_of("raw"))
