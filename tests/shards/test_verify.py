from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shard_sets import FLAVOURS, build, builder, contents

from shards import verify as module
from shards.errors import DamageError, FormatError
from shards.metadata import NO_CHECKSUM, checksum_fits
from shards.reader import ShardSet
from shards.verify import verify

FAST = ["jpeg", "saliency-jpeg", "maps-float16"]
SLOW = [name for name in FLAVOURS if name not in FAST]


@pytest.fixture(scope="module", params=[*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "set"
    build(folder, request.param)
    return folder


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "set"))


def problems(folder: Path) -> list[str]:
    """What verify says; a refusal to take it for a set counts as found."""
    try:
        found = verify(folder).problems
    except FormatError as error:
        found = [str(error)]
    assert not any("\n" in line for line in found)
    return found


def test_a_shard_that_shrinks_while_it_is_verified_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A map of it would end the process with SIGBUS."""
    compare = module._other_headers

    def cut(*given: Any) -> np.ndarray:
        os.truncate(copy / "train-000001.tar", 0)
        return compare(*given)

    found = ShardSet.open(copy)
    table = found.table("train")
    monkeypatch.setattr(module, "_other_headers", cut)
    with pytest.raises(DamageError, match=r"train-000001\.tar: became shorter while it was read"):
        list(module.shard_disagreements(table, 1, found.info.spec))


def test_a_whole_set_has_no_problems(whole: Path) -> None:
    report = verify(whole)
    assert (report.ok, report.shards, report.samples) == (True, 5, 15)
    assert report.bytes == sum(path.stat().st_size for path in whole.glob("*.tar"))


def test_every_cut_at_a_block_is_found(copy: Path) -> None:
    for name in ("train-000001.tar", "val-000000.tar"):
        data = (copy / name).read_bytes()
        for end in range(0, len(data), 512):
            (copy / name).write_bytes(data[:end])
            assert problems(copy) == [f"{name}: {len(data) - end:,} bytes short"]
            with pytest.raises(DamageError, match=name):
                ShardSet.open(copy).table(name.split("-")[0])
        (copy / name).write_bytes(data)
    assert verify(copy).ok


@pytest.mark.parametrize("flips", [80, pytest.param(1000, marks=pytest.mark.slow)])
def test_flipped_bits_are_found(copy: Path, flips: int) -> None:
    rng = random.Random(0)
    sizes = {copy / name: (copy / name).stat().st_size for name in contents(copy)}
    places = [rng.choices(list(sizes), list(sizes.values()))[0] for _ in range(flips)]
    places += [path for path in sizes if path.suffix != ".tar" for _ in range(flips // 10)]
    for path in places:
        at, bit = rng.randrange(sizes[path]), rng.randrange(8)
        flip(path, at, bit)
        found = problems(copy)
        flip(path, at, bit)
        assert len(found) == 1, (path, at, bit)
        assert path.name in found[0], (path, at, bit)
    assert verify(copy).ok


def test_every_bit_of_dataset_json_counts(whole: Path) -> None:
    data = bytearray((whole / "_meta" / "dataset.json").read_bytes())
    assert checksum_fits(bytes(data))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert not checksum_fits(bytes(data))
        data[bit // 8] ^= 1 << bit % 8
    assert not checksum_fits(data.replace(data[-67:-3], NO_CHECKSUM.encode()))


def flip(path: Path, at: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        value = file.read(1)[0]
        file.seek(at)
        file.write(bytes([value ^ 1 << bit]))


def test_missing_extra_longer_and_swapped(copy: Path) -> None:
    shutil.copy(copy / "val-000001.tar", copy / "val-000002.tar")
    (copy / "_meta" / "build.json").write_text("{}")
    (copy / ".gitattributes").write_text("hidden files are nobody's business")
    (copy / "README.md").unlink()
    (copy / "train-000001.tar").unlink()
    with open(copy / "val-000000.tar", "ab") as file:
        file.write(bytes(512))
    shutil.copy(copy / "_meta" / "index-val.parquet", copy / "_meta" / "index-train.parquet")
    assert verify(copy).problems == [
        "_meta/build.json: not part of this set",
        "val-000002.tar: not part of this set",
        "README.md: missing",
        "_meta/index-train.parquet: sha256 differs",
        "train-000001.tar: missing",
        "val-000000.tar: 512 bytes too long",
    ]


def test_a_folder_in_a_shards_place_is_a_missing_shard(copy: Path) -> None:
    (copy / "val-000000.tar").unlink()
    (copy / "val-000000.tar").mkdir()
    assert verify(copy).problems == ["val-000000.tar: missing"]


def test_what_is_not_a_finished_set(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="not a folder"):
        verify(tmp_path / "nowhere")
    with pytest.raises(FormatError, match="not a shard set"):
        verify(tmp_path)
    with builder(tmp_path / "set"), pytest.raises(FormatError, match=r"unfinished.*same build command"):
        verify(tmp_path / "set")


def test_the_bar_is_for_terminals(whole: Path, capfd: pytest.CaptureFixture) -> None:
    verify(whole, progress=True)
    assert capfd.readouterr() == ("", "")
