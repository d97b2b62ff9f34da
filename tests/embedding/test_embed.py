"""`seqjepa embed`: what is in its files is what Model.embed and Model.aggregate give, row by row."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from interposed import before_call
from noise_shards import noise_shards
from ordered_sets import write_walks
from PIL import Image
from small_backbone import SMALL
from typer.testing import CliRunner

import seqjepa
from cli import seqjepa_app
from seqjepa.data.draws import Purpose
from seqjepa.embedding import parts as parts_module
from seqjepa.embedding import run as embedding
from seqjepa.embedding.formats import read_facts
from seqjepa.embedding.parts import Parts
from seqjepa.embedding.run import Asked, embed_run
from seqjepa.evaluate.features import encode_views
from seqjepa.recipes import load_recipe
from seqjepa.training.train import train
from shards.errors import ConfigError, UsageError
from shards.machine import lock
from shards.reader import ShardSet

TINY = ("model.width=0.125", "model.layers=1", "model.ff_mult=1", "model.action_dim=8", "model.predictor_hidden=16")
SETTINGS = ("data.image_size=0", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=8", *TINY)
ARRAY = ("--engine", "slurm", "--num-tasks", "2", "--script", "a.sbatch")
CLOSE: Any = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("embed") / "set", train=10, val=6)


@pytest.fixture(scope="module")
def run(shards: Path) -> Path:
    out = shards.parent / "run"
    train(load_recipe("3die-rot-M3", [SMALL, *SETTINGS, "data.context=2"]), shards, out, workers=0, device="cpu")
    return out


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many kinds and sizes, a text file, and folders in folders."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    (folder / "b" / "ü").mkdir(parents=True)
    for name, size in (("c.jpg", (20, 30)), ("a.png", (16, 16)), ("b/ü/d.webp", (40, 11)), ("b/e.gif", (9, 9))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / name)
    Image.fromarray(rng.integers(0, 256, (17, 23), np.uint8)).save(folder / "grey.tiff")
    (folder / "notes.txt").write_text("no picture")
    return folder


def embedded(run: Path, out: Path, **asked: Any) -> dict[str, Any]:
    overwrite = asked.pop("overwrite", False)
    return embed_run(run, out, Asked(**asked), device="cpu", overwrite=overwrite, progress=False)


def pixels_of(shards: Path, split: str) -> np.ndarray:
    """uint8 [S, N, H, W, 3]"""
    index = ShardSet.open(shards).split(split)
    return np.stack([[index.read_view(s, v) for v in range(index.n_views[s])] for s in range(len(index))])


def test_parquet_has_a_row_for_each_view(run: Path, shards: Path, tmp_path: Path) -> None:
    facts = embedded(run, tmp_path / "f.parquet", shards=shards, batch_size=7)
    table = pq.read_table(tmp_path / "f.parquet")
    index = ShardSet.open(shards).split("val")
    rows = slice(40, 64)
    assert (table.num_rows, facts["rows"], facts["splits"]) == (64, 64, {"train": 40, "val": 24})
    assert table["key"].to_pylist()[rows] == [key for key in index.keys for _ in range(4)]
    assert table["split"].to_pylist() == ["train"] * 40 + ["val"] * 24
    assert table["view"].to_pylist()[rows] == list(range(4)) * 6
    assert table["label"].to_pylist()[rows] == np.repeat(index.labels, 4).tolist()
    assert table["class"].to_pylist()[rows] == [("dark", "bright")[n] for n in np.repeat(index.labels, 4)]
    for i, name in enumerate(index.param_names):
        assert np.array_equal(np.array(table[f"params.{name}"])[rows], index.params[..., i].reshape(-1))
    z = np.array(table["z"].to_pylist(), np.float32)
    expected = seqjepa.load(run, "cpu").embed(pixels_of(shards, "val")).flatten(0, 1)
    torch.testing.assert_close(torch.from_numpy(z[rows]), expected, **CLOSE)
    assert json.loads(table.schema.metadata[b"seqjepa"]) == facts
    assert not list(tmp_path.glob("*.parts"))


def test_z_agg_is_of_the_views_that_evaluation_draws(run: Path, shards: Path, tmp_path: Path) -> None:
    facts = embedded(run, tmp_path / "f.parquet", shards=shards, splits=("val",))
    table, views = pq.read_table(tmp_path / "f-z_agg.parquet"), pq.read_table(tmp_path / "f.parquet")
    assert facts["z_agg"] == {"sequences": 6, "context": 2, "features": 72}
    model, index = seqjepa.load(run, "cpu"), ShardSet.open(shards).split("val")
    stats = tuple(model.data.mean), tuple(model.data.std)
    features = encode_views(model.method, index, stats, model.device)
    places = features.draw(0, 0, Purpose.EVALUATION, 2)
    rows = np.array(table["rows"].to_pylist())
    assert np.array_equal(rows, places)
    assert table["key"].to_pylist() == index.keys
    assert np.array_equal(np.array(views["view"])[rows], np.array(table["views"].to_pylist()))
    expected = model.aggregate(
        None, features.actions(places, model.action_spec.spec), z=features.z_of(torch.from_numpy(places))
    )
    found = torch.tensor(table["z_agg"].to_pylist())
    torch.testing.assert_close(found, expected, **CLOSE)


def test_npz_has_the_same_by_name(run: Path, shards: Path, tmp_path: Path) -> None:
    facts = embedded(run, tmp_path / "f.npz", shards=shards, context=3)
    embedded(run, tmp_path / "f.parquet", shards=shards, context=3)
    table, agg = pq.read_table(tmp_path / "f.parquet"), pq.read_table(tmp_path / "f-z_agg.parquet")
    with np.load(tmp_path / "f.npz", allow_pickle=False) as npz:
        assert np.array_equal(npz["z"], np.array(table["z"].to_pylist(), np.float32))
        assert npz["keys"][npz["sample"]].tolist() == table["key"].to_pylist()
        assert npz["splits"][npz["sample"]].tolist() == table["split"].to_pylist()
        assert np.array_equal(npz["labels"], table["label"])
        assert np.array_equal(npz["views"], table["view"])
        assert npz["classes"].tolist() == ["dark", "bright"]
        params = np.stack([np.array(table[f"params.{name}"]) for name in npz["param_names"]], axis=1)
        assert np.array_equal(npz["params"], params)
        assert np.array_equal(npz["z_agg"], np.array(agg["z_agg"].to_pylist(), np.float32))
        assert np.array_equal(npz["z_agg_rows"], np.array(agg["rows"].to_pylist()))
        assert json.loads(str(npz["seqjepa"])) == facts


def test_npy_is_z_alone_and_half_precision_rounds(run: Path, shards: Path, tmp_path: Path) -> None:
    facts = embedded(run, tmp_path / "f.npy", shards=shards, dtype="float16")
    assert facts["without_z_agg"] == "an .npy file has room for z alone"
    embedded(run, tmp_path / "g.npz", shards=shards)
    whole = np.load(tmp_path / "g.npz")["z"]
    half = np.load(tmp_path / "f.npy", allow_pickle=False)
    assert half.dtype == np.float16
    assert np.array_equal(half, whole.astype(np.float16))
    assert json.loads((tmp_path / "f.npy.json").read_text()) == facts
    embedded(run, tmp_path / "h.parquet", shards=shards, dtype="float16")
    assert np.array_equal(np.array(pq.read_table(tmp_path / "h.parquet")["z"].to_pylist(), np.float16), half)


def test_images_are_those_that_model_embed_takes(run: Path, photos: Path, tmp_path: Path) -> None:
    facts = embedded(run, tmp_path / "f.parquet", images=photos)
    table = pq.read_table(tmp_path / "f.parquet")
    names = ["a.png", "b/e.gif", "b/ü/d.webp", "c.jpg", "grey.tiff"]
    assert table["key"].to_pylist() == names
    model = seqjepa.load(run, "cpu")
    expected = []
    for name in names:
        with Image.open(photos / name) as image:
            expected.append(model.embed(image))
    expected = torch.stack(expected)
    torch.testing.assert_close(torch.tensor(table["z"].to_pylist()), expected, **CLOSE)
    assert facts["without_z_agg"] == "images are embedded whole, each by itself"
    assert set(table["label"].to_pylist()) == {-1}


def test_broken_files_are_left_out_and_named(run: Path, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.jpg").write_bytes((photos / "c.jpg").read_bytes())
    (folder / "3.jpg").write_bytes(b"no picture")
    (folder / "5.jpg").write_bytes((photos / "c.jpg").read_bytes()[:300])
    Image.new("L", (9000, 2)).save(folder / "wide.png")
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.jpg")).write_bytes((photos / "c.jpg").read_bytes())
    words = ["embed", str(run), "--images", str(folder), "-o", str(tmp_path / "f.npz"), "--device", "cpu"]
    for _ in range(2):  # the second time all is there
        done = CliRunner().invoke(seqjepa_app, [*words, "--batch-size", "2"])
        assert done.exit_code == 1, done.output
        line = next(line for line in done.output.splitlines() if "cannot be read" in line)
        assert line.startswith("4 files cannot be read and are left out: 3.jpg (not an image that PIL reads), 5.jpg (")
        assert "wide.png (9000×2 pixels; at most 8192 a side)" in line
        assert "its name is not UTF-8" in line
    with np.load(tmp_path / "f.npz") as npz:
        assert npz["keys"][npz["sample"]].tolist() == [f"{n}.jpg" for n in (0, 1, 2, 4, 6)]
        assert len(np.unique(npz["z"].round(4), axis=0)) == 1
        assert npz["z"].any()


@pytest.mark.parametrize("suffix", [".parquet", ".npz", ".npy"])
def test_a_stopped_command_goes_on_to_the_same_bytes(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 8)
    whole, stopped = tmp_path / f"whole{suffix}", tmp_path / f"stopped{suffix}"
    embedded(run, whole, shards=shards, batch_size=4)
    encoded, calls = embedding._Work._encoded, []

    def stop_at_the_fourth(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encoded(*given)

    monkeypatch.setattr(embedding._Work, "_encoded", stop_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        embedded(run, stopped, shards=shards, batch_size=4)
    assert not stopped.exists()
    for other, changed in (("dtype", {"dtype": "float16"}), ("input", {"splits": ("val", "train")})):
        with pytest.raises(UsageError, match=rf"parts of another embedding \(another {other}\)"):
            embedded(run, stopped, shards=shards, batch_size=4, **changed)
    embedded(run, stopped, shards=shards, batch_size=4)
    assert len(calls) == 4 + 5  # 40 and 24 views in parts of 8: three were there
    assert stopped.read_bytes() == whole.read_bytes()
    if suffix == ".parquet":
        assert (tmp_path / "stopped-z_agg.parquet").read_bytes() == (tmp_path / "whole-z_agg.parquet").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_what_is_finished_is_not_made_again_and_what_is_foreign_stays(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "f.parquet"
    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(Parts, "remove", Mock(side_effect=KeyboardInterrupt))
        embedded(run, out, shards=shards)
    facts, before = read_facts(out), out.stat().st_mtime_ns
    assert list(tmp_path.glob("*.parts"))
    with monkeypatch.context() as patched:
        patched.setattr(embedding, "_embedded", None)
        assert embedded(run, out, shards=shards) == facts
    assert out.stat().st_mtime_ns == before
    assert not list(tmp_path.glob("*.parts"))  # of the first call
    with pytest.raises(UsageError, match="is of another run, input or options"):
        embedded(run, out, shards=shards, splits=("val",))
    assert embedded(run, out, shards=shards, splits=("val",), overwrite=True)["rows"] == 24
    for name in ("mine.parquet", "mine.npz", "mine.npy", "o-z_agg.parquet", "o.npy.json"):
        (tmp_path / name).write_bytes(b"mine")
    for name in ("mine.parquet", "mine.npz", "mine.npy", "o.parquet", "o.npy"):
        with pytest.raises(UsageError, match="was not made by `seqjepa embed`"):
            embedded(run, tmp_path / name, shards=shards, overwrite=True)
    (tmp_path / "p.npz.parts").mkdir()
    (tmp_path / "p.npz.parts" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds 'notes\.txt', which is not ours"):
        embedded(run, tmp_path / "p.npz", shards=shards, overwrite=True)
    assert (tmp_path / "mine.npy").read_bytes() == b"mine"


def test_windows_of_ordered_sequences(tmp_path: Path) -> None:
    walks = write_walks(tmp_path / "walks", {"train": (14, 9, 3, 23)}).path
    ordered = ("data.order=window", "data.stride=2", "data.context=2", "data.action=shards", "optim.batch_size=4")
    config = load_recipe("views-tiny", ["optim.epochs=1", *ordered, SMALL, *TINY, "data.image_size=0"])
    train(config, walks, tmp_path / "run", workers=0, device="cpu")
    embedded(tmp_path / "run", tmp_path / "f.npz", shards=walks, context=3)
    model, index = seqjepa.load(tmp_path / "run", "cpu"), ShardSet.open(walks).split("train")
    with np.load(tmp_path / "f.npz") as npz:
        rows, x = npz["z_agg_rows"], npz["params"][:, npz["param_names"].tolist().index("x")]
        assert len(rows) == sum(length - 4 for length in (14, 9, 23))  # every window of five steps
        assert (np.diff(rows, axis=1) == 2).all()
        assert (np.diff(x[rows], axis=1) == 2).all()
        torque = npz["params"][:, npz["param_names"].tolist().index("torque")]
        assert (npz["views"] == index.sequences.steps).all()
        actions = np.stack([torque[rows[:, :2]] + torque[rows[:, :2] + 1], np.full((len(rows), 2), 2.0)], axis=-1)
        expected = model.aggregate(None, actions.astype(np.float32), z=torch.from_numpy(npz["z"][rows]))
        torch.testing.assert_close(torch.from_numpy(npz["z_agg"]), expected, **CLOSE)
    again = embedded(tmp_path / "run", tmp_path / "g.npz", shards=noise_shards(tmp_path / "objects"))
    assert again["without_z_agg"] == "the run's actions need torque, x, which the shards do not have"


@pytest.mark.parametrize(
    ("asked", "out", "found"),
    [
        ({}, "f.npz", "give either --shards or --images"),
        ({"shards": True, "images": Path(".")}, "f.npz", "give either --shards or --images"),
        ({"shards": True}, "f.csv", r"ends in none of \.parquet, \.npz, \.npy"),
        ({"shards": True}, "no/f.npz", "no is not a folder"),
        ({"images": Path("nowhere")}, "f.npz", "nowhere is not a folder"),
        ({"images": Path("."), "splits": ("val",)}, "f.npz", "--split is for --shards"),
        ({"shards": True, "context": 9}, "f.npz", "--context 9: there is no z_AGG: no sequence of split"),
        ({"shards": True, "context": 2}, "f.npy", "--context 2: there is no z_AGG: an .npy file has room"),
        ({"shards": True, "splits": ("dev",)}, "f.npz", "has no split 'dev'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    run: Path, shards: Path, tmp_path: Path, asked: dict[str, Any], out: str, found: str
) -> None:
    given = {**asked, **({"shards": shards} if asked.get("shards") else {})}
    with pytest.raises((UsageError, ConfigError), match=found):
        embedded(run, tmp_path / out, **given)
    assert not list(tmp_path.iterdir())


def test_folders_without_images(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no images; PIL reads \.jpeg, \.png, \.webp and \d+ more$"):
        embedded(run, tmp_path / "f.npz", images=tmp_path)


def test_the_command(run: Path, shards: Path, tmp_path: Path) -> None:
    words = ["embed", str(run), "--shards", str(shards), "-o", str(tmp_path / "f.parquet"), "--device", "cpu"]
    done = CliRunner().invoke(seqjepa_app, [*words, "--split", "val"])
    assert done.exit_code == 0, done.output
    assert "z of 24 views (val 24), 64 numbers each, float32" in done.output
    assert "z_agg of 6 sequences of 2 views, 72 numbers each" in done.output
    done = CliRunner().invoke(seqjepa_app, [*words, "--split", "val", "--json"])
    assert json.loads(done.output)["rows"] == 24
    done = CliRunner().invoke(seqjepa_app, [*words, "--dtype", "int8"])
    assert done.exit_code == 2


def command(run: Path, shards: Path, out: Path, *words: str) -> Any:
    return CliRunner().invoke(
        seqjepa_app, ["embed", str(run), "--shards", str(shards), "--device", "cpu", "-o", str(out), *words]
    )


def test_tasks_fill_parts_and_the_last_one_joins_them(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 8)
    whole, out = tmp_path / "whole.npz", tmp_path / "many.npz"
    assert command(run, shards, whole, "--batch-size", "8").exit_code == 0

    def task(index: int) -> Any:
        return command(run, shards, out, "--batch-size", "8", "--task-index", str(index), "--num-tasks", "3")

    for index, parts in ((2, 2), (0, 3)):
        done = task(index)
        assert (done.exit_code, done.output) == (0, f"task {index} of 3: {parts} parts of {out}, {parts * 8} rows\n")
        assert not out.exists()
    last = task(1)
    assert last.exit_code == 0
    assert last.output.startswith(f"{out}: z of 64 views")
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts"))
    assert task(0).output == last.output


def test_the_plain_command_joins_what_tasks_left(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "PART_ROWS", 8)
    whole, out, of_tasks = tmp_path / "whole.npz", tmp_path / "many.npz", Parts.take_all
    assert command(run, shards, whole, "--batch-size", "8").exit_code == 0
    monkeypatch.setattr(Parts, "take_all", lambda parts: False)  # as if each saw another one at work, that was killed
    for index in range(3):
        command(run, shards, out, "--batch-size", "8", "--task-index", str(index), "--num-tasks", "3")
    monkeypatch.setattr(Parts, "take_all", of_tasks)
    assert len(list(tmp_path.glob("many.npz.parts/z-*.npy"))) == 8
    monkeypatch.setattr(embedding._Work, "_encoded", lambda *_: pytest.fail("a part was not there"))
    assert command(run, shards, out, "--batch-size", "8").exit_code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.parametrize("name", ["f.npz", "f.npy"])
def test_a_finished_file_is_not_made_again_in_any_format(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = command(run, shards, tmp_path / name, "--json")
    monkeypatch.setattr(embedding, "_embedded", None)
    again = command(run, shards, tmp_path / name, "--json")
    assert (again.exit_code, again.output) == (0, first.output)


def test_of_tasks_that_end_together_one_joins(tmp_path: Path) -> None:
    """Whoever sees another one at work leaves it to that one."""
    for turn in range(10):
        tasks = [Parts(tmp_path / f"{turn}.parts", {"turn": turn}, False, task) for task in range(3)]
        with ThreadPoolExecutor(3) as pool:
            taken = list(pool.map(Parts.take_all, tasks))
        assert sum(taken) == 1
        tasks[taken.index(True)].remove()
        assert not (tmp_path / f"{turn}.parts").exists()


@pytest.mark.parametrize("ends", [False, True])
def test_a_task_begins_as_another_begins_or_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool) -> None:
    monkeypatch.setattr(parts_module, "PATIENCE_SECONDS", 0.1)
    for number in itertools.count():
        folder, identity, others = tmp_path / f"{number}.parts", {"number": number}, []

        def begin(folder: Path = folder, identity: dict = identity, others: list = others) -> None:
            with contextlib.suppress(UsageError):  # the first holds the folder for a moment
                others.append(Parts(folder, identity, False, 1))
                others[0].filled("z-0-000000", 2, 3, lambda: (np.zeros((2, 3), np.float32), []))

        def end(others: list = others) -> None:
            if others[0].take_all():
                others[0].remove()

        if ends:
            begin()
        with before_call(folder, number, end if ends else begin) as between:
            late = Parts(folder, identity, False, 0)
        if not between.acted:
            break
        for parts in others:
            parts.release()
        assert late.take_all()
        late.remove()
        assert not folder.exists()
    assert number > 8


def test_what_another_command_finishes_meanwhile_is_not_made_again(
    run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "z.npy", []

    def enter_late(*args: Any) -> Parts:
        monkeypatch.setattr(embedding, "Parts", Parts)
        made.append(embed_run(run, out, Asked(shards=shards), progress=False))
        monkeypatch.setattr(embedding, "_Work", None)  # from here on nothing can be made
        return Parts(*args)

    monkeypatch.setattr(embedding, "Parts", enter_late)
    assert [embed_run(run, out, Asked(shards=shards), progress=False)] == made
    assert sorted(path.name for path in tmp_path.iterdir()) == ["z.npy", "z.npy.json"]


def test_a_task_that_is_at_work_keeps_others_out(run: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "many.npz"
    held: list[Any] = []

    def start(self: Any, sources: Any, task: Any) -> dict[str, Any]:
        for words, said in (
            (("--task-index", "1", "--num-tasks", "2"), "task 1 of this `seqjepa embed` is at work"),
            ((), "task 1 of this `seqjepa embed` is at work"),
            (("--dtype", "float16", "--overwrite"), "task 1 of this `seqjepa embed` is at work"),
        ):
            held.append(found := command(run, shards, out, *words))
            assert (found.exit_code, said in found.output) == (2, True), found.output
        return {"task": 1, "tasks": 2, "parts": 0, "rows": 0}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding._Work, "share", start)
        patch.setattr(lock, "GRACE_SECONDS", 0.1)
        assert command(run, shards, out, "--task-index", "1", "--num-tasks", "2").exit_code == 0
    assert len(held) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task-index", "1"), "belong together"),
        (("--task-index", "2", "--num-tasks", "2"), "0 to 1 is allowed"),
        (("--task-index", "0", "--num-tasks", "2", "--engine", "ray"), "choose one"),
        (("--engine", "spark"), "allowed are local, ray and slurm"),
        (("--address", "auto"), "--address is for --engine ray"),
        (("--script", "a.sbatch"), "--script is for --engine slurm"),
        (("--engine", "slurm", "--script", "a.sbatch"), "needs --num-tasks N and --script FILE"),
        (("--engine", "slurm", "--num-tasks", "2"), "needs --num-tasks N and --script FILE"),
        ((*ARRAY, "--task-index", "0"), "--task-index is not for --engine slurm"),
        ((*ARRAY, "--address", "auto"), "--address is not for --engine slurm"),
        ((*ARRAY, "--context", "9"), "--context 9: there is no z_AGG"),
    ],
)
def test_wrong_ways_to_share_the_work(
    run: Path, shards: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    found = command(run, shards, tmp_path / "f.npz", *words)
    assert (found.exit_code, said in found.output) == (2, True), found.output


def test_the_script_of_an_array(run: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    more = ("--split", "val", "--context", "2", "--cache", "/c d", "--json", "--overwrite")
    told = command(run, shards, Path("f.npz"), *ARRAY, *more)
    assert json.loads(told.output) == {"script": "a.sbatch", "tasks": 2}
    lines = Path("a.sbatch").read_text().splitlines()
    assert {"#SBATCH --array=0-1", "#SBATCH --cpus-per-task=8 --mem=16G --time=24:00:00", f"cd {tmp_path}"} <= {*lines}
    words = shlex.split(next(line for line in lines if " embed " in line).removesuffix(" & pid=$!"))
    assert words[1:3] == ["embed", str(run)]
    assert words[-5:] == ["--overwrite", "--task-index", "$SLURM_ARRAY_TASK_ID", "--num-tasks", "2"]
    given = dict(zip(words[3:-5:2], words[4:-5:2], strict=True))
    assert given["--cache"] == "/c d"
    assert given["--split"] == "val"
    assert (tmp_path / "f.npz.logs").is_dir()
