"""Sequences of a table as samples: chunks, keys, sizes, and that every frame comes back from the set that was built."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_3die import same_folders
from small_images import encoded, picture

from pipelines.build.views import shard_views
from pipelines.sources import ViewsContent, ViewsRecord
from pipelines.sources.files import FileReader, list_files
from pipelines.sources.keys import sequence_keys
from pipelines.sources.table import (
    FilePictures,
    TableSource,
    ViewTable,
    choose_views_per_sample,
    chunk_bounds,
    padding_share,
)
from shards.errors import FormatError, UsageError
from shards.reader import ShardSet
from shards.schema import ActionSpec, ActionTerm, ParamField
from shards.verify import verify

LENGTHS = {"a": 3, "b 1": 11, "b-1": 1, "é": 8}
SIDE = 16


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in LENGTHS.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        for step in range(count):
            pixels = picture(100 * ord(name[0]) + 10 * len(name) + step, SIDE, SIDE)
            (tmp_path / f"in/{name}/{step:02d}.png").write_bytes(encoded(pixels))
    return tmp_path / "in"


def table_of(path: Path) -> ViewTable:
    found = list_files(path)
    places = [entry.name.rpartition("/")[0] for entry in found.images]
    names = sorted(set(places))
    of = np.array([names.index(place) for place in places], np.int32)
    steps = np.concatenate([np.arange(places.count(name)) * 2 for name in names]).astype(np.int32)
    return ViewTable(
        sequences=names,
        of=of,
        steps=steps,
        ordered=True,
        params=np.stack([of, np.arange(len(of))], 1).astype(np.float32),
        fields=(ParamField("x", "m"), ParamField("row", "1")),
        splits=["val" if name == "é" else "train" for name in names],
        labels=[None if name == "é" else name[0] for name in names],
        pictures=FilePictures(
            found.reader,
            [entry.name for entry in found.images],
            np.array([entry.offset for entry in found.images]),
            np.array([entry.length for entry in found.images]),
        ),
        actions=ActionSpec((ActionTerm("difference", ("x",)),)),
    )


def source_of(path: Path, views: int | None = None) -> TableSource:
    return TableSource(path, table_of(path), name="trial", options={"manifest": "m.csv"}, views_per_sample=views)


def test_every_frame_of_every_chunk_comes_back(folder: Path, tmp_path: Path) -> None:
    options = {"size": None, "encoding": "raw", "samples_per_shard": 3}
    info = shard_views(source_of(folder, 4), tmp_path / "out", workers=0, **options)
    assert verify(tmp_path / "out").ok
    spec = info.spec
    assert (spec.views, spec.ordered, spec.chunked, spec.actions) == (4, True, True, table_of(folder).actions)
    assert info.classes == ("a", "b")
    assert info.provenance["command"].startswith("seqjepa-data shard trial --source in --manifest m.csv")
    table, seen = table_of(folder), 0
    for split in ("train", "val"):
        found = ShardSet.open(tmp_path / "out").split(split)
        for i in range(len(found.keys)):
            for k in range(int(found.n_views[i])):
                row = int(found.params[i, k, 1])
                path = folder / table.pictures.name(row)
                assert np.array_equal(found.read_view(i, k), picture_of(path))
                assert found.view_ids[i, k] == table.steps[row]
                assert table.splits[table.of[row]] == split
                seen += 1
    assert seen == sum(LENGTHS.values())
    train = ShardSet.open(tmp_path / "out").split("train")
    assert train.sequences.counts.tolist() == [3, 11, 11, 11, 1]
    assert train.meta["sequence"] == ["a", "b 1", "b 1", "b 1", "b-1"]
    shard_views(source_of(folder, 4), tmp_path / "two", workers=2, **options)
    assert same_folders(tmp_path / "out", tmp_path / "two")


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_build_that_was_stopped_goes_on(folder: Path, tmp_path: Path, after: int) -> None:
    class Stopped(TableSource):
        def read(self, records: Sequence[ViewsRecord], positions: Sequence[int]) -> Iterator[ViewsContent]:
            for content in super().read(records, positions):
                if next(seen) == after:
                    raise KeyboardInterrupt
                yield content

    def source(kind: type[TableSource]) -> TableSource:
        return kind(folder, table_of(folder), name="trial", views_per_sample=4)

    options, seen = {"size": None, "encoding": "raw", "samples_per_shard": 2}, itertools.count()
    with pytest.raises(KeyboardInterrupt):
        shard_views(source(Stopped), tmp_path / "out", workers=0, **options)
    assert not (tmp_path / "out/_meta/dataset.json").exists()
    shard_views(source(TableSource), tmp_path / "out", workers=0, **options)
    shard_views(source(TableSource), tmp_path / "whole", workers=0, **options)
    assert same_folders(tmp_path / "out", tmp_path / "whole")


def test_a_table_that_changed_is_another_set(folder: Path, tmp_path: Path) -> None:
    options = {"size": None, "encoding": "raw"}
    shard_views(source_of(folder, 4), tmp_path / "out", workers=0, **options)
    table = table_of(folder)
    params = table.params.copy()
    params[3, 0] += 1
    changed = TableSource(folder, replace(table, params=params), name="trial", views_per_sample=4)
    with pytest.raises(UsageError, match="another set"):
        shard_views(changed, tmp_path / "out", workers=0, **options)
    with pytest.raises(UsageError, match="another set"):
        shard_views(source_of(folder, 5), tmp_path / "out", workers=0, **options)


def test_a_sequence_has_one_spelling(folder: Path) -> None:
    """One object as two, perhaps in two splits: of names of files (NFC, and NFD as macOS writes it)."""
    table = table_of(folder)
    spelled = replace(table, sequences=["a", "caf\xe9", "cafe\u0301", "\xe9"])
    with pytest.raises(
        FormatError, match=r"the sequences 'cafe.u0301' and 'caf.xe9' are one name, .*, in two spellings"
    ):
        TableSource(folder, spelled, name="test")


def test_a_class_has_one_spelling(folder: Path) -> None:
    """Whatever layout it comes from: names of folders on a Mac may have another one than those in a table."""
    table = table_of(folder)
    labels = ["caf\xe9" if label == table.labels[0] else "cafe\u0301" for label in table.labels]
    with pytest.raises(FormatError, match=r"'cafe.u0301' and 'caf.xe9' are one name, .*, in two spellings"):
        TableSource(folder, replace(table, labels=labels), name="manifest")


def picture_of(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_an_archive_gives_the_shards_of_its_folder(folder: Path, tmp_path: Path) -> None:
    import tarfile

    with zipfile.ZipFile(tmp_path / "in.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(folder, "in")
    sets = {}
    for kind in ("in", "in.zip", "in.tar"):
        out = tmp_path / f"of-{kind}"
        shard_views(source_of(tmp_path / kind, 4), out, workers=0, size=None)
        sets[kind] = {file.name: file.read_bytes() for file in out.glob("*.tar")}
    assert sets["in"] == sets["in.zip"] == sets["in.tar"]


def test_images_of_many_sizes_need_a_size(folder: Path, tmp_path: Path) -> None:
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.write_bytes(encoded(picture(number, 16 + number, 24)))
    with pytest.raises(FormatError, match=r"mixed size.*give --size"):
        shard_views(source_of(folder), tmp_path / "none", workers=0, size=None)
    assert not (tmp_path / "none").exists()
    for fit in ("squash", "crop"):
        info = shard_views(source_of(folder), tmp_path / fit, workers=0, size=12, fit=fit)
        assert (info.spec.height, info.spec.width) == (12, 12)
        assert info.provenance["resize"].startswith(fit)


def test_a_damaged_image_of_an_archive_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "a/01.png").write_bytes(b"nothing")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    with pytest.raises(FormatError, match=r"1 bad so far.*a/01\.png: not a JPEG, PNG"):
        shard_views(source_of(tmp_path / "in.zip"), tmp_path / "out", workers=0, size=None)


def test_views_per_sample() -> None:
    assert choose_views_per_sample(np.array([5, 5, 4])) == 5
    assert choose_views_per_sample(np.array([64])) == 64
    assert choose_views_per_sample(np.array([640, 1280])) == 64
    mixed = np.array([10, 10, 10, 100])
    assert choose_views_per_sample(mixed) == 10
    assert padding_share(mixed, 10) == 0
    assert padding_share(np.array([3, 1]), 3) == pytest.approx(1 / 3)
    starts, ends, chunks = chunk_bounds(np.array([0, 3, 8]), 2)
    assert (starts.tolist(), ends.tolist(), chunks.tolist()) == ([0, 2, 3, 5, 7], [2, 3, 5, 7, 8], [0, 1, 0, 1, 2])


def test_keys_of_sequences_differ() -> None:
    keys = sequence_keys(["a", "b 1", "b-1", "x" * 300, "x" * 301, "scene.1", "scene.2", "é"])
    assert keys[0] == "a"
    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 68 for key in keys)


def test_a_table_refuses_what_a_set_cannot_hold(folder: Path) -> None:
    with pytest.raises(UsageError, match="--views-per-sample 0"):
        source_of(folder, 0)
    table = table_of(folder)
    with pytest.raises(ValueError, match="sorted"):
        ViewTable(**{**vars(table), "of": table.of[::-1]}).check()
    reader = FileReader(folder)
    assert FilePictures(reader, ["a/00.png"], np.zeros(1, int), np.zeros(1, int)).name(0) == "a/00.png"
    with pytest.raises(FormatError, match=r"actions need z; the parameters are x, row"):
        ViewTable(**{**vars(table), "actions": ActionSpec((ActionTerm("difference", ("z",)),))}).check()
