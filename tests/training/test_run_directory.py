from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import pytest
import torch
from train_helpers import tiny_config

from seqjepa.config import RunConfig
from seqjepa.files import read_checksums, write_file
from seqjepa.training import checkpoint, metrics_log, run
from seqjepa.training.checkpoint import load_run
from seqjepa.training.run import DataInfo, RunPlan, claimed, mark_finished, read_run_config, read_run_json
from seqjepa.training.run_files import LOCK
from seqjepa.training.stopping import StopSignals
from shards.errors import DamageError, DiskFullError, FormatError, UsageError
from shards.machine import lock

DATA = DataInfo("rotation", 4, (0.5, 0.5, 0.5), (0.1, 0.1, 0.1), 32, 32)


def plan(*overrides: str, shards: str = "abc", extend: int | None = None) -> RunPlan:
    config: RunConfig = tiny_config(*overrides, *([f"optim.epochs={extend}"] if extend else []))
    return RunPlan(config, DATA, {"name": "tiny", "train": shards}, extend)


def test_a_new_folder_is_claimed_and_the_same_plan_comes_back(tmp_path):
    out = tmp_path / "deep" / "run"
    for _ in range(2):
        with claimed(out, plan("train.checkpoint_minutes=3")):
            assert {p.name for p in out.iterdir()} == {"config.toml", "run.json", "SHA256SUMS", LOCK}
        assert not (out / LOCK).exists()


def test_a_run_from_before_data_set_goes_on(tmp_path):
    with claimed(tmp_path, plan()):
        pass
    with claimed(tmp_path, plan("data.set=3diebench")):
        assert read_run_config(tmp_path).data.set == ""
    with pytest.raises(UsageError, match="holds another run"), claimed(tmp_path, plan("data.context=1")):
        pass


@pytest.mark.parametrize("number", [0, errno.ENOLCK])
def test_two_trainers_never_share_a_run(tmp_path, monkeypatch, number):
    """Also where the file system has no locks."""

    def refuse(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    if number:
        monkeypatch.setattr(lock.fcntl, "flock", refuse)
    monkeypatch.setattr(lock, "GRACE_SECONDS", 0.1)
    with (
        claimed(tmp_path, plan()),
        pytest.raises(UsageError, match="is being trained by another process: wait for"),
        claimed(tmp_path, plan()),
    ):
        pass
    with claimed(tmp_path, plan()):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"config.toml", "run.json", "SHA256SUMS"}


def test_a_run_that_another_began_while_we_waited_for_its_folder_is_not_ours(tmp_path, monkeypatch):
    locked = run._locked

    @contextmanager
    def after_another(out: Path) -> Iterator[None]:
        monkeypatch.setattr(run, "_locked", locked)
        with claimed(out, plan("seed=7")):
            pass
        with locked(out):
            yield

    monkeypatch.setattr(run, "_locked", after_another)
    with pytest.raises(UsageError, match="seed 7 there, 42 asked"), claimed(tmp_path / "run", plan()):
        pass
    assert read_run_config(tmp_path / "run").seed == 7


def test_a_folder_of_someone_else_is_refused_even_with_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"thesis\.tex.*not a run directory"), claimed(tmp_path, plan(), overwrite):
            pass
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FormatError), claimed(tmp_path, plan(), overwrite=True):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.tex", "run.json"}
    with pytest.raises(UsageError, match="is a file"), claimed(tmp_path / "thesis.tex", plan()):
        pass


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    """A run that lost run.json, an emptied config.toml, a link to nothing, fingerprints that differ late."""
    run = tmp_path / "run"
    with claimed(run, plan(shards="a" * 60 + "b")):
        pass
    with (
        pytest.raises(UsageError, match=r"shards\.train …aaaab… there, …aaaac… asked"),
        claimed(run, plan(shards="a" * 60 + "c")),
    ):
        pass
    (run / "config.toml").write_text("")
    with pytest.raises(UsageError, match=r"config\.toml is empty"), claimed(run, plan(shards="a" * 60 + "b")):
        pass
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"a run whose run\.json is gone"), claimed(run, plan()):
        pass
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="a link that leads nowhere"), claimed(tmp_path / "link", plan()):
        pass


