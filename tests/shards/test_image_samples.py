"""Samples of images and maps: their members, and what is refused before a byte is written."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from shard_sets import FLAVOURS, encoded, map_of, sample_of

from shards.errors import FormatError
from shards.pixels import npy_bytes
from shards.saliency_map import encode_map
from shards.sample import ImageSample, MapSample, members


def test_suffixes_name_members_in_their_order() -> None:
    found = {name: FLAVOURS[name].suffixes() for name in FLAVOURS}
    assert found["saliency-raw"] == [".npy", ".sal.npy", ".cls", ".json"]
    assert found["saliency-jpeg"] == [".jpg", ".sal.npy", ".salrange.npy", ".cls", ".json"]
    assert found["image-raw"] == [".npy", ".cls", ".json"]
    assert found["image-jpeg"] == [".jpg", ".cls", ".json"]
    assert found["maps-float16"] == [".sal.npy", ".cls", ".json"]
    assert found["maps-log8"] == [".sal.npy", ".salrange.npy", ".cls", ".json"]


@pytest.mark.parametrize("flavour", ["saliency-raw", "saliency-jpeg", "image-raw", "maps-log8"])
def test_members(flavour: str) -> None:
    sample, _ = sample_of("train", 0, 1, flavour)
    assert isinstance(sample, ImageSample | MapSample)
    *own, label, record = members(sample, FLAVOURS[flavour])
    size = {"height": 6, "width": 8} if isinstance(sample, MapSample) else {}
    assert own == [*([sample.image] if isinstance(sample, ImageSample) else []), *sample.saliency]
    assert label == b"1"
    assert json.loads(record) == {**size, "synset": "01", "object": 1}


def half(values: np.ndarray) -> tuple[bytes]:
    return (npy_bytes(values.astype(np.float16)),)


MAP = map_of("train", 0, 0, (8, 12))
SALIENCY = [
    ("saliency-raw", {"saliency": ()}, "no map in a set with maps"),
    ("saliency-raw", {"saliency": half(MAP.T)}, "a map of another size than its image: 12×8, the image is 8×12"),
    ("saliency-raw", {"saliency": half(MAP[:7])}, "a map of another size than its image: 7×12"),
    ("saliency-raw", {"saliency": half(np.full((8, 12), np.nan))}, "a map with NaN or infinite values"),
    ("saliency-raw", {"saliency": half(-MAP)}, "a map with negative values"),
    ("saliency-raw", {"saliency": half(np.zeros((8, 12)))}, "a map with zero mass"),
    ("saliency-raw", {"saliency": encode_map(MAP, "log8")}, r"not the \.npy of a float16 map"),
    ("saliency-jpeg", {"saliency": encode_map(MAP, "float16")}, r"not the \.npy of a log8 map"),
    ("saliency-jpeg", {"saliency": encode_map(MAP, "log8")[:1]}, r"not the \.npy of a log8 map"),
    ("saliency-raw", {"saliency": (npy_bytes(MAP),)}, r"not the \.npy of a float16 map"),
    ("image-raw", {"saliency": half(MAP)}, "a map in a set without maps"),
    ("image-raw", {"image": b""}, r"image: not the \.npy of uint8 \[8, 12, 3\]"),
    ("image-jpeg", {"image": encoded(np.zeros((8, 16, 3), np.uint8), "jpeg")}, "8×16 pixels in a set of 8×12"),
    ("image-jpeg", {"key": "a.b"}, "a key is"),
    ("image-jpeg", {"meta": {"X": 1}}, "meta name 'X' is not lower-case letters, digits and _$"),
    ("maps-float16", {"height": 9}, "a map of another size than its image: 5×9, the image is 9×9"),
    ("maps-float16", {"saliency": ()}, r"not the \.npy"),
    ("maps-float16", {"meta": {"height": 1}}, r"and not \['height', 'width'\]"),
]


@pytest.mark.parametrize(("flavour", "change", "found"), SALIENCY)
def test_bad_samples_are_named(flavour: str, change: dict, found: str) -> None:
    sample, _ = sample_of("train", 0, 0, flavour)
    with pytest.raises(FormatError, match=found) as error:
        members(replace(sample, **change), FLAVOURS[flavour])
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("sample ")


def test_a_sample_of_another_kind_is_refused() -> None:
    for flavour, other, found in (
        ("raw", "image-raw", "a ImageSample in a set of views"),
        ("saliency-raw", "maps-float16", "a MapSample in a set of saliency"),
        ("maps-log8", "raw", "a ViewSample in a set of maps"),
    ):
        with pytest.raises(FormatError, match=found):
            members(sample_of("train", 0, 0, other)[0], FLAVOURS[flavour])


def test_runs_of_a_sequence_are_whole() -> None:
    sample, _ = sample_of("train", 0, 1, "sequence")
    assert len(sample.views) == 4
    cut = replace(sample, views=sample.views[:3], view_ids=[0, 1, 2], params=sample.params[:3])
    with pytest.raises(FormatError, match="3 views are not whole runs of 2"):
        members(cut, FLAVOURS["sequence"])
    rows = np.load(io.BytesIO(members(sample, FLAVOURS["sequence"])[4]), allow_pickle=False)
    np.testing.assert_array_equal(rows, sample.params)
