"""Damage to what a run keeps: never learned from, never measured, and no more lost than there is to lose."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from train_helpers import make_shards, metrics, tiny_config

from seqjepa import files
from seqjepa.files import read_checksums, write_with_checksum
from seqjepa.training import checkpoint
from seqjepa.training import train as train_module
from seqjepa.training.checkpoint import load_run
from seqjepa.training.train import train
from shards.errors import DamageError, FormatError, SeqJepaError, UsageError

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY_STEP = "train.checkpoint_minutes=1e-9"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("tiny") / "set")


@pytest.fixture(autouse=True)
def _not_warned_yet() -> None:
    files._warn.cache_clear()


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three epochs of three steps, with a checkpoint at each step."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_config(EVERY_STEP), shards, out, workers=0, progress=False)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def again(shards: Path, run: Path) -> dict:
    return train(tiny_config(), shards, run, workers=0, progress=False)


def same(a: Path, b: Path) -> bool:
    weights = (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()
    return weights and metrics(a) == metrics(b)


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def test_sums_are_those_that_sha256sum_checks(whole: Path) -> None:
    lines = (whole / "SHA256SUMS").read_text().splitlines()
    names = ["config.toml", "metrics.jsonl", "model.safetensors", "run.json", "state-previous.pt", "state.pt"]
    assert lines == [f"{hashlib.sha256((whole / name).read_bytes()).hexdigest()}  {name}" for name in names]


@pytest.mark.parametrize("seed", range(3))
def test_a_flipped_state_goes_back_to_the_one_before_and_ends_with_the_same_bits(
    whole: Path, run: Path, shards: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    flip(run / "state.pt", random.Random(seed))
    assert again(shards, run)["status"] == "finished"
    [line] = [record.getMessage() for record in caplog.records]
    assert line == (
        f"{run}/state.pt is damaged: its SHA-256 is not the one in SHA256SUMS; going back to state-previous.pt: "
        "epoch 2.6667, step 8"
    )
    assert same(run, whole)
    assert checkpoint.read_run_json(run)["finished_epochs"] == 3


@pytest.mark.parametrize("size", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 1000)), -1])
def test_a_torn_state_goes_back_too(whole: Path, run: Path, shards: Path, size: int) -> None:
    os.truncate(run / "state.pt", size % (run / "state.pt").stat().st_size)
    again(shards, run)
    assert same(run, whole)


def test_while_an_epoch_is_done_again_the_run_is_not_finished(
    run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run / "state.pt").unlink()
    seen = []
    start = train_module.Trainer.run

    def look(self, stop, progress):
        seen.append((checkpoint.read_run_json(run).get("finished_epochs"), len(metrics(run))))
        start(self, stop, progress)

    monkeypatch.setattr(train_module.Trainer, "run", look)
    again(shards, run)
    assert seen == [(None, 2)]


def test_without_a_whole_state_nothing_is_trained_and_nothing_lost(run: Path, shards: Path) -> None:
    for name in ("state.pt", "state-previous.pt"):
        flip(run / name, random.Random(0))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(DamageError, match=r"state\.pt is damaged.*state-previous\.pt is damaged.*--overwrite"):
        again(shards, run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_whose_state_is_gone_is_not_begun_again(run: Path, shards: Path, finished: bool) -> None:
    for name in ("state.pt", "state-previous.pt"):
        (run / name).unlink()
    if finished:
        (run / "model.safetensors").unlink()
    else:
        text = (run / "run.json").read_text().replace(',\n  "finished_epochs": 3', "")
        write_with_checksum(run / "run.json", text.encode())
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(UsageError, match=r"state\.pt is gone.*--overwrite"):
        again(shards, run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    train(tiny_config(), shards, run, workers=0, progress=False, overwrite=True)
    assert len(metrics(run)) == 3


@pytest.mark.parametrize("seed", range(2))
def test_flipped_weights_are_not_evaluated(
    whole: Path, run: Path, shards: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    flip(run / "model.safetensors", random.Random(seed))
    loaded, right = load_run(run), load_run(whole)
    assert "model.safetensors is damaged" in caplog.text
    assert "the weights in state.pt are used" in caplog.text
    states = (loaded.method.state_dict(), right.method.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert loaded.epochs == right.epochs == 3
    flip(run / "state.pt", random.Random(seed))
    with pytest.raises(DamageError, match=r"model\.safetensors is damaged.*state\.pt is not there or not whole"):
        load_run(run)
    assert load_run(run, untrained=True).epochs == 0


def test_weights_that_are_gone_are_those_of_the_state(whole: Path, run: Path, caplog) -> None:
    (run / "model.safetensors").unlink()
    states = [load_run(folder).method.state_dict() for folder in (run, whole)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert "model.safetensors is gone; `seqjepa train` with the same options writes it anew" in caplog.text


@pytest.mark.parametrize("damage", ["flipped", "empty", "gone"])
def test_weights_are_written_anew_from_a_whole_state(whole: Path, run: Path, shards: Path, damage: str) -> None:
    weights = run / "model.safetensors"
    if damage == "flipped":
        flip(weights, random.Random(1))
    elif damage == "empty":
        weights.write_bytes(b"")
    else:
        weights.unlink()
    assert again(shards, run)["status"] == "finished already"
    assert same(run, whole)
    assert files.read_checked(weights)


def test_damaged_metrics_are_written_anew(whole: Path, run: Path, shards: Path, caplog) -> None:
    path = run / "metrics.jsonl"
    for text in ("", path.read_text().replace('"epoch": 2', '"epoch": 7'), "garbage\n" * 5):
        path.write_text(text)
        again(shards, run)
        assert metrics(run) == metrics(whole)
    assert caplog.text.count("written anew from the checkpoint") == 3


def test_runs_of_earlier_versions_are_read_with_one_warning(run: Path, shards: Path, caplog) -> None:
    (run / "SHA256SUMS").unlink()
    (run / "state-previous.pt").unlink()
    state = checkpoint.load_state(run / "state.pt")
    assert state is not None
    torch.save({key: value for key, value in state.items() if key not in ("log", "epochs")}, run / "state.pt")
    for _ in range(2):
        load_run(run)
    text = [line for line in caplog.text.splitlines() if "model.safetensors has no checksum in SHA256SUMS" in line]
    assert len(text) == 1
    assert again(shards, run)["status"] == "finished already"
    train(tiny_config(), shards, run, workers=0, progress=False, extend_epochs=4)
    assert set(read_checksums(run)) >= {"state.pt", "state-previous.pt", "model.safetensors", "metrics.jsonl"}
    assert len(metrics(run)) == 4


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
def test_weights_of_another_kind_of_numbers_are_refused(run: Path, shards: Path, kind: torch.dtype) -> None:
    (run / "SHA256SUMS").unlink()  # as of a run of somebody else's
    weights = {name: value.to(kind) for name, value in load_file(run / "model.safetensors").items()}
    save_file(weights, run / "model.safetensors")
    with pytest.raises(DamageError, match=rf"is of another model than config\.toml .* is {kind}, not torch\.float32"):
        load_run(run)
    state = checkpoint.load_state(run / "state.pt")
    assert state is not None
    state["learner"]["method"] = weights
    torch.save(state, run / "state.pt")
    with pytest.raises(DamageError, match=rf"state\.pt is not of this run .* is {kind}, not torch\.float32"):
        again(shards, run)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"format": 2}, FormatError, "has format 2, this version reads 1: update seqjepa"),
        ({"step": "x" * 500}, DamageError, "is not of this run"),
        ({"step": 10}, DamageError, "is of step 10, but the run has 9 steps"),
        ({"step": -1}, DamageError, "is of step -1"),
        ({"learner": None}, DamageError, "no 'learner'"),
        ({"learner": {"method": {}, "optimizer": {}}}, DamageError, "is not of this run"),
        ({"probes": 3}, DamageError, "is not of this run"),
        ({"meter": [1]}, DamageError, "is not of this run"),
    ],
)
def test_a_state_of_another_shape_is_one_line(run: Path, shards: Path, change, error, match) -> None:
    state = checkpoint.load_state(run / "state.pt")
    assert state is not None
    changed = {key: value for key, value in {**state, **change}.items() if value is not None}
    buffer = run / "buffer"
    torch.save(changed, buffer)
    write_with_checksum(run / "state.pt", buffer.read_bytes())
    with pytest.raises(error, match=match) as caught:
        again(shards, run)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_no_message_tells_how_to_unpickle(run: Path, shards: Path) -> None:
    import pickle

    (run / "SHA256SUMS").unlink()
    (run / "state-previous.pt").unlink()
    for data in (pickle.dumps(print, protocol=2), pickle.dumps(print), b"", b"\x80\x02garbage"):
        (run / "state.pt").write_bytes(data)
        with pytest.raises(DamageError) as caught:
            again(shards, run)
        assert "weights_only" not in str(caught.value)
        assert "()" not in str(caught.value)


def snapshots(shards: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Copies of the run's folder before and after every step of every write that the run makes."""
    taken: list[Path] = []

    def watch(name: str) -> None:
        work = getattr(os, name)

        def watched(*arguments, **options):
            if out.exists() and str(out) in str(arguments[0]) and (out / "state.pt").exists():
                taken.append(Path(shutil.copytree(out, out.with_name(f"snapshot-{len(taken)}"))))
            return work(*arguments, **options)

        monkeypatch.setattr(os, name, watched)

    with monkeypatch.context():
        for name in ("replace", "link", "unlink"):
            watch(name)
        train(tiny_config(EVERY_STEP, "optim.epochs=1"), shards, out, workers=0, progress=False)
    monkeypatch.undo()
    return taken


