from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_sets import PLAN, build, builder, sample_of

from shards.describe import describe_set
from shards.errors import ConfigError, DamageError, FormatError
from shards.preview.contact_sheet import contact_sheet
from shards.preview.rows import group_params
from shards.reader import ShardSet
from shards.schema import THREE_DIEBENCH_PARAMS, ParamField


@pytest.fixture(scope="module", params=["raw", "jpeg"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp(request.param) / "set"
    build(folder, request.param)
    return ShardSet.open(folder)


def test_every_value_comes_back(shards: ShardSet) -> None:
    encoding = shards.info.spec.encoding
    assert shards.splits == ("train", "val")
    for split in shards.splits:
        index = shards.split(split)
        assert len(index) == shards.info.splits[split].samples == 3 * PLAN[split]
        for row in range(len(index)):
            sample, pixels = sample_of(split, row // 3, row % 3, encoding)
            count = len(sample.views)
            assert (index.keys[row], index.labels[row], index.shard[row]) == (sample.key, sample.label, row // 3)
            assert index.n_views[row] == count
            assert index.view_ids[row].tolist() == list(sample.view_ids) + [-1] * (3 - count)
            np.testing.assert_array_equal(index.params[row], sample.params[np.arange(3) % count])
            assert {name: values[row] for name, values in index.meta.items()} == sample.meta
            for view in range(3):
                assert index.read_bytes(row, view) == sample.views[view % count]
                check_pixels(index.read_view(row, view), pixels[view % count], sample.views[view % count], encoding)


def test_an_index_is_read_without_pandas(tmp_path: Path) -> None:
    """A Ctrl-C while pyarrow imports it is lost, or leaves half of it behind."""
    build(tmp_path / "set", "raw")
    code = "from shards.reader import ShardSet; ShardSet.open(sys.argv[1]).split('train')"
    words = [sys.executable, "-c", f"import sys; {code}; print('pandas' in sys.modules)", str(tmp_path / "set")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def check_pixels(found: np.ndarray, source: np.ndarray, stored: bytes, encoding: str) -> None:
    expected = source if encoding == "raw" else np.asarray(Image.open(io.BytesIO(stored)))
    np.testing.assert_allclose(found.astype(int), expected, atol=0 if encoding == "raw" else 2)
    assert found.dtype == np.uint8


def test_array_types_are_the_documented_ones(shards: ShardSet) -> None:
    index = shards.split("val")
    names = ("shard", "labels", "n_views", "view_ids", "offsets", "lengths", "params")
    types = [(getattr(index, name).dtype.name, getattr(index, name).shape) for name in names]
    assert types == [
        ("int32", (6,)),
        ("int64", (6,)),
        ("int32", (6,)),
        ("int32", (6, 3)),
        ("int64", (6, 3)),
        ("int32", (6, 3)),
        ("float32", (6, 3, 7)),
    ]
    assert all(getattr(index, name).flags.c_contiguous and getattr(index, name).flags.writeable for name in names)
    assert index.param_names == tuple(f.name for f in THREE_DIEBENCH_PARAMS)


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    prints = set()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build(tmp_path / name, seed=seed)
        prints |= {ShardSet.open(tmp_path / name).split(split).fingerprint() for split in PLAN}
    assert len(prints) == 4


def test_what_open_and_split_refuse(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a folder"):
        ShardSet.open(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"no _meta/dataset\.json"):
        ShardSet.open(tmp_path)
    with (
        builder(tmp_path / "set"),
        pytest.raises(FormatError, match="unfinished set: run the same build command again"),
    ):
        ShardSet.open(tmp_path / "set")
    build(tmp_path / "set")
    shards = ShardSet.open(tmp_path / "set")
    with pytest.raises(ConfigError, match="no split 'test', there are: train, val"):
        shards.split("test")
    (shards.path / "_meta" / "index-val.parquet").unlink()
    with pytest.raises(DamageError, match=r"index-val\.parquet is missing"):
        shards.split("val")
    (shards.path / "train-000002.tar").unlink()
    with pytest.raises(DamageError, match=r"train-000002\.tar is missing"):
        shards.split("train")


def test_damage_after_opening_is_noticed(tmp_path: Path) -> None:
    for encoding in ("raw", "jpeg"):
        build(tmp_path / encoding, encoding)
        index = ShardSet.open(tmp_path / encoding).split("val")
        shard = index.shard_paths[0]
        data = bytearray(shard.read_bytes())
        start = int(index.offsets[0, 0])
        data[start : start + 100] = bytes(100)
        shard.write_bytes(data)
        with pytest.raises(DamageError, match=r"view 0 of sample 'val_0-0' in val-000000\.tar"):
            index.read_view(0, 0)
        shard.write_bytes(data[: start + 10])
        with pytest.raises(DamageError, match="ends inside sample 'val_0-0'"):
            index.read_view(0, 0)
        shard.unlink()
        with pytest.raises(DamageError, match="cannot read"):
            index.read_view(0, 0)


def test_description_counts_what_is_there(shards: ShardSet) -> None:
    found = describe_set(shards.path)
    assert found["bytes_total"] == sum(p.stat().st_size for p in shards.path.rglob("*") if p.is_file())
    assert found["splits"]["train"]["views"] == 3 * (1 + 2 + 3)
    assert found["splits"]["train"]["views_per_sample"] == {"min": 1, "max": 3}
    assert found["splits"]["val"]["classes_present"] == found["classes"] == 3
    assert found["params"][0] == {"name": "rot_x", "unit": "rad"}
    assert found["provenance"]["command"] == "tests"
    assert found["psnr_db"] == found["provenance"]["psnr_db"]


def test_contact_sheet_holds_every_view_once(shards: ShardSet, tmp_path: Path) -> None:
    out = contact_sheet(shards.path, "val", tmp_path / "sheet.png", samples=6, views=9)
    sheet = np.asarray(Image.open(out))
    index = shards.split("val")
    tile = (128, 192)
    found = 0
    for sample in range(6):
        for view in range(int(index.n_views[sample])):
            picture = Image.fromarray(index.read_view(sample, view)).resize(tile[::-1], Image.Resampling.BICUBIC)
            found += holds(sheet, np.asarray(picture)[8:-8, 8:-8])
    assert found == index.n_views.sum() == 12
    assert contact_sheet(shards.path, "val", tmp_path / "again.png", 6, 9).read_bytes() == out.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.png", "sheet.png"]


def holds(sheet: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    rows, columns = np.nonzero((sheet == picture[0, 0]).all(-1))
    candidates = (sheet[r : r + height, c : c + width] for r, c in zip(rows, columns, strict=True))
    return any(np.array_equal(candidate, picture) for candidate in candidates)


def test_parameters_are_grouped_and_in_degrees() -> None:
    groups = group_params(THREE_DIEBENCH_PARAMS)
    assert [g.label for g in groups] == ["rot x y z", "floor hue", "light theta phi", "light hue"]
    values = np.array([np.pi / 2, -np.pi / 4, 0.0, 0.25, np.pi, 2 * np.pi, 0.5])
    assert [g.text(values) for g in groups] == ["+90°  -45°  +0°", "0.25", "+180°  +360°", "0.50"]
    assert [g.label for g in group_params((ParamField("zoom", "1"), ParamField("x", "px")))] == ["zoom", "x"]
