"""Loggers get what metrics.jsonl holds, once; whatever they do, the training goes on as without them."""

from __future__ import annotations

import csv
import logging
import os
import re
import shlex
from pathlib import Path

import pytest
from logger_helpers import epochs_of, install_loggers, killed_after_two_epochs, scalars_of
from noise_shards import noise_shards
from python_path import python_path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_helpers import assert_same_end, tiny_config

from seqjepa import plugins
from seqjepa.training.loggers import BUILT_IN, logger_names, process
from seqjepa.training.loggers.tensorboard import TensorBoard
from seqjepa.training.train import train
from shards.errors import ConfigError

OFTEN = ["train.monitor_epochs=2", "train.picture_epochs=2"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("noise") / "set")


@pytest.fixture(scope="module")
def unwatched(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "unwatched"
    train(tiny_config(*OFTEN), shards, run, workers=0, progress=False)
    return run


@pytest.fixture(autouse=True)
def forget_plugins():
    yield
    plugins._found.cache_clear()


def watched(shards: Path, run: Path, *names: str) -> Path:
    settings = [*OFTEN, f"train.loggers={list(names)}".replace("'", '"')]
    train(tiny_config(*settings), shards, run, workers=0, progress=False)
    return run


def test_a_run_that_was_killed_is_whole_in_csv_and_tensorboard(shards, unwatched, tmp_path, monkeypatch, caplog):
    """The kill is in the third epoch, the state is from the beginning: two epochs are logged, and done again."""
    config = tiny_config(*OFTEN, 'train.loggers=["csv", "tensorboard"]')
    killed_after_two_epochs(config, shards, tmp_path, monkeypatch)
    assert_same_end(tmp_path, unwatched)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with (tmp_path / "loggers" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row, line in zip(rows, epochs_of(tmp_path), strict=True):
        numbers = {name: value for name, value in line.items() if not isinstance(value, str)}
        assert {name: float(value) for name, value in row.items() if value} == numbers
    events = EventAccumulator(str(tmp_path / "loggers"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("epoch", "loss", "samples", "lr", "tau", "z_std", "z_rank", "agg_std", "agg_rank", "probe_top1", "probe_r2"),
        *("z_knn", "agg_knn", "z_rankme", "agg_rankme", "monitor_seconds", "views_per_s", "seconds", "devices"),
    }
    for name in ("loss", "epoch", "z_knn", "agg_rankme", "lr"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in scalars_of(tmp_path, name)]
    assert {name: [event.step for event in events.Images(name)] for name in events.Tags()["images"]} == {
        "sequences": [1],
        "curves": [4],
        "features": [4],
    }
    (image,) = events.Images("curves")
    assert image.encoded_image_string == (tmp_path / "pictures" / "curves-000004.png").read_bytes()
    settings = events.Tensors("config")[-1].tensor_proto.string_val[0]
    assert b"| optim.batch_size | `8` |" in settings


def test_what_a_logger_hears(shards, unwatched, tmp_path, monkeypatch):
    install_loggers(tmp_path / "site", monkeypatch)
    assert {*BUILT_IN, "recorder", "gone"} < set(logger_names())
    run = watched(shards, tmp_path / "run", "recorder", "recorder")
    assert_same_end(run, unwatched)
    losses = [line["loss"] for line in epochs_of(run)]
    heard = [
        *("start 0 3", "picture sequences 1 True", f"scalars 2 1 {losses[0]}", f"scalars 4 2 {losses[1]}"),
        *("picture curves 4 True", "picture features 4 True", f"scalars 6 3 {losses[2]}", "finish finished"),
    ]
    assert (run / "recorded.txt").read_text().splitlines() == heard
    assert "a library prints" in (run / "loggers" / "recorder.log").read_text()
    watched(shards, run, "recorder", "csv")  # finished already: csv hears it all, the other nothing again
    assert (run / "recorded.txt").read_text().splitlines() == [*heard, "start 6 3", "finish finished"]
    assert len((run / "loggers" / "metrics.csv").read_text().splitlines()) == 4


REASONS = {
    "nonetwork": "ConnectionError: no route to host",
    "fulldisk": "OSError: [Errno 28] No space left on device",
    "exits": "SystemExit: give me a key",
    "crashes": "its process ended with -6",
    "badpicture": "ValueError: not square",
    "unfinished": "RuntimeError: upload failed",
    "gone": "cannot be loaded: ModuleNotFoundError: No module named 'module_that_is_not_there'",
}


def warned(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Name of a logger → why it is switched off. One line of warning each, and no others."""
    found = {}
    for record in caplog.records:
        if record.levelno >= logging.WARNING:
            line = re.fullmatch(r"logger (\w+) is switched off: (.*); the run goes on without it", record.getMessage())
            assert line is not None, record.getMessage()
            assert line[1] not in found
            found[line[1]] = line[2]
    return found


def test_those_that_fail_are_switched_off_with_one_line_each(shards, unwatched, tmp_path, monkeypatch, caplog):
    install_loggers(tmp_path / "site", monkeypatch)
    run = watched(shards, tmp_path / "run", *REASONS, "recorder")
    assert_same_end(run, unwatched)
    found = warned(caplog)
    assert found.keys() == REASONS.keys()
    assert all(reason in found[name] for name, reason in REASONS.items())
    assert "finish finished" in (run / "recorded.txt").read_text()  # who is well is not touched


def test_one_that_hangs_is_ended(shards, unwatched, tmp_path, monkeypatch, caplog):
    install_loggers(tmp_path / "site", monkeypatch)
    monkeypatch.setattr(process, "SECONDS_TO_FINISH", {**process.SECONDS_TO_FINISH, "finished": 0.5})
    run = watched(shards, tmp_path / "run", "hangs")
    assert_same_end(run, unwatched)
    assert warned(caplog) == {"hangs": "it did not finish within 0.5 s"}


def test_one_that_takes_nothing_is_switched_off_while_training(shards, tmp_path, monkeypatch, caplog):
    """The pipe is full after 64 KiB, which a step must not wait for; so little is held back here."""
    install_loggers(tmp_path / "site", monkeypatch)
    monkeypatch.setattr(process, "MOST_HELD", 2**18)
    loggers = process.Loggers(["hangs"])
    loggers.start(tmp_path, {"name": "x" * 1000}, 0)
    for step in range(1000):
        loggers.scalars({"step": step, "epoch": step, "loss": 0.5, **{f"k{i}": 1.0 for i in range(50)}})
    loggers.finish("finished")
    assert warned(caplog) == {"hangs": "it takes nothing any more"}


def test_the_trainer_dying_is_a_failure_to_the_logger(tmp_path, monkeypatch):
    install_loggers(tmp_path / "site", monkeypatch)
    loggers = process.Loggers(["recorder"])
    loggers.start(tmp_path, {"optim.epochs": 3}, 0)
    child = loggers._processes[0]._child
    assert child is not None
    loggers.scalars({"step": 2, "epoch": 1, "loss": 0.5})
    child.stdin.close()  # as the system does when the trainer is killed
    assert child.wait(30) == 0
    child.stdout.close()
    assert (tmp_path / "recorded.txt").read_text().splitlines() == ["start 0 3", "scalars 2 1 0.5", "finish failed"]


def test_an_interrupted_run_says_so(shards, tmp_path, monkeypatch):
    from seqjepa.training.learner import Learner
    from seqjepa.training.stopping import Interrupted, StopSignals

    install_loggers(tmp_path / "site", monkeypatch)
    update = Learner.update

    def signalled(self, seq, step, *rest):
        if step == 3:
            StopSignals.received = 15
        return update(self, seq, step, *rest)

    monkeypatch.setattr(StopSignals, "__init__", lambda self: setattr(self, "_previous", {}))
    monkeypatch.setattr(StopSignals, "received", 0, raising=False)
    monkeypatch.setattr(Learner, "update", signalled)
    with pytest.raises(Interrupted):
        watched(shards, tmp_path / "run", "recorder")
    assert (tmp_path / "run" / "recorded.txt").read_text().splitlines()[-1] == "finish interrupted"


def test_a_name_that_is_none_is_refused_before_anything_is_written(shards, tmp_path):
    with pytest.raises(ConfigError, match="no logger 'tensorbaord'; there are: csv, mlflow, tensorboard"):
        watched(shards, tmp_path / "run", "tensorbaord")
    assert not (tmp_path / "run").exists()


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "site" / "wandb").mkdir(parents=True)
    (tmp_path / "site" / "wandb" / "__init__.py").write_text("raise ImportError('as if it were not there')")
    monkeypatch.setattr(process, "_environment", lambda: _with_site_first(tmp_path / "site"))
    loggers = process.Loggers(["wandb"])
    loggers.start(tmp_path, {}, 0)
    loggers.finish("finished")
    assert warned(caplog) == {"wandb": "wandb is not installed: pip install 'seqjepa[log]'"}


def _with_site_first(site: Path) -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": python_path(site, root)}


def test_a_command_that_is_shown_takes_a_folder_whose_name_a_shell_would_part(tmp_path):
    run = tmp_path / "Müller #1 & co"
    (run / "loggers").mkdir(parents=True)
    board = TensorBoard()
    said = board.start(run, {}, 0)
    board.finish("finished")
    assert shlex.split(said, comments=True) == ["tensorboard", "--logdir", str(run)]
