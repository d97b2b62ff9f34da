"""Trees and shard sets: the same objects in both, resumable, and never in somebody else's folder."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.build.views import shard_views
from pipelines.commands.synth import synth_app
from pipelines.sources.three_diebench import ThreeDIEBenchSource
from pipelines.synth import SynthConfig, iter_objects, synth_shards, synth_tree
from pipelines.synth import write as writing
from pipelines.synth.glances.write import GlancesConfig, synth_stl10
from pipelines.synth.objects import object_solid, plan_objects
from pipelines.synth.patterns.write import PatternsConfig, synth_cifar100
from shards.errors import UsageError
from shards.reader import ShardSet

SMALL = SynthConfig(objects=12, views=3, size=16, seed=9, families=3)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "tree"
    synth_tree(SMALL, out)
    return out


def test_objects_depend_on_seed_and_index_alone():
    some = list(iter_objects(SMALL))
    more = list(iter_objects(replace(SMALL, objects=15, views=5)))
    for a, b in zip(some, more, strict=False):
        assert (a.synset, a.object_id, a.split) == (b.synset, b.object_id, b.split)
        assert np.array_equal(a.images, b.images[:3])
        assert np.array_equal(a.latents, b.latents[:3])
    other = next(iter_objects(replace(SMALL, seed=10)))
    assert not np.array_equal(other.images, some[0].images)


def test_ood_objects_are_the_validation_objects_seen_otherwise():
    id_val = [item for item in plan_objects(SMALL) if item.split == "val"]
    ood = list(iter_objects(replace(SMALL, ood=True)))
    assert [o.object_id for o in ood] == [item.object_id for item in id_val]
    assert all(np.abs(o.latents[:, :3]).min() >= np.pi / 2 for o in ood)
    for item in id_val:
        a, b = (object_solid(9, item.index, 3) for _ in range(2))
        assert np.array_equal(a.half, b.half)


def test_classes_are_balanced_and_in_both_splits():
    planned = plan_objects(SynthConfig(objects=384))
    for label in range(32):
        mine = [item.split for item in planned if item.label == label]
        assert len(mine) == 12
        assert mine.count("val") == 3
    assert {i.split for i in plan_objects(SynthConfig(objects=64)) if i.label == 31} == {"train", "val"}
    halves = [item.split for item in plan_objects(SynthConfig(objects=100, families=1, val_fraction=0.5))]
    assert halves.count("val") == 50
    assert {item.split for item in plan_objects(SynthConfig(objects=64, val_fraction=0))} == {"train"}


def test_the_tree_is_3diebenchs(tree: Path):
    made = list(iter_objects(SMALL))
    for item in made:
        folder = tree / item.synset / item.object_id
        assert {p.name for p in folder.iterdir()} == {
            f"{n}_{k}.{e}" for k in range(3) for n, e in (("image", "jpg"), ("latent", "npy"))
        }
        for k in range(3):
            latent = np.load(folder / f"latent_{k}.npy", allow_pickle=False)
            assert latent.dtype == np.float64
            assert np.array_equal(latent, item.latents[k])
            bgr = cv2.imread(str(folder / f"image_{k}.jpg"))
            assert bgr is not None
            assert (
                np.abs(bgr[..., ::-1].astype(int) - item.images[k]).mean() < 6
            )  # JPEG at 16 pixels; a swap of red and blue is tens
    for split in ("train", "val"):
        paths = np.load(tree / f"{split}_images.npy", allow_pickle=False)
        labels = np.load(tree / f"{split}_labels.npy", allow_pickle=False)
        assert paths.dtype == np.dtype("<U43")
        assert labels.dtype == np.int64
        assert paths.tolist() == [f"/{o.synset}/{o.object_id}/" for o in made if o.split == split]
        synsets = sorted({o.synset for o in made})
        assert labels.tolist() == [synsets.index(path[1:9]) for path in paths.tolist()]


def test_an_interrupted_tree_is_completed(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out, written = tmp_path / "tree", []

    def stop_at_fifth(folder, item, files):
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(item)
        original(folder, item, files)

    original = writing._write_object
    monkeypatch.setattr(writing, "_write_object", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        synth_tree(SMALL, out)
    monkeypatch.setattr(writing, "_write_object", original)
    assert not (out / "val_images.npy").exists()
    kept = out / written[0].synset / written[0].object_id / "image_0.jpg"
    stamp = kept.stat().st_mtime_ns
    broken = out / written[1].synset / written[1].object_id / "image_1.jpg"
    broken.write_bytes(b"")
    synth_tree(SMALL, out)
    assert kept.stat().st_mtime_ns == stamp
    assert content(out) == content(tree)
    synth_tree(SMALL, out)
    assert content(out) == content(tree)


@pytest.mark.parametrize("name", ["3die", "3die-ood", "stl10", "cifar100"])
def test_a_finished_set_gets_back_what_was_lost_of_it(tmp_path: Path, name: str):
    """A file that somebody deleted, or that a power cut left empty."""
    tiny = SynthConfig(objects=4, views=1, size=16, families=1, ood=name == "3die-ood")
    make = {
        "stl10": partial(synth_stl10, GlancesConfig(train=2, test=1, unlabeled=1)),
        "cifar100": partial(synth_cifar100, PatternsConfig(train=2, test=1, classes=2)),
    }.get(name, partial(synth_tree, tiny))
    make(tmp_path)
    before = content(tmp_path)
    for number, lost in enumerate(sorted(before.keys() - {"synth.json"})):
        (tmp_path / lost).unlink()
        if number % 2:
            (tmp_path / lost).touch()
        make(tmp_path)
        assert content(tmp_path) == before, lost
    stamp = (tmp_path / "synth.json").stat()
    make(tmp_path)
    assert (tmp_path / "synth.json").stat() == stamp  # nothing was lost: nothing is written


def test_another_configuration_is_refused_by_name(tree: Path):
    before = content(tree)
    with pytest.raises(UsageError, match=r"size: 16 there, 32 here") as caught:
        synth_tree(replace(SMALL, size=32), tree)
    assert "\n" not in str(caught.value)
    assert content(tree) == before


def test_a_strangers_folder_is_refused(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not made by this command"):
            synth_tree(SMALL, tmp_path, overwrite=overwrite)
    (tmp_path / "synth.json").write_text("{}")
    with pytest.raises(UsageError, match="not written by this command"):
        synth_tree(SMALL, tmp_path, overwrite=True)
    assert len(content(tmp_path)) == 2


def test_overwriting_removes_only_what_was_made(tmp_path: Path):
    out = tmp_path / "tree"
    synth_tree(replace(SMALL, seed=1), out)
    (out / "notes.txt").write_text("mine")
    (out / "90000000" / "mine").mkdir()
    (out / "90000000" / "mine" / "image_0.jpg").write_bytes(b"mine too")
    synth_tree(replace(SMALL, seed=2, families=2), out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "90000000" / "mine" / "image_0.jpg").exists()
    assert not (out / "90000002").exists()
    assert len(list(out.glob("9*/*/image_0.jpg"))) == 12 + 1


def test_shards_hold_what_the_tree_holds(tree: Path, tmp_path: Path):
    info = synth_shards(SMALL, tmp_path / "direct", samples_per_shard=4)
    shard_views(ThreeDIEBenchSource(tree), tmp_path / "from-tree", size=16, workers=1)
    assert info.classes == ("aircraft", "chair", "mug")
    direct, from_tree = ShardSet.open(tmp_path / "direct"), ShardSet.open(tmp_path / "from-tree")
    for split in ("train", "val"):
        a, b = direct.split(split), from_tree.split(split)
        order = {key: i for i, key in enumerate(a.keys)}
        assert set(a.keys) == set(b.keys)
        for i, key in enumerate(b.keys):
            j = order[key]
            assert a.labels[j] == b.labels[i]
            assert np.array_equal(a.params[j], b.params[i])
            assert np.abs(a.read_view(j, 1).astype(int) - b.read_view(i, 1)).mean() < 6


def test_shards_twice_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        synth_shards(SMALL, tmp_path / name, samples_per_shard=5)
    synth_shards(SMALL, tmp_path / "a", samples_per_shard=5)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_ood_goes_into_a_split_of_its_own(tmp_path: Path):
    info = synth_shards(replace(SMALL, ood=True), tmp_path / "shards")
    assert list(info.splits) == ["ood"]
    synth_tree(replace(SMALL, ood=True), tmp_path / "tree")
    assert not (tmp_path / "tree" / "train_images.npy").exists()
    val = np.load(tmp_path / "tree" / "val_images.npy", allow_pickle=False)
    assert len(val) == info.splits["ood"].samples == 3


def test_the_command_says_how_many_objects_were_written(tmp_path: Path):
    words = ["3die", "--objects", "20", "--views", "2", "--size", "16", "--families", "2", "--seed", "3"]
    for out, option, said in (("whole", (), ": 20 objects"), ("ood", ("--ood",), ": 4 objects")):
        done = CliRunner().invoke(synth_app, [*words, "--out", str(tmp_path / out), *option])
        assert done.exit_code == 0
        assert said in done.output
    assert len(np.load(tmp_path / "ood" / "val_images.npy", allow_pickle=False)) == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"objects": 2}, "objects=2 is fewer than the 3 families"),
        ({"views": 0}, "views=0"),
        ({"views": 1001}, "views=1001"),
        ({"size": 15}, "size=15"),
        ({"size": 1025}, "size=1025"),
        ({"families": 0}, "families=0"),
        ({"families": 1000}, "families=1000"),
        ({"seed": -1}, "seed=-1"),
        ({"val_fraction": 1.0}, "val_fraction=1.0"),
        ({"val_fraction": float("nan")}, "val_fraction=nan"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(wrong: dict, said: str, tmp_path: Path):
    cfg = replace(SMALL, **wrong)
    for write in (synth_tree, synth_shards):
        with pytest.raises(UsageError, match=said) as caught:
            write(cfg, tmp_path / "out")
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=said):
        iter_objects(cfg)
    assert not (tmp_path / "out").exists()
