"""Runs whose --out is an address: trained here, kept there; killed at any moment, another machine goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from bucket_server import Bucket
from noise_shards import noise_shards
from train_helpers import Killed, assert_same_end, killed_at, make_shards, metrics, tiny_config
from typer.testing import CliRunner

import cli
from seqjepa.training.learner import Learner
from seqjepa.training.run_store import is_of_run, pulled_run, run_cache
from seqjepa.training.train import train
from shards.errors import DamageError, FailureError, UsageError
from shards.machine.files import sha256_of_bytes
from shards.stores import store_lease
from shards.stores.store_write import StoreWriter

OFTEN = tiny_config("train.checkpoint_minutes=1e-9", "optim.epochs=2")


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return make_shards(tmp_path_factory.mktemp("set") / "set", objects=16)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, shards) -> Path:
    """The same run in a folder."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(OFTEN, shards, out, workers=0, progress=False)
    return out


def trained(shards: Path, bucket: Bucket, **options):
    return train(OFTEN, shards, Path(f"{bucket.address}/runs/one"), workers=0, progress=False, **options)


def names(bucket: Bucket) -> set[str]:
    return {name.removeprefix("runs/one/") for name in bucket.objects}


def test_a_run_at_an_address_is_the_run_in_a_folder(shards, whole, bucket, machine):
    done = trained(shards, bucket)
    assert done["run"] == f"{bucket.address}/runs/one"
    assert names(bucket) == {"run.json", "config.toml", "state.pt", "model.safetensors", "metrics.jsonl", "SHA256SUMS"}
    sums = dict(line.split("  ")[::-1] for line in bucket.objects["runs/one/SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: sha256_of_bytes(bucket.objects[f"runs/one/{name}"]) for name in names(bucket) - {"SHA256SUMS"}
    }
    machine("second")
    assert_same_end(pulled_run(done["run"]), whole)
    assert not (pulled_run(done["run"]) / "state.pt").exists()  # only training needs it
    assert trained(shards, bucket)["status"] == "finished already"


@pytest.mark.slow
@pytest.mark.parametrize("bucket", ["gs", "az"], indirect=True)
def test_other_stores(shards, whole, bucket, machine, monkeypatch):
    stopped_at(3, shards, bucket, monkeypatch)
    machine("second")
    trained(shards, bucket)
    assert_same_end(pulled_run(f"{bucket.address}/runs/one"), whole)


def stopped_at(step: int, shards: Path, bucket: Bucket, monkeypatch) -> None:
    killed_at(monkeypatch, step)
    with pytest.raises(Killed):
        trained(shards, bucket)


def test_another_machine_goes_on_from_the_last_checkpoint(shards, whole, bucket, machine, monkeypatch):
    stopped_at(2, shards, bucket, monkeypatch)
    machine("second")
    steps = []
    update = Learner.update
    monkeypatch.setattr(
        Learner, "update", lambda self, seq, at, *rest: steps.append(at) or update(self, seq, at, *rest)
    )
    trained(shards, bucket)
    assert steps == [2, 3]
    assert_same_end(pulled_run(f"{bucket.address}/runs/one"), whole)
    machine("first")  # which has an older state: what is at the address counts
    assert trained(shards, bucket)["status"] == "finished already"


PUTS = 25


@pytest.mark.parametrize("puts", [pytest.param(n, marks=pytest.mark.slow) for n in range(PUTS)])
def test_killed_at_any_put_the_run_goes_on_and_readers_see_no_half(shards, whole, bucket, machine, monkeypatch, puts):
    put, left = StoreWriter.put, [puts]

    def dying(self, name, data):
        if not name.startswith(".tmp-"):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        put(self, name, data)

    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "put", dying)
        try:
            trained(shards, bucket)
        except Killed:
            pass
        else:
            pytest.fail("there are fewer puts")
    machine("reader")
    if "runs/one/run.json" in bucket.objects:
        pulled_run(f"{bucket.address}/runs/one")  # held against the checksums
    machine("second" if puts % 2 else "first")
    trained(shards, bucket)
    machine("reader")
    assert_same_end(pulled_run(f"{bucket.address}/runs/one"), whole)


@pytest.mark.slow
def test_a_second_trainer_is_refused_while_the_first_lives(shards, bucket, machine, monkeypatch):
    monkeypatch.setattr(store_lease, "BEAT_SECONDS", 0.02)
    heard: list[str] = []
    update = Learner.update

    def beside(self, seq, at, *rest):
        if at == 1 and not heard:
            heard.append("")
            machine("second")
            with pytest.raises(UsageError, match=r"s3://bucket/runs/one is being trained by another process \(first:"):
                trained(shards, bucket)
        return update(self, seq, at, *rest)

    monkeypatch.setattr(Learner, "update", beside)
    trained(shards, bucket)
    assert heard
    assert ".tmp-owner" not in names(bucket)
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


@pytest.mark.slow
def test_a_trainer_that_was_away_too_long_ends_when_another_has_taken_over(shards, whole, bucket, machine, monkeypatch):
    monkeypatch.setattr(store_lease, "LEASE_SECONDS", 0.1)  # the first renews after 20 s
    update, begun = Learner.update, []

    def paused(self, seq, at, *rest):
        if at == 1 and not begun:
            begun.append(at)
            machine("second")
            trained(shards, bucket)
        return update(self, seq, at, *rest)

    monkeypatch.setattr(Learner, "update", paused)
    with pytest.raises(FailureError, match="runs/one is trained by another process now"):
        trained(shards, bucket)
    assert_same_end(pulled_run(f"{bucket.address}/runs/one"), whole)


