"""A set opens, unchanged, in other people's readers, and gives the same pixels, parameters and labels there."""

from __future__ import annotations

import gc
import glob
import io
from pathlib import Path

import numpy as np
import pytest
from foreign_readers import hugging_face_splits, webdataset_rows
from PIL import Image
from shard_sets import PLAN, build

from shards.reader import ShardSet, SplitIndex


@pytest.fixture(scope="module", params=["jpeg", "raw"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    """Ragged: a third of the samples have one view, a third two, a third all three."""
    folder = tmp_path_factory.mktemp(request.param) / "set"
    build(folder, request.param)
    return ShardSet.open(folder)


def check_row(index: SplitIndex, row: int, views: list, params: object, label: int, record: dict) -> None:
    for slot, view in enumerate(views):
        expected = index.read_view(row, slot).astype(int)
        np.testing.assert_allclose(np.asarray(view, int), expected, atol=2 if index.encoding == "jpeg" else 0)
    np.testing.assert_array_equal(np.asarray(params, np.float32), index.params[row])
    assert label == index.labels[row]
    assert record["views"] == index.n_views[row]
    assert list(record["view_ids"]) == index.view_ids[row][: record["views"]].tolist()
    assert record["synset"] == index.meta["synset"][row]


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset does not close its tars
@pytest.mark.parametrize("split", PLAN)
def test_webdataset(shards: ShardSet, split: str) -> None:
    index, rows = shards.split(split), webdataset_rows(shards, split)
    assert [row["__key__"] for row in rows] == index.keys
    extension = "jpg" if index.encoding == "jpeg" else "npy"
    for number, row in enumerate(rows):
        views = [row[f"{slot:02d}.{extension}"] for slot in range(3)]
        check_row(index, number, views, row["params.npy"], row["cls"], row["json"])
    gc.collect()


def test_hugging_face_datasets(shards: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, rows in hugging_face_splits(shards, tmp_path, monkeypatch).items():
        index = shards.split(split)
        assert rows["__key__"][:] == index.keys
        extension = "jpg" if index.encoding == "jpeg" else "npy"
        for number, row in enumerate(rows):
            views = [row[f"{slot:02d}.{extension}"] for slot in range(3)]
            check_row(index, number, views, row["params.npy"], row["cls"], row["json"])


@pytest.mark.parametrize("split", PLAN)
def test_dali(shards: ShardSet, split: str) -> None:
    """On the CPU. DALI decodes JPEG with its own library, so a grey level or two may differ."""
    pytest.importorskip("nvidia.dali")
    from nvidia.dali import fn, pipeline_def, types

    extension = "jpg" if shards.info.spec.encoding == "jpeg" else "npy"

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline():
        names = sorted(glob.glob(f"{shards.path}/{split}-*.tar"))
        members = [f"{slot:02d}.{extension}" for slot in range(3)] + ["params.npy", "cls"]
        *views, params, label = fn.readers.webdataset(paths=names, ext=members, missing_component_behavior="error")
        if extension == "jpg":
            views = [fn.decoders.image(view, device="cpu", output_type=types.RGB) for view in views]
        return *views, params, label

    index, reader = shards.split(split), pipeline()
    reader.build()
    for row in range(len(index)):
        *views, params, label = (np.asarray(output[0]) for output in reader.run())
        if extension == "npy":
            views = [load_npy(view) for view in views]
        record = {"views": index.n_views[row], "view_ids": index.view_ids[row][: index.n_views[row]]}
        synset = index.meta["synset"][row]
        check_row(index, row, views, load_npy(params), int(label.tobytes()), {**record, "synset": synset})


def load_npy(data: np.ndarray) -> np.ndarray:
    return np.load(io.BytesIO(data.tobytes()), allow_pickle=False)


def test_plain_python(shards: ShardSet) -> None:
    """Nothing but the standard library, numpy and PIL."""
    import tarfile

    index = shards.split("train")
    with tarfile.open(index.shard_paths[0]) as tar:
        data = {member.name: tar.extractfile(member).read() for member in tar}
    key = index.keys[0]
    first = data[f"{key}.00.{'jpg' if index.encoding == 'jpeg' else 'npy'}"]
    is_jpeg = index.encoding == "jpeg"
    pixels = np.asarray(Image.open(io.BytesIO(first))) if is_jpeg else load_npy(np.frombuffer(first, np.uint8))
    np.testing.assert_allclose(pixels.astype(int), index.read_view(0, 0), atol=2)
    np.testing.assert_array_equal(load_npy(np.frombuffer(data[f"{key}.params.npy"], np.uint8)), index.params[0])