def test_other_settings_or_shards_are_refused_with_a_diff(tmp_path):
    with claimed(tmp_path, plan()):
        pass
    with pytest.raises(UsageError) as caught, claimed(tmp_path, plan("optim.lr=1e-3", "seed=7")):
        pass
    assert "seed 42 there, 7 asked" in str(caught.value)
    assert "optim.lr 0.0004 there, 0.001 asked" in str(caught.value)
    assert "nothing is saved of that run" in str(caught.value)
    (tmp_path / "state.pt").touch()
    with pytest.raises(UsageError) as caught, claimed(tmp_path, plan("seed=7")):
        pass
    assert "nothing is saved" not in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"shards\.train abc there, xyz asked"), claimed(tmp_path, plan(shards="xyz")):
        pass
    with claimed(tmp_path, plan("train.checkpoint_minutes=1")):
        pass


def test_overwrite_begins_anew_and_keeps_what_is_not_ours(tmp_path):
    with claimed(tmp_path, plan()):
        (tmp_path / "state.pt").write_text("old")
        (tmp_path / "notes.txt").write_text("mine")
    with claimed(tmp_path, plan("seed=7"), overwrite=True):
        assert {p.name for p in tmp_path.iterdir()} == {"config.toml", "run.json", "SHA256SUMS", "notes.txt", LOCK}
    with claimed(tmp_path, plan("seed=7")):
        pass


def test_overwrite_removes_the_numbers_of_the_run_before_and_no_others(tmp_path):
    ours = [
        "results.json",
        "results-imagenet-10-224-patch84.json",
        "evaluation/trained/umap.npz",
        "evaluation/asked.json",
    ]
    others = ["results-of-mine.json", "results-x-224-patch84.json.bak", "evaluation/trained/notes.txt"]
    with claimed(tmp_path, plan()):
        (tmp_path / "evaluation" / "trained").mkdir(parents=True)
        (tmp_path / "evaluation" / "untrained-x-224-patch84").mkdir()
        for name in [*ours, *others]:
            (tmp_path / name).write_text("{}")
    with claimed(tmp_path, plan("seed=7"), overwrite=True):
        left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file() and p.name != LOCK}
        assert left == {"config.toml", "run.json", "SHA256SUMS", *others}
        assert not (tmp_path / "evaluation" / "untrained-x-224-patch84").exists()
    (tmp_path / "evaluation" / "trained" / "notes.txt").unlink()
    with claimed(tmp_path, plan("seed=8"), overwrite=True):
        assert not (tmp_path / "evaluation").exists()


def test_overwrite_makes_another_run_of_it_for_loggers(tmp_path):
    """Their ids go, and our own files; what other packages wrote stays."""
    ours = [
        *("loggers/wandb.json", "loggers/wandb.log", "loggers/wandb.lock", "loggers/metrics.csv"),
        *("loggers/events.out.tfevents.1.host.2.0", "pictures/curves-000010.png", "pictures/sequences-000001.png"),
    ]
    others = ["loggers/notes.txt", "loggers/wandb/offline-run-1/run-1.wandb", "loggers/mlruns/0/meta.yaml"]
    for out, there in ((tmp_path / "a", [*ours, *others]), (tmp_path / "b", ours)):
        with claimed(out, plan()):
            for name in there:
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (out / name).write_text("{}")
        with claimed(out, plan("seed=7"), overwrite=True):
            left = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and p.name != LOCK}
            assert left == {"config.toml", "run.json", "SHA256SUMS", *(set(there) - set(ours))}
    assert not (tmp_path / "b" / "loggers").exists()
    assert not (tmp_path / "b" / "pictures").exists()


def test_overwrite_follows_no_link_out_of_the_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere" / "trained"
    elsewhere.mkdir(parents=True)
    (elsewhere / "umap.npz").write_text("precious")
    with claimed(tmp_path / "run", plan()):
        (tmp_path / "run" / "evaluation").symlink_to(elsewhere.parent)
    with claimed(tmp_path / "run", plan("seed=7"), overwrite=True):
        pass
    assert (elsewhere / "umap.npz").exists()