@pytest.mark.slow
def test_a_machine_that_was_killed_leaves_an_owner_that_is_waited_for(shards, bucket, machine, monkeypatch, caplog):
    monkeypatch.setattr(store_lease, "LEASE_SECONDS", 0.3)
    bucket.put("runs/one/.tmp-owner", b"node7/- 4711 99\nnode7:/cache\ntoken", create=True)
    began = time.monotonic()
    trained(shards, bucket)
    assert time.monotonic() - began > 0.3
    assert "node7:/cache is at work there, or was until it was killed" in caplog.text


@pytest.mark.slow
def test_a_store_that_is_down_for_a_while_is_caught_up_with(shards, whole, bucket, machine, monkeypatch, caplog):
    put, down = StoreWriter.put, [False]

    def failing(self, name, data):
        if down[0]:
            raise FailureError(f"cannot write {name}: 503")
        put(self, name, data)

    monkeypatch.setattr(StoreWriter, "put", failing)
    update = Learner.update

    def falling(self, seq, at, *rest):
        down[0] = at in (1, 3)
        return update(self, seq, at, *rest)

    monkeypatch.setattr(Learner, "update", falling)
    with pytest.raises(FailureError, match="cannot write"):  # at the end it has to be there
        trained(shards, bucket)
    assert caplog.text.count("this is sent with the next checkpoint") == 2
    down[0] = False
    assert trained(shards, bucket)["status"] == "finished already"  # the cache of this machine has it
    machine("reader")
    assert_same_end(pulled_run(f"{bucket.address}/runs/one"), whole)


@pytest.mark.slow
def test_another_run_and_what_is_no_run_are_refused(shards, bucket, machine):
    bucket.put("runs/one/photo.jpg", b"x", create=True)
    with pytest.raises(UsageError, match=r"s3://bucket/runs/one holds 'photo.jpg' and is no run"):
        trained(shards, bucket)
    with pytest.raises(UsageError, match=r"is no run: it has no run\.json"):
        pulled_run("s3://bucket/runs/one")
    assert set(bucket.objects) == {"runs/one/photo.jpg"}
    del bucket.objects["runs/one/photo.jpg"]
    trained(shards, bucket)
    other = tiny_config("optim.epochs=2", "optim.lr=1e-3")
    with pytest.raises(
        UsageError, match=r"^s3://bucket/runs/one holds another run: optim.lr 0.0004 there, 0.001 asked"
    ):
        train(other, shards, Path("s3://bucket/runs/one"), workers=0, progress=False)
    with pytest.raises(UsageError, match="can be read only"):
        train(other, shards, Path("https://example.org/run"), workers=0, progress=False)


@pytest.mark.slow
def test_overwriting_leaves_nothing_of_the_run_before(shards, bucket, machine, monkeypatch):
    trained(shards, bucket)
    bucket.put("runs/one/results.json", b"{}", create=True)
    machine("second")
    other = tiny_config("optim.epochs=1", "optim.lr=1e-3")
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "update", lambda *words: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            train(other, shards, Path("s3://bucket/runs/one"), workers=0, progress=False, overwrite=True)
    assert names(bucket) == {"run.json", "config.toml", "SHA256SUMS"}
    machine("third")
    train(other, shards, Path("s3://bucket/runs/one"), workers=0, progress=False)
    assert len(metrics(pulled_run("s3://bucket/runs/one"))) == 1


@pytest.mark.slow
def test_damage_at_the_address_is_found(shards, bucket, machine):
    trained(shards, bucket)
    data = bytearray(bucket.objects["runs/one/model.safetensors"])
    data[-1] ^= 1
    bucket.objects["runs/one/model.safetensors"] = bytes(data)
    machine("second")
    with pytest.raises(DamageError, match=r"s3://bucket/runs/one/model.safetensors is damaged: its SHA-256"):
        pulled_run("s3://bucket/runs/one")


def test_files_of_other_names_are_neither_sent_nor_pulled():
    good = (
        "run.json",
        "results-STL-10-96-patch32.json",
        "evaluation/trained/z.npz",
        "loggers/wandb.json",
        "pictures/curves-000100.png",
    )
    bad = (
        "../run.json",
        "photo.jpg",
        "evaluation/../../x.npz",
        "evaluation/trained/.x.npz",
        "loggers/x.lock",
        "state-previous.pt",
    )
    assert all(map(is_of_run, good))
    assert not any(map(is_of_run, bad))


@pytest.mark.slow
def test_commands_take_addresses_of_runs(shards, bucket, machine, tmp_path):
    trained(shards, bucket)
    machine("second")
    run, runner = "s3://bucket/runs/one", CliRunner()
    other = noise_shards(tmp_path / "noise", size=32)
    words = ["evaluate", run, "--shards", str(other), "--device", "cpu", "--probe-epochs", "1", "--m-val", "1"]
    done = runner.invoke(cli.seqjepa_app, words)
    assert done.exit_code == 0, done.output
    assert f"kept in {run}" in done.output
    assert "results.json" in names(bucket)
    machine("third")
    done = runner.invoke(cli.seqjepa_app, ["report", run, "--json"])
    assert done.exit_code == 0, done.output
    assert (run_cache(run, "runs-read") / "results.json").exists()
    done = runner.invoke(
        cli.seqjepa_app, ["embed", run, "--shards", str(shards), "-o", str(tmp_path / "z.npz"), "--device", "cpu"]
    )
    assert done.exit_code == 0, done.output