def resumes_from(snapshot: Path, shards: Path, right: Path) -> None:
    train(tiny_config("optim.epochs=1"), shards, snapshot, workers=0, progress=False)
    assert same(snapshot, right)
    assert all(len(sums) == 1 for sums in read_checksums(snapshot).values())
    load_run(snapshot)


@pytest.mark.slow
def test_a_kill_between_any_two_writes_costs_nothing(shards, tmp_path, monkeypatch, caplog) -> None:
    out = tmp_path / "run"
    taken = snapshots(shards, out, monkeypatch)
    assert len(taken) > 20
    for snapshot in taken:
        resumes_from(snapshot, shards, out)
    assert "damaged" not in caplog.text
    assert "gone" not in caplog.text


def test_a_kill_in_the_second_save_costs_nothing(shards, tmp_path, monkeypatch, caplog) -> None:
    out = tmp_path / "run"
    for snapshot in snapshots(shards, out, monkeypatch)[8:14:2]:
        resumes_from(snapshot, shards, out)
    assert not [text for text in caplog.messages if "damaged" in text or "gone" in text]


def test_without_links_on_the_file_system_it_is_the_same(whole, shards, tmp_path, monkeypatch) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", none)
    run = tmp_path / "run"
    train(tiny_config(EVERY_STEP), shards, run, workers=0, progress=False)
    assert same(run, whole)
    flip(run / "state.pt", random.Random(0))
    again(shards, run)
    assert same(run, whole)


def test_a_full_disk_leaves_the_checkpoint_and_its_sums(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SeqJepaError, match="no space left"):
        checkpoint.save_state({"step": 1}, run / "state.pt")
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
