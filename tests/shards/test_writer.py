"""Reproducibility, and whose folder it is."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from interposed import before_call
from shard_sets import CLASSES, FLAVOURS, build, builder, contents, sample_of, spec_of

from shards.building import claim, workers
from shards.building.workers import OvertakenError
from shards.errors import DamageError, FailureError, FormatError, UsageError
from shards.layout import Layout
from shards.machine import lock
from shards.reader import ShardSet
from shards.writer import PixelStats, SetBuilder

ROOT = Path(__file__).resolve().parents[2]
FINISHED = ["dataset.json", "index-train.parquet", "index-val.parquet"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_two_builds_are_byte_identical(tmp_path: Path, flavour: str) -> None:
    assert build(tmp_path / "a", flavour) == build(tmp_path / "b", flavour)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    names = sorted(contents(tmp_path / "a"))
    shards = [f"train-00000{n}.tar" for n in range(3)] + [f"val-00000{n}.tar" for n in range(2)]
    meta = ["_meta/dataset.json", "_meta/index-train.parquet", "_meta/index-val.parquet"]
    meta += ["_meta/encoder.safetensors"] if flavour == "features" else []
    assert names == sorted(["README.md", *meta, *shards])


def test_order_of_shards_does_not_matter(tmp_path: Path) -> None:
    build(tmp_path / "a")
    with builder(tmp_path / "b") as target:
        for name in ("val-1", "train-2", "train-0", "val-0", "train-1"):
            split, shard = name.split("-")
            with target.open_shard(split, int(shard)) as writer:
                for number in range(3):
                    sample, pixels = sample_of(split, int(shard), number)
                    writer.add(sample, PixelStats.of(pixels, pixels // 2 * 2))
        target.finish({"command": "tests"})
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_finished_set_is_recognised_and_not_written_again(tmp_path: Path) -> None:
    info = build(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    again = builder(tmp_path)
    assert again.complete
    assert again.info == info
    assert again.done() == {"train-000000", "train-000001", "train-000002", "val-000000", "val-000001"}
    assert again.finish({}) == info
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_another_fingerprint_is_refused_by_name(tmp_path: Path) -> None:
    build(tmp_path, seed=1)
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"seed: 1 there, 2 here.*--out.*--overwrite"):
        builder(tmp_path, seed=2)
    with pytest.raises(UsageError, match='encoding: "raw" there, "jpeg" here'):
        builder(tmp_path, "jpeg", seed=1)
    with pytest.raises(UsageError, match=r"source: .* there, nothing here"):
        SetBuilder(tmp_path, name="toy", spec=spec_of(), classes=CLASSES, fingerprint={"seed": 1})
    assert contents(tmp_path) == before


def test_another_kind_in_the_same_folder_is_refused_by_name(tmp_path: Path) -> None:
    build(tmp_path, "image-raw")
    with pytest.raises(UsageError, match=r'kind: "image" there, "saliency" here; saliency: "none" there, "float16"'):
        builder(tmp_path, "saliency-raw")
    with pytest.raises(UsageError, match=r'kind: "image" there, "maps" here; .*storage: nothing there, "log8" here'):
        builder(tmp_path, "maps-log8")


def test_a_build_from_before_there_were_kinds_is_resumed(tmp_path: Path) -> None:
    """Its build.json has no kind; whatever it finished stays."""
    with builder(tmp_path) as target, target.open_shard("train", 0) as writer:
        writer.add(sample_of("train", 0, 0)[0])
    path = tmp_path / "_meta" / "build.json"
    record = json.loads(path.read_text())
    assert record["identity"].pop("kind") == "views"
    path.write_text(json.dumps(record))
    with builder(tmp_path) as target:
        assert target.done() == {"train-000000"}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_kind_is_resumed_to_the_same_bytes(tmp_path: Path, flavour: str) -> None:
    def stop(name: str) -> None:
        if name == "val-000000":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build(tmp_path / "set", flavour, on_shard=stop)
    written: list[str] = []
    build(tmp_path / "set", flavour, on_shard=written.append)
    assert written == ["val-000000", "val-000001"]
    build(tmp_path / "whole", flavour)
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_overwrite_replaces_only_what_is_ours(tmp_path: Path) -> None:
    build(tmp_path / "wanted", seed=2)
    build(tmp_path / "set", seed=1, samples=2)
    notes = tmp_path / "set" / "notes-000001.tar"
    notes.write_text("mine")
    build(tmp_path / "set", seed=2, overwrite=True)
    assert notes.read_text() == "mine"
    notes.unlink()
    assert contents(tmp_path / "set") == contents(tmp_path / "wanted")


def test_overwrite_builds_a_finished_set_again(tmp_path: Path) -> None:
    written: list[str] = []
    build(tmp_path)
    build(tmp_path, overwrite=True, on_shard=written.append)
    assert len(written) == 5


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "foreign", ["photo.jpg", "_meta/dataset.json", "_meta/notes", "train-000000.tar", "_meta/tmp/x"]
)
def test_a_folder_of_someone_else_is_never_touched(tmp_path: Path, foreign: str, overwrite: bool) -> None:
    path = tmp_path / foreign
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("{}")
    before = contents(tmp_path)
    with pytest.raises(UsageError):
        build(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [foreign.split("/")[0]]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, overwrite: bool) -> None:
    build(tmp_path / "set", seed=1)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.parquet").write_text("mine")
    (tmp_path / "set" / "_meta" / "parts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic links"):
        build(tmp_path / "set", seed=2, overwrite=overwrite)
    assert (tmp_path / "elsewhere" / "x.parquet").exists()


def test_a_file_or_an_impossible_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=str(tmp_path)):
            builder(out)


def test_a_second_builder_helps_unless_it_would_replace(tmp_path: Path) -> None:
    sample, pixels = sample_of("train", 0, 0)
    with builder(tmp_path) as first, builder(tmp_path) as second:
        writer = first.open_shard("train", 0)
        with pytest.raises(UsageError, match=r"another build is writing .*train-000000.tar: wait"):
            second.open_shard("train", 0)
        assert list(second.claims(["train-000000", "train-000001"])) == ["train-000001"]
        assert list(first.claims(["train-000001"])) == []
        with pytest.raises(UsageError, match=r"another build is writing .*: leave out --overwrite to help it"):
            builder(tmp_path, overwrite=True)
        with pytest.raises(UsageError, match="holds another set"):
            builder(tmp_path, seed=1)
        writer.add(sample, PixelStats.of(pixels))
        writer.close()
        assert second.done() == {"train-000000"}
    build(tmp_path, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "_meta").iterdir()) == FINISHED


@pytest.mark.parametrize("begun", ["before the listing", "after it"])
@pytest.mark.parametrize("ends", [False, True])
def test_builders_that_begin_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, ends: bool) -> None:
    """Another builder begins, and may end, while one looks at the empty folder for the first time."""
    look, others = claim._is_untouched, []

    def other_begins() -> None:
        monkeypatch.undo()
        others.append(builder(tmp_path))
        with others[0].open_shard("train", 0) as writer:
            for number in range(3):
                sample, pixels = sample_of("train", 0, number)
                writer.add(sample, PixelStats.of(pixels, pixels // 2 * 2))
        if ends:
            build(tmp_path)
            others[0].close()

    def looks(layout: Layout) -> bool:
        seen = begun == "after it" and look(layout)
        other_begins()
        return seen or look(layout)

    monkeypatch.setattr(claim, "_is_untouched", looks)
    written: list[str] = []
    build(tmp_path, on_shard=written.append)
    assert len(written) == (0 if ends else 4)
    others[0].close()
    with builder(tmp_path):  # whoever comes last clears up
        assert sorted(path.name for path in (tmp_path / "_meta").iterdir()) == FINISHED


@pytest.mark.parametrize("other", ["begins", "ends", "is taken back"])
@pytest.mark.parametrize("step", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_a_builder_begins_as_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str, step: int) -> None:
    """Between any two system calls of the one that comes; unless that holds the folder's lock just then."""
    monkeypatch.setattr(workers, "PATIENCE_SECONDS", 0.05)
    for number in itertools.count(len(other) % step, step):
        folder, others = tmp_path / f"{number}", []
        if other == "is taken back":
            builder(folder).close()

        def act(folder: Path = folder, others: list = others) -> None:
            with contextlib.suppress(UsageError, OvertakenError):
                if other == "is taken back":
                    claim.take_back(Layout(folder))
                elif other == "begins":
                    others.append(builder(folder))
                else:
                    build(folder)

        with before_call(folder, number, act) as between, contextlib.suppress(OvertakenError):
            others.append(builder(folder))
        if not between.acted:
            break
        for one in others:
            one.close()
        assert build(folder).samples == 15
        assert sorted(path.name for path in (folder / "_meta").iterdir()) == FINISHED
    assert number > 10


