"""Sets whose views are feature vectors: what is stored, read, refused, and opened by other readers."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_sets import FEATURES, FLAVOURS, PLAN, WEIGHTS, build, builder, contents, pixels_of, sample_of, vectors_of
from tampering import put, replace_in_tar, rewrite

from shards.describe import describe_set, summarise
from shards.errors import ConfigError, DamageError, FailureError, FormatError, UsageError
from shards.metadata import info_to_bytes, spec_to_json
from shards.pixels import npy_bytes
from shards.preview.contact_sheet import contact_sheet, cosines, principal_colours
from shards.reader import ShardSet
from shards.sample import ViewSample, members
from shards.vector_reader import VectorReader
from shards.vectors import decode_vector, encode_vectors
from shards.verify import verify


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("features") / "set"
    build(folder, "features")
    return ShardSet.open(folder)


def expected(split: str = "train") -> list[np.ndarray]:
    """Vectors of each sample, in stored order."""
    return [
        vectors_of(pixels_of(split, shard, number, 1 + number % 3))
        for shard in range(PLAN[split])
        for number in (0, 1, 2)
    ]


def test_a_set_of_features_is_of_version_2_and_keeps_its_encoder(shards: ShardSet) -> None:
    assert shards.info.format_version == 2
    assert shards.info.spec == FLAVOURS["features"]
    assert shards.info.normalisation == {}
    assert shards.read_encoder() == WEIGHTS
    assert verify(shards.path).ok


def test_random_access_gives_every_vector(shards: ShardSet) -> None:
    index, vectors = shards.split("train"), expected()
    reader = VectorReader(index)
    for sample, known in enumerate(vectors):
        for slot in range(3):  # slots beyond a sample's views repeat them
            np.testing.assert_array_equal(index.read_view(sample, slot), known[slot % len(known)])
    rng = np.random.default_rng(0)
    samples, slots = rng.integers(0, 9, (4, 7)), rng.integers(0, 3, (4, 7))
    taken = reader.take(samples, slots)
    assert taken.dtype == np.float16
    for at in np.ndindex(4, 7):
        known = vectors[samples[at]]
        np.testing.assert_array_equal(taken[at], known[slots[at] % len(known)])
    np.testing.assert_array_equal(reader.take_all(), np.concatenate(vectors))


def test_vectors_are_plain_npy() -> None:
    vectors = np.array([[1.5, -2, 0, 3e4, 6e-8]])
    (half,) = encode_vectors(vectors, FEATURES)
    assert half == npy_bytes(vectors[0].astype("<f2"))
    (whole,) = encode_vectors(vectors, replace(FEATURES, dtype="float32"))
    assert whole == npy_bytes(vectors[0].astype("<f4"))
    np.testing.assert_array_equal(decode_vector(whole, replace(FEATURES, dtype="float32")), vectors[0].astype("f4"))


@pytest.mark.parametrize(
    ("vectors", "found"),
    [
        (np.full((1, 5), 7e4), r"not finite in float16 \(the largest number is 70000\); use float32"),
        (np.full((1, 5), np.nan), "not finite in float16"),
        (np.zeros((1, 6)), r"vectors are \[n, 5\], found \[1, 6\]"),
    ],
)
def test_what_cannot_be_stored_is_refused(vectors: np.ndarray, found: str) -> None:
    with pytest.raises(FormatError, match=found):
        encode_vectors(vectors, FEATURES)


@pytest.mark.parametrize(
    ("view", "found"),
    [
        (npy_bytes(np.zeros(5, np.float32)), r"view 0: not the \.npy of float16 \[5\]"),
        (npy_bytes(np.full(5, np.inf, np.float16)), "view 0: features that are not finite"),
        (b"", r"not the \.npy"),
    ],
)
def test_a_sample_with_other_vectors_is_refused(view: bytes, found: str) -> None:
    sample, _ = sample_of("train", 0, 0, "features")
    assert isinstance(sample, ViewSample)
    with pytest.raises(FormatError, match=found):
        members(replace(sample, views=[view]), FLAVOURS["features"])


def test_pixels_have_no_place_in_a_set_of_features() -> None:
    with pytest.raises(FormatError, match=r"not the \.npy of float16 \[5\]"):
        members(sample_of("train", 0, 0, "raw")[0], FLAVOURS["features"])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (put("format_version", value=1), "format version 1 has no sequences in chunks and no features"),
        (put("spec", "encoding", value="raw"), "encoding 'raw' and a record of features: one needs the other"),
        (put("spec", "features", value=7), "features must be a dict"),
        (put("spec", "features", "size", value=0), "size is 0, allowed are 1 to 65536"),
        (put("spec", "features", "dtype", value="object"), "dtype 'object' is unknown, allowed: float16, float32"),
        (put("spec", "features", "mean", value=[0.5]), "features.mean must be three numbers"),
        (put("spec", "features", "std", value=[0, 1, 1]), "features.std must be three numbers"),
        (put("spec", "features", "weights_sha256", value="../x"), "weights_sha256 is not a sha256"),
        (put("spec", "features", "file_sha256", value="0"), "file_sha256 is not a sha256"),
        (put("spec", "features", "encoder", value={}), "features.encoder has no backbone"),
        (put("spec", "features", "encoder", "backbone", value=1), "features.encoder has no backbone"),
        (put("spec", "features", "encoder", "width", value=[1]), "features.encoder.width must be a short text"),
        (put("spec", "features", "encoder", "../x", value=1), "features.encoder must have at most 32 names"),
        (put("spec", "features", "more", value=1), "features have no 'more'"),
        (put("spec", "encoding", value="pickle"), "encoding 'pickle' is unknown, allowed: jpeg, raw, features"),
    ],
)
def test_the_record_is_checked_field_by_field(tmp_path: Path, change: Callable, found: str) -> None:
    build(tmp_path, "features")
    rewrite(tmp_path, change)
    with pytest.raises(FormatError, match=found) as error:
        ShardSet.open(tmp_path)
    assert "\n" not in str(error.value)


def test_pixel_sets_say_nothing_of_features(tmp_path: Path) -> None:
    assert b"features" not in info_to_bytes(build(tmp_path, "raw"))
    assert "features" not in spec_to_json(FLAVOURS["raw"])
    with pytest.raises(ConfigError, match="holds views of pixels, not features"):
        VectorReader(ShardSet.open(tmp_path).split("train"))
    with pytest.raises(ConfigError, match="holds no features, and no encoder"):
        ShardSet.open(tmp_path).read_encoder()


def test_a_vector_that_was_changed_is_found(tmp_path: Path) -> None:
    """Every checksum fits: another header, then numbers that are not finite."""
    build(tmp_path, "features")
    index = ShardSet.open(tmp_path).split("train")
    replace_in_tar(tmp_path, 0, int(index.offsets[1, 1]), npy_bytes(np.zeros(5, np.int16)))
    assert verify(tmp_path).problems == ["train-000000.tar: sample 'train_0-1' is not what the index says"]
    with pytest.raises(DamageError, match="view 1 of sample 'train_0-1' is no vector of this set"):
        VectorReader(ShardSet.open(tmp_path).split("train")).take(np.array([1]), np.array([1]))
    replace_in_tar(tmp_path, 0, int(index.offsets[1, 1]), npy_bytes(np.full(5, np.nan, np.float16)))
    with pytest.raises(DamageError, match="view 1 of sample 'train_0-1' has numbers that are not finite"):
        VectorReader(ShardSet.open(tmp_path).split("train")).take_all()


def test_a_shard_that_becomes_shorter_is_named(tmp_path: Path) -> None:
    """Its map is read no more: that would end the process with SIGBUS."""
    build(tmp_path, "features")
    reader = VectorReader(ShardSet.open(tmp_path).split("train"))
    os.truncate(tmp_path / "train-000000.tar", 0)
    with pytest.raises(DamageError, match="sample 'train_0-1' is in a shard that has become shorter"):
        reader.take(np.array([1]), np.array([1]))


def test_a_set_that_was_made_anew_before_it_is_mapped_is_named(tmp_path: Path) -> None:
    """Vectors of one set would stand under labels of another."""
    build(tmp_path, "features")
    index = ShardSet.open(tmp_path).split("train")
    VectorReader(index)
    build(tmp_path, "features", seed=1, overwrite=True)
    with pytest.raises(DamageError, match="the set was made anew while it was read: run the command again"):
        VectorReader(index)


def test_another_encoder_is_found(tmp_path: Path) -> None:
    build(tmp_path, "features")
    path = tmp_path / "_meta" / "encoder.safetensors"
    path.write_bytes(WEIGHTS[::-1])
    assert verify(tmp_path).problems == ["_meta/encoder.safetensors: sha256 differs"]
    with pytest.raises(DamageError, match="is damaged"):
        ShardSet.open(tmp_path).read_encoder()
    path.unlink()
    assert verify(tmp_path).problems == ["_meta/encoder.safetensors: missing"]
    with pytest.raises(DamageError, match="give --overwrite to build it again"):
        build(tmp_path, "features")
    build(tmp_path, "features", overwrite=True)
    assert verify(tmp_path).ok


def test_overwriting_leaves_no_encoder_behind(tmp_path: Path) -> None:
    build(tmp_path / "a", "features")
    build(tmp_path / "a", "raw", overwrite=True)
    build(tmp_path / "b", "raw")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_build_without_its_encoder_does_not_finish(tmp_path: Path) -> None:
    with builder(tmp_path, "features") as target:
        with target.open_shard("train", 0) as writer:
            writer.add(sample_of("train", 0, 0, "features")[0])
        with pytest.raises(UsageError, match="is not a file of the set"):
            target.put_encoder(b"other weights")
        with pytest.raises(FailureError, match=r"encoder\.safetensors is missing"):
            target.finish({})


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
def test_webdataset_opens_it(shards: ShardSet) -> None:
    import webdataset

    names = f"{shards.path}/train-{{000000..000002}}.tar"
    rows = list(webdataset.WebDataset(names, shardshuffle=False).decode("rgb8"))
    for row, known in zip(rows, expected(), strict=True):
        np.testing.assert_array_equal(row["00.npy"], known[0])
        assert row["00.npy"].dtype == np.float16
    gc.collect()


def test_hugging_face_datasets_opens_it(shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    datasets.disable_progress_bars()
    rows = datasets.load_dataset(str(shards.path), cache_dir=str(tmp_path))["train"]
    for row, known in zip(rows, expected(), strict=True):
        np.testing.assert_array_equal(row["02.npy"], known[2 % len(known)])


def test_info_says_what_made_them(shards: ShardSet) -> None:
    found = describe_set(shards.path)
    assert json.loads(json.dumps(found))["features"]["encoder"]["backbone"] == "resnet18"
    text = summarise(found)
    for line in ("vectors 5 of float16", "encoder resnet18 (width 0.25, stem cifar)", "made of 12×8 features"):
        assert line in text, text
    assert "each 5 features in float16 that resnet18 made of 8×12 RGB pixels" in (shards.path / "README.md").read_text()


def test_the_preview_shows_how_alike_views_are(shards: ShardSet, tmp_path: Path) -> None:
    out = contact_sheet(shards.path, "train", tmp_path / "sheet.png", samples=4)
    sheet = np.asarray(Image.open(out).convert("RGB"))
    chosen = np.sort(np.random.default_rng(0).permutation(9)[:4])
    vectors = [expected()[row] for row in chosen]
    for colour in principal_colours(np.concatenate(vectors)):  # each view has its tile
        assert (sheet == colour).all(-1).sum() >= 128 * 128


def test_cosines_and_colours_are_those_of_linear_algebra() -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(6, 5))
    square = cosines(vectors)
    assert square[1, 4] == pytest.approx(
        vectors[1] @ vectors[4] / np.linalg.norm(vectors[1]) / np.linalg.norm(vectors[4])
    )
    line = np.outer(np.linspace(0, 1, 6), rng.normal(size=5))  # one component: the others are grey
    colours = principal_colours(line)
    assert sorted(colours[:, 0].tolist()) == [0, 51, 102, 153, 204, 255]
    assert (colours[:, 1:] == 128).all()


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub
def test_the_encoder_travels_with_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the hub and back; to stores by the same files."""
    from hub_server import serving, use_hub

    from shards.push.hub_push import PushOptions
    from shards.push.hub_sets import prepare_set, pull_set, push_set
    from shards.push.store_push import files_of

    build(tmp_path / "set", "features")
    made = {str(path.relative_to(tmp_path / "set")) for path in (tmp_path / "set").rglob("*") if path.is_file()}
    assert set(files_of(tmp_path / "set")) == made
    with serving() as hub:
        use_hub(hub, tmp_path, monkeypatch)
        push_set(prepare_set(tmp_path / "set", "hf://datasets/me/set", PushOptions()), PushOptions())
        assert set(hub.files("dataset", "me/set")) == made | {".gitattributes"}
        pull_set("hf://datasets/me/set", tmp_path / "back")
    assert verify(tmp_path / "back").ok
    encoder = Path("_meta") / "encoder.safetensors"
    assert (tmp_path / "back" / encoder).read_bytes() == (tmp_path / "set" / encoder).read_bytes()
