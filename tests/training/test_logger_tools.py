"""W&B (offline), Trackio and MLflow, read back from what they keep on this machine; none talks to the network."""

from __future__ import annotations

import json
import logging
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from logger_helpers import epochs_of, killed_after_two_epochs, scalars_of
from noise_shards import noise_shards
from train_helpers import metrics, tiny_config

from seqjepa.training.train import train

pytestmark = pytest.mark.tools

SETTINGS = ["train.monitor_epochs=2", "train.picture_epochs=2", 'train.loggers=["wandb", "trackio", "mlflow"]']
NO_NETWORK = """
import os, socket
def told(where):
    with open(os.environ["TOLD"], "a") as file:
        file.write(f"{where}\\n")
    raise OSError("no network in this test")
connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo
def guarded(self, address):
    local = self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1", "localhost")
    return connect(self, address) if local else told(address)
def looked_up(host, *rest, **more):
    return getaddrinfo(host, *rest, **more) if host in (None, "127.0.0.1", "::1", "localhost") else told(host)
socket.socket.connect, socket.getaddrinfo = guarded, looked_up
"""


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with "run", which was killed in its third epoch and went on, and "told", connections that were tried."""
    folder = tmp_path_factory.mktemp("tools")
    shards = noise_shards(folder / "set")
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NO_NETWORK)
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "site"))
        patch.setenv("TOLD", str(folder / "told"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        patch.setenv("HF_TOKEN", "hf_" + "x" * 34)  # with which trackio would ask the hub for a name
        for name in ("MLFLOW_TRACKING_URI", "WANDB_PROJECT", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID"):
            patch.delenv(name, raising=False)
        logging.getLogger("seqjepa").addHandler(handler)
        try:
            killed_after_two_epochs(tiny_config(*SETTINGS), shards, folder / "run", patch)
        finally:
            logging.getLogger("seqjepa").removeHandler(handler)
    logs = "\n".join(path.read_text() for path in (folder / "run" / "loggers").glob("*.log"))
    assert [record.getMessage() for record in records] == [], logs
    train(tiny_config(*SETTINGS[:2]), shards, folder / "unwatched", workers=0, progress=False)
    return folder


def test_nothing_was_sent_and_nothing_changed(where: Path):
    assert not (where / "told").exists() or (where / "told").read_text() == ""
    assert metrics(where / "run") == metrics(where / "unwatched")


def records_of(file: bytes) -> Iterator[bytes]:
    """Of W&B's file: LevelDB's log format in blocks of 32 KiB, after 7 bytes of W&B's own in the first one."""
    at, whole = 7, b""
    assert file[:4] == b":W&B"
    while at + 7 <= len(file):
        if 2**15 - at % 2**15 < 7:  # no header fits in what is left of a block
            at += 2**15 - at % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", file[at : at + 7])
        whole += file[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_wandb_has_one_run_in_two_parts(where: Path):
    """Each part is a file that `wandb sync` sends to the run of the same id."""
    from wandb.proto.wandb_internal_pb2 import Record

    known = json.loads((where / "run" / "loggers" / "wandb.json").read_text())
    parts = sorted((where / "run" / "loggers" / "wandb").glob("offline-run-*"), key=lambda part: part.stat().st_mtime)
    assert len(parts) == 2
    assert {part.name.rsplit("-", 1)[1] for part in parts} == {known["id"]}
    steps, losses, settings, images = [], [], set(), 0
    for part in parts:
        for data in records_of(next(part.glob("*.wandb")).read_bytes()):
            record = Record.FromString(data)
            values = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            if "loss" in values:
                steps.append(record.history.step.num)
                losses.append(json.loads(values["loss"]))
            settings |= {item.key for item in record.run.config.update} if record.HasField("run") else set()
            images += sum(name.startswith(("curves", "features", "sequences")) for name in values)
    assert list(zip(steps, losses, strict=True)) == scalars_of(where / "run", "loss")
    assert "optim.batch_size" in settings
    assert images
    assert known["step"] == 6


def test_trackio_has_one_run_in_its_database(where: Path):
    known = json.loads((where / "run" / "loggers" / "trackio.json").read_text())
    with sqlite3.connect(where / "trackio" / "seqjepa.db") as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        (config,) = database.execute("SELECT config FROM configs").fetchall()
    assert {row[0] for row in rows} == {f"run-{known['id'][:6]}"}
    found = [(step, json.loads(values)) for _, step, values in rows]
    for name in ("loss", "epoch", "z_knn", "agg_rankme"):
        assert [(step, values[name]) for step, values in found if name in values] == scalars_of(where / "run", name)
    assert {name for _, values in found for name in values} >= {"sequences", "curves", "features"}
    assert json.loads(config[0])["optim.batch_size"] == 8
    assert list((where / "trackio" / "media").rglob("*.png"))


def test_mlflow_has_one_run_that_is_finished(where: Path, monkeypatch: pytest.MonkeyPatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=(where / "run" / "loggers" / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("seqjepa")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["optim.batch_size"] == "8"
    for name in ("loss", "z_knn"):
        history = client.get_metric_history(run.info.run_id, name)
        assert [(metric.step, metric.value) for metric in history] == scalars_of(where / "run", name)
    pictures = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "pictures")}
    assert pictures == {path.name for path in (where / "run" / "pictures").iterdir()}
    assert len(epochs_of(where / "run")) == 3
