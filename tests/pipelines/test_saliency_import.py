"""import-saliency: the published arrays in both layouts, and arrays that are not what they should be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from saliency_scene import contents
from small_images import make_folder, make_stl10
from typer.testing import CliRunner

from pipelines.commands.saliency import import_saliency_app
from pipelines.saliency import published
from pipelines.saliency.published import PublishedItem, import_saliency
from pipelines.sources import open_source
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.verify import verify

COUNTS = {"train": 4, "test": 3, "unlabeled": 5}
FILES = [
    "train/n01440764/n01440764_1.png",
    "train/n01440764/n01440764_2.png",
    "train/n02102040/n02102040_7.png",
    "val/n02102040/ILSVRC2012_val_00000001.png",
]


def stl10_arrays(folder: Path, shape: tuple[int, ...], dtype: str) -> dict[str, np.ndarray]:
    rng, arrays = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        arrays[split] = rng.random((count, *shape)).astype(dtype)
        (folder / split).mkdir(parents=True)
        np.save(folder / split / f"saliency_{split}.npy", arrays[split])
    return arrays


@pytest.fixture
def stl10(tmp_path: Path) -> Path:
    return make_stl10(tmp_path / "stl", **COUNTS)


@pytest.mark.parametrize(("shape", "dtype"), [((1, 96, 96), "float64"), ((96, 96), "float32")])
def test_stl10(stl10: Path, tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    arrays = stl10_arrays(tmp_path / "maps", shape, dtype)
    source = open_source("stl10", stl10)
    import_saliency(source, tmp_path / "maps", tmp_path / "out", samples_per_shard=2, workers=0)
    assert verify(tmp_path / "out").ok
    found = ShardSet.open(tmp_path / "out")
    for split, array in arrays.items():
        index = found.images(split)
        records = [record for record in source.records() if record.split == split]
        assert index.keys == [record.key for record in records]
        assert index.labels.tolist() == [record.label for record in records]
        for sample, p in enumerate(array.reshape(-1, 96, 96)):
            np.testing.assert_allclose(index.read_map(sample), p / p.sum(), rtol=1e-3, atol=1e-9)
    assert "published" in found.info.provenance["saliency_model"]["what"]


def test_stl10_without_a_split_with_workers_and_again(stl10: Path, tmp_path: Path) -> None:
    stl10_arrays(tmp_path / "maps", (96, 96), "float32")
    (tmp_path / "maps/unlabeled/saliency_unlabeled.npy").unlink()
    source = open_source("stl10", stl10)
    for workers, out in ((0, "one"), (2, "two"), (0, "one")):
        import_saliency(source, tmp_path / "maps", tmp_path / out, workers=workers, limit=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert {split: entry.samples for split, entry in ShardSet.open(tmp_path / "one").info.splits.items()} == {
        "train": 2,
        "test": 2,
    }


def test_splits_without_arrays_are_said(
    stl10: Path, imagenet: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stl10_arrays(tmp_path / "maps", (96, 96), "float32")
    (tmp_path / "maps/unlabeled/saliency_unlabeled.npy").unlink()
    import_saliency(open_source("stl10", stl10), tmp_path / "maps", tmp_path / "one", workers=0)
    imagenet_arrays(tmp_path / "arrays")
    shutil.rmtree(tmp_path / "arrays/val")
    import_saliency(open_source("imagenet", imagenet), tmp_path / "arrays", tmp_path / "two", workers=0)
    said = [line for line in (record.getMessage().partition(" holds ")[2] for record in caplog.records) if line]
    assert said == [f"no maps of {split}, whose images are left out" for split in ("unlabeled", "val")]


def test_a_limit_takes_the_maps_of_the_images_that_it_takes(stl10: Path, tmp_path: Path) -> None:
    """Classes take turns, so that the second image of the set need not be the second that is kept."""
    arrays = stl10_arrays(tmp_path / "maps", (96, 96), "float32")
    (stl10 / "train_y.bin").write_bytes(bytes([1, 1, 2, 2]))
    (stl10 / "test_y.bin").write_bytes(bytes([2, 2, 1]))
    import_saliency(open_source("stl10", stl10), tmp_path / "maps", tmp_path / "out", workers=0, limit=2)
    for split, rows in (("train", [0, 2]), ("test", [0, 2]), ("unlabeled", [0, 1])):
        index = ShardSet.open(tmp_path / "out").images(split)
        assert index.keys == [f"{split}-{row:05d}" for row in rows]
        for sample, row in enumerate(rows):
            p = arrays[split][row]
            np.testing.assert_allclose(index.read_map(sample), p / p.sum(), rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("row", [None, 2])
def test_an_array_that_shrinks_while_it_is_read_is_named(
    stl10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: int | None
) -> None:
    """A map of it would end the process with SIGBUS."""
    item = PublishedItem(open_source("stl10", stl10).records()[0], tmp_path / "a.npy", row)
    maps = np.random.default_rng(0).random((1 if row is None else 3, 96, 96))
    for order in ("F", "C"):
        np.save(item.file, np.asarray(maps, order=order))
        np.testing.assert_array_equal(published.read_map(item), maps[row or 0])
    mapped = published.open_array(item.file)
    os.truncate(item.file, 1000)
    monkeypatch.setattr(published, "open_array", lambda _: mapped)
    with pytest.raises(FormatError, match=r"a\.npy became shorter while it was read"):
        published.read_map(item).sum()


def test_other_arrays_of_the_same_names_are_another_set(stl10: Path, tmp_path: Path) -> None:
    arrays, source = stl10_arrays(tmp_path / "maps", (96, 96), "float32"), open_source("stl10", stl10)
    import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0)
    import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0)
    np.save(tmp_path / "maps/test/saliency_test.npy", arrays["test"][::-1])
    with pytest.raises(UsageError, match=r"another set \(the maps' files have other bytes than then.*--overwrite"):
        import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0)


def save(make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def rewrite(file: Path) -> None:
        np.save(file, make(np.load(file)))

    return rewrite


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[1] = value
        return array

    return change


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def pickled(file: Path) -> None:
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)


def zipped(file: Path) -> None:
    with file.open("wb") as opened:
        np.savez(opened, a=np.ones(3))


BAD_STL10 = {
    "count": (save(lambda array: array[:-1]), r"saliency_train.npy has 3 maps, its split has 4 images"),
    "size": (save(lambda array: array[:, :95]), r"has shape \(4, 95, 96\), expected"),
    "axes": (save(lambda array: array[0]), r"has shape \(96, 96\), expected"),
    "log density": (save(np.log), "a map with negative values"),
    "NaN": (save(put(np.nan)), r"train_X.bin\[1\]: a map with NaN or infinite values"),
    "zero mass": (save(put(0)), r"train_X.bin\[1\]: a map with zero mass"),
    "integers": (save(lambda array: (array * 255).astype(np.uint8)), "holds uint8; saliency arrays are float"),
    "cut": (cut, "not a whole .npy file"),
    "empty": (lambda file: file.write_bytes(b""), "not a whole .npy file"),
    "pickle": (pickled, "not a whole .npy file"),
    "zip": (zipped, "not a whole .npy file"),
}


@pytest.mark.parametrize("kind", BAD_STL10)
def test_bad_stl10_arrays_are_one_line_and_exit_code_2(stl10: Path, tmp_path: Path, kind: str) -> None:
    spoil, words = BAD_STL10[kind]
    stl10_arrays(tmp_path / "maps", (96, 96), "float32")
    spoil(tmp_path / "maps/train/saliency_train.npy")
    with pytest.raises(FormatError, match=words):
        import_saliency(open_source("stl10", stl10), tmp_path / "maps", tmp_path / "out", workers=0)
    arguments = ["stl10", "--source", str(stl10), "--maps", str(tmp_path / "maps"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(import_saliency_app, [*arguments, "--workers", "0"])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """24 × 32 pixels each."""
    return make_folder(tmp_path / "imagenet", FILES)


def imagenet_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Both suffixes, and shapes with leading ones."""
    rng, arrays = np.random.default_rng(1), {}
    for number, name in enumerate(FILES):
        stem = (folder / name).with_suffix("")
        stem.parent.mkdir(parents=True, exist_ok=True)
        arrays[name] = rng.random((24, 32)).astype(np.float32)
        array = arrays[name][None, None] if number % 2 else arrays[name]
        np.save(stem.with_name(stem.name + ("-sal.npy", "_sal.npy")[number // 2]), array)
    return arrays


def test_imagenet(imagenet: Path, tmp_path: Path) -> None:
    arrays = imagenet_arrays(tmp_path / "maps")
    source = open_source("imagenet", imagenet)
    import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0, storage="log8")
    found = ShardSet.open(tmp_path / "out")
    assert {split: entry.samples for split, entry in found.info.splits.items()} == {"train": 3, "val": 1}
    for split in found.splits:
        index = found.images(split)
        for sample, file in enumerate(index.meta["file"]):
            p = arrays[file]
            np.testing.assert_allclose(index.read_map(sample), p / p.sum(), rtol=0.05)
    assert found.images("val").keys == ["ILSVRC2012_val_00000001"]
    assert found.images("val").labels.tolist() == [1]


def test_imagenet_maps_that_are_missing_or_of_another_size(imagenet: Path, tmp_path: Path) -> None:
    imagenet_arrays(tmp_path / "maps")
    (tmp_path / "maps/train/n01440764/n01440764_1-sal.npy").unlink()
    np.save(tmp_path / "maps/train/n01440764/n01440764_2-sal.npy", np.ones((32, 24)))
    source = open_source("imagenet", imagenet)
    with pytest.raises(
        FormatError, match=r"1 bad so far.*n01440764_1.png: no n01440764_1-sal.npy or n01440764_1_sal.npy"
    ):
        import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0)
    with pytest.raises(FormatError, match=r"2 bad so far.*n01440764_2.png: a map of 24×32 for an image of 32×24"):
        import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0, max_bad=1)
    info = import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0, max_bad=2)
    assert info.samples == 2
    assert info.provenance["left_out"]["count"] == 2


def test_an_imagenet_map_of_two_images_is_of_neither(imagenet: Path, tmp_path: Path) -> None:
    imagenet_arrays(tmp_path / "maps")
    make_folder(imagenet, ["train/n01440764/n01440764_1.jpg"])
    source = open_source("imagenet", imagenet)
    with pytest.raises(FormatError, match=r"2 bad so far.*n01440764_1\.jpg: .*_1-sal\.npy is by its name of several"):
        import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0)
    assert import_saliency(source, tmp_path / "maps", tmp_path / "out", workers=0, max_bad=2).samples == 3


def test_what_there_are_no_arrays_for(imagenet: Path, stl10: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for kind, source in (("imagenet", imagenet), ("stl10", stl10)):
        with pytest.raises(UsageError, match=r"holds no <split>/"):
            import_saliency(open_source(kind, source), tmp_path / "maps", tmp_path / "out")
    with pytest.raises(UsageError, match="not for folder"):
        import_saliency(open_source("folder", imagenet), tmp_path / "maps", tmp_path / "out")
    with pytest.raises(UsageError, match="is not a folder"):
        import_saliency(open_source("stl10", stl10), tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()