def test_a_killed_builders_claims_are_anyones(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests' / 'shards')]}\n"
    code += "import os, pathlib, shard_sets\nb = shard_sets.builder(pathlib.Path(sys.argv[1]))\n"
    code += "b.open_shard('train', 0)\nos.kill(os.getpid(), 9)"
    with builder(tmp_path) as living:
        assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -9
        assert list(living.claims(["train-000000"])) == []
        assert living.others_at_work(["train-000000"]) is False
        assert list(living.claims(["train-000000"])) == ["train-000000"]
    build(tmp_path)


def test_a_forked_child_is_no_builder(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'tests' / 'shards')]}\n"
    code += "import os, pathlib, shard_sets, time\nb = shard_sets.builder(pathlib.Path(sys.argv[1]))\n"
    code += "b.open_shard('train', 0)\n"
    code += "if os.fork(): sys.stdin.read(1); os.kill(os.getpid(), 9)\n"
    code += "else: b.close(); print(os.getpid(), flush=True); time.sleep(60)"
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        with builder(tmp_path) as second, pytest.raises(UsageError, match="another build is writing"):
            second.open_shard("train", 0)
        parent.stdin.write("x")
        parent.stdin.close()
        assert parent.wait() == -9
        build(tmp_path)
        os.kill(worker, 9)


