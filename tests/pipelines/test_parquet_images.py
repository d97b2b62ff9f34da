"""Images within Parquet files as the Hugging Face hub keeps them; read back with tarfile and NumPy alone."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_images import encoded, make_folder, picture

from pipelines.build.images import shard_images
from pipelines.sources import open_source
from shards.errors import FormatError, UsageError

LABEL = {"names": ["zebra", "ape"], "_type": "ClassLabel"}


def write(path: Path, seeds: list[int], features: dict[str, Any] | None = None, **columns: list) -> None:
    """One image of each seed, two in a row group. features: what `datasets` notes of them, its ClassLabels."""
    cells = [{"bytes": encoded(picture(seed)), "path": None} for seed in seeds]
    table = pa.table({"image": cells, **columns})
    if features:
        noted = {"info": {"features": {"image": {"_type": "Image"}, **features}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(noted)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)


def stored(out: Path) -> dict[str, dict[bytes, int]]:
    """Labels by split and pixels, as tarfile and NumPy read them."""
    found: dict[str, dict[bytes, int]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        labels = found.setdefault(path.name.split("-")[0], {})
        for name in members:
            if name.endswith(".npy"):
                labels[np.load(io.BytesIO(members[name])).tobytes()] = int(members[f"{name[:-4]}.cls"])
    return found


@pytest.mark.parametrize("name", ["data/{}-0000{}-of-00002.parquet", "default/{}/000{}.parquet", "{}{}.PARQUET"])
def test_labels_are_the_numbers_of_names_and_splits_are_in_file_names(tmp_path: Path, name: str) -> None:
    source = tmp_path / "hub"
    for first, split in ((0, "train"), (20, "validation")):
        for part in range(2):
            seeds = [*range(first + 5 * part, first + 5 * part + 5)]
            write(source / name.format(split, part), seeds, {"label": LABEL}, label=[seed % 2 for seed in seeds])
    (source / "README.md").write_text("card")
    opened = open_source("folder", source)
    assert opened.classes == ("zebra", "ape")
    shard_images(opened, tmp_path / "out", encoding="raw", samples_per_shard=3, workers=0)
    worker = pickle.loads(pickle.dumps(opened))  # as it is once files were read
    assert np.array_equal(worker.read(opened.records()[7]), picture(7))
    assert stored(tmp_path / "out") == {
        split: {picture(seed).tobytes(): seed % 2 for seed in range(first, first + 10)}
        for first, split in ((0, "train"), (20, "val"))
    }
    write(source / name.format("train", 0), [0, 1, 2, 3, 99], {"label": LABEL}, label=[0, 1, 0, 1, 0])
    with pytest.raises(UsageError, match="the source's files have other bytes than then"):
        shard_images(open_source("folder", source), tmp_path / "out", encoding="raw", samples_per_shard=3, workers=0)


def test_labels_without_names(tmp_path: Path) -> None:
    """Numbers in their order, texts in theirs, none for none; and a share for validation."""
    write(tmp_path / "n.parquet", [*range(6)], label=[10, 9, None, -1, 9, 9])
    source = open_source("folder", tmp_path / "n.parquet", val_fraction=0.5)
    assert source.classes == ("9", "10")
    assert [(record.position, record.label) for record in sorted(source.records(), key=lambda r: r.position)] == [
        *zip(range(6), (1, 0, -1, -1, 0, 0), strict=True)
    ]
    assert {record.split for record in source.records()} == {"train", "val"}
    write(tmp_path / "t.parquet", [1, 2, 3], target=["dog", "cat", ""])
    assert [record.label for record in open_source("folder", tmp_path / "t.parquet").records()] == [1, 0, -1]


def test_what_cannot_be_told_is_refused(tmp_path: Path) -> None:
    for name in ("a/train.parquet", "b/train.parquet", "c/train.parquet", "c/other.parquet"):
        write(tmp_path / name, [1], label=[0])
    with pytest.raises(FormatError, match="holds Parquet files in a, b, c; give one of these folders"):
        open_source("folder", tmp_path).records()
    with pytest.raises(FormatError, match=r"other\.parquet say no one split each"):
        open_source("folder", tmp_path / "c").records()
    with pytest.raises(UsageError, match=r"split of their own; train\.parquet has one"):
        open_source("folder", tmp_path / "a", val_fraction=0.5).records()
    write(tmp_path / "d/0.parquet", [1], {"label": LABEL}, label=[2])
    with pytest.raises(FormatError, match=r"0\.parquet: label 2 has no name; there are 2 names"):
        open_source("folder", tmp_path / "d").records()
    for labels in ([0.5], [[0]], [b"a"]):
        write(tmp_path / "d/0.parquet", [1], target=labels)
        with pytest.raises(FormatError, match=r"0\.parquet: target is of .*; labels are whole numbers or texts"):
            open_source("folder", tmp_path / "d").records()
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "e.parquet")
    with pytest.raises(FormatError, match=r"no one column of images, \{bytes, path\}; there are text"):
        open_source("folder", tmp_path / "e.parquet").records()
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "1.png"}]}), tmp_path / "f.parquet")
    with pytest.raises(FormatError, match=r"only names '1\.png'; write the set with its images embedded"):
        shard_images(open_source("folder", tmp_path / "f.parquet"), tmp_path / "out", workers=0)


def test_a_folder_of_images_beside_a_table_is_one(tmp_path: Path) -> None:
    write(tmp_path / "f/metadata.parquet", [1])
    make_folder(tmp_path / "f", ["cat/1.png", "dog/1.png"])
    assert open_source("folder", tmp_path / "f").classes == ("cat", "dog")
    (tmp_path / "linked").mkdir()
    for name in ("cat", "dog", "metadata.parquet"):
        (tmp_path / "linked" / name).symlink_to(tmp_path / "f" / name)
    assert open_source("folder", tmp_path / "linked").classes == ("cat", "dog")


NAMES = [json.dumps({"info": {"features": {"label": {"names": names}}}}) for names in (3, [3], None)]


@pytest.mark.parametrize("noted", ["{", "[]", '{"info": 1}', '{"info": {"features": []}}', "[" * 9999, *NAMES])
def test_what_a_stranger_noted_of_labels_is_refused_in_a_line(tmp_path: Path, noted: str) -> None:
    table = pa.table({"image": [{"bytes": encoded(picture(0)), "path": None}], "label": [0]})
    pq.write_table(table.replace_schema_metadata({"huggingface": noted}), tmp_path / "0.parquet")
    with pytest.raises(FormatError):
        open_source("folder", tmp_path).records()