def test_extending_is_recorded_and_repeatable(tmp_path):
    with pytest.raises(UsageError, match="no run"), claimed(tmp_path / "none", plan(extend=9)):
        pass
    assert not (tmp_path / "none").exists()
    with claimed(tmp_path, plan()):
        mark_finished(tmp_path, 3)
    for _ in range(2):
        with claimed(tmp_path, plan(extend=9)):
            info = read_run_json(tmp_path)
    assert info["extended"] == [{"from": 3, "to": 9}]
    assert read_run_config(tmp_path).optim.epochs == 9
    with pytest.raises(UsageError, match="planned to 9 already"), claimed(tmp_path, plan(extend=5)):
        pass
    with pytest.raises(UsageError, match=r"optim.epochs 9 there, 3 asked.*--extend-epochs"), claimed(tmp_path, plan()):
        pass


def test_two_trainers_do_not_share_a_folder(tmp_path):
    with claimed(tmp_path, plan()), pytest.raises(UsageError, match="another process"), claimed(tmp_path, plan()):
        pass
    with claimed(tmp_path, plan()):
        pass


@contextmanager
def stopped_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The block ends before the number-th file gets its name."""
    replace, calls = os.replace, count()

    def stops(*names) -> None:
        if next(calls) == number:
            raise KeyboardInterrupt
        replace(*names)

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(os, "replace", stops)
        yield


@pytest.mark.parametrize("number", range(6))
def test_stopped_at_any_of_its_first_files_it_is_still_ours(tmp_path, monkeypatch, number):
    with stopped_at(number, monkeypatch), claimed(tmp_path, plan()):
        pass
    with claimed(tmp_path, plan()):
        assert read_run_config(tmp_path).seed == plan().config.seed
    assert sorted(read_checksums(tmp_path)) == ["config.toml", "run.json"]


def test_killed_between_the_first_two_files_it_is_still_ours(tmp_path):
    with claimed(tmp_path, plan()):
        (tmp_path / "config.toml").unlink()
    with claimed(tmp_path, plan("seed=9")):
        assert read_run_config(tmp_path).seed == 9


def test_metrics_are_cut_to_the_checkpoint(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics_log.keep_epochs(path, 0)
    for epoch in range(3):
        metrics_log.append_epoch(path, {"epoch": epoch})
    with path.open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert [line["epoch"] for line in metrics_log.read_epochs(path)] == [0, 1, 2]
    metrics_log.keep_epochs(path, 2)
    assert path.read_text() == '{"epoch": 0}\n{"epoch": 1}\n'
    with pytest.raises(DamageError, match="2 epochs but the checkpoint has done 5"):
        metrics_log.keep_epochs(path, 5)


def test_state_is_tensors_and_primitives_and_damage_is_named(tmp_path):
    path = tmp_path / "state.pt"
    assert checkpoint.load_state(path) is None
    checkpoint.save_state({"step": 3, "nested": {"t": torch.arange(3), "x": [1.5, "a"]}}, path)
    loaded = checkpoint.load_state(path)
    assert loaded is not None
    assert (loaded["step"], loaded["nested"]["x"]) == (3, [1.5, "a"])
    whole = path.read_bytes()
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(DamageError, match="damaged"):
            checkpoint.load_state(path)


def test_a_first_state_that_was_noted_and_not_written_stops_no_later_one(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    with stopped_at(1, monkeypatch):
        checkpoint.save_state({"step": 1}, path)
    assert list(read_checksums(tmp_path)) == ["state.pt"]
    assert not path.exists()
    for step in (2, 3):
        checkpoint.save_state({"step": step}, path)
    kept = [tmp_path / name for name in ("state-previous.pt", "state.pt")]
    assert [checkpoint.parse_state(file.read_bytes(), file)["step"] for file in kept] == [2, 3]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_file(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="run the same command again"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_load_run_says_what_is_wrong(tmp_path):
    with pytest.raises(FormatError, match="not a run directory"):
        load_run(tmp_path)
    with claimed(tmp_path, plan()):
        pass
    with pytest.raises(FormatError, match="no checkpoint yet"):
        load_run(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0garbage")
    with pytest.raises(DamageError, match="damaged"):
        load_run(tmp_path)
    text = (tmp_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(FormatError, match="update seqjepa"):
        load_run(tmp_path)


def test_first_signal_is_noted_and_a_second_ctrl_c_acts():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_sigterm_may_come_more_than_once_and_ctrl_c_after_it_acts():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