def test_an_exception_leaves_no_shard(tmp_path: Path) -> None:
    sample, _ = sample_of("train", 0, 0)
    with builder(tmp_path) as target:
        with pytest.raises(FormatError), target.open_shard("train", 0) as writer:
            writer.add(sample) or writer.add(replace(sample, key="a.b"))
        with pytest.raises(UsageError, match="no samples"), target.open_shard("train", 0):
            pass
        assert target.done() == set()
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".tar", ".parquet")]


def test_a_damaged_shard_of_an_unfinished_set_is_built_again(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    written: list[str] = []

    def stop(name: str) -> None:
        if name == "val-000000":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        build(tmp_path / "set", on_shard=stop)
    shard = tmp_path / "set" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with builder(tmp_path / "set") as target:
        assert target.done() == {"train-000000", "train-000002"}
        assert not shard.exists()
    build(tmp_path / "set", on_shard=written.append)
    assert written == ["train-000001", "val-000000", "val-000001"]
    assert contents(tmp_path / "set") == contents(tmp_path / "whole")


def test_a_finished_set_without_a_shard_says_so(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "val-000001.tar").unlink()
    with pytest.raises(DamageError, match=r"val-000001.tar is missing.*--overwrite"):
        builder(tmp_path)
    build(tmp_path, overwrite=True)
    assert ShardSet.open(tmp_path).split("val")


def test_what_cannot_be_finished(tmp_path: Path) -> None:
    sample, _ = sample_of("train", 0, 0)
    with builder(tmp_path) as target:
        with pytest.raises(UsageError, match="no shard"):
            target.finish({})
        with target.open_shard("train", 1) as writer:
            writer.add(sample)
        with pytest.raises(FailureError, match="train-000000 is missing"):
            target.finish({})
        with target.open_shard("train", 0) as writer:
            writer.add(sample)
        with pytest.raises(FormatError, match="two samples of train have the key 'train_0-0'"):
            target.finish({})
        with pytest.raises(UsageError, match="already finished"):
            target.open_shard("train", 0)


def test_labels_meta_names_and_provenance_are_checked(tmp_path: Path) -> None:
    sample, _ = sample_of("train", 0, 0)
    with builder(tmp_path) as target:
        with target.open_shard("train", 0) as writer:
            writer.add(sample)
            with pytest.raises(FormatError, match="label 3, there are 3 classes"):
                writer.add(replace(sample, label=3))
            with pytest.raises(FormatError, match="unlike"):
                writer.add(replace(sample, meta={"synset": 1, "object": 1}))
        with target.open_shard("train", 1) as writer:
            writer.add(replace(sample, key="b", meta={}))
        with pytest.raises(FormatError, match="samples differ in meta"):
            target.finish({})
        for bad in ({"x": None}, {"x": [{"y": None}]}, {"x": float("nan")}, {"x": {1, 2}}):
            with pytest.raises(FormatError, match=r"provenance|samples differ"):
                target.finish(bad)
        for split, number in (("a/b", 0), ("..", 0), ("Train", 0), ("train", -1), ("train", 10**6)):
            with pytest.raises(UsageError, match="a split is"):
                target.open_shard(split, number)


def test_a_name_that_a_terminal_would_obey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"the name 'a\\x1b\[31m' holds control characters"):
        SetBuilder(tmp_path / "set", name="a\x1b[31m", spec=FLAVOURS["raw"], classes=CLASSES, fingerprint={})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_whose_metadata_cannot_be_read_is_left_alone(tmp_path: Path, overwrite: bool) -> None:
    build(tmp_path / "set")
    info = tmp_path / "set/_meta/dataset.json"
    for damaged in (b"{", info.read_bytes().replace(b"toy", b"joy", 1), b"{}"):
        info.write_bytes(damaged)
        before = contents(tmp_path / "set")
        with pytest.raises(FormatError, match=r"dataset\.json .*; choose another --out, or remove .*set yourself"):
            build(tmp_path / "set", overwrite=overwrite)
        assert contents(tmp_path / "set") == before


def build_while_it_is_removed(out: Path, moment: str) -> None:
    with builder(out) as target:
        if moment == "open":
            shutil.rmtree(out)
        with target.open_shard("train", 0) as writer:
            writer.add(sample_of("train", 0, 0)[0])
            if moment == "close":
                shutil.rmtree(out)
        shutil.rmtree(out)
        target.done()


@pytest.mark.parametrize("moment", ["open", "close", "look"])
def test_a_folder_that_is_removed_while_it_is_built_is_named(tmp_path: Path, moment: str) -> None:
    with pytest.raises(OvertakenError, match=r"set was removed while it was built: run the same command again"):
        build_while_it_is_removed(tmp_path / "set", moment)


def test_psnr_and_normalisation_are_in_the_metadata(tmp_path: Path) -> None:
    info = build(tmp_path)
    # Half of all values are odd, by 1: a mean squared error of about 1/2.
    assert info.provenance["psnr_db"] == pytest.approx(51.1, abs=1.0)
    assert all(0.3 < mean < 0.7 for mean in info.normalisation["mean"])
