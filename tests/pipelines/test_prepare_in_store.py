"""`seqjepa-data build …` of a set at an address: the bytes of a folder; what is stored there is a stranger's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_server import Bucket, bucket, files_of, objects_of, on_machine, serving_bucket
from foreign_tars import some_samples, write_tar
from fork_server import ForkServer
from s3_server import serving_s3
from small_images import make_folder
from test_build_by_many import builders
from typer.testing import CliRunner, Result

from cli import seqjepa_data_app
from pipelines.build.stored_command import LONGEST, NAME, store_command, stored_command
from shards.building.store_build import PARTS
from shards.stores import cache, store_lease
from shards.stores.store_write import open_writable
from shards.writer import SetBuilder

__all__ = ["bucket", "builders"]
NAMES = [f"{split}/{label}/{number:02}.png" for split in ("train", "val") for label in "ab" for number in range(5)]
SHARD = ["shard", "folder", "--source", "photos", "--samples-per-shard", "2", "--workers", "0"]
SHARDS = 10
COMMAND = f"{PARTS}/{NAME}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    make_folder(folder / "photos", NAMES)
    run(*(folder / word if word == "photos" else word for word in SHARD), "--out", folder / "set")
    return files_of(folder / "set")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_folder(tmp_path / "photos", NAMES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(seqjepa_data_app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def refused(*words: object, code: int = 2) -> str:
    """The one line."""
    lines = [line for line in run(*words, code=code).output.splitlines() if not line.startswith("s3://")]
    assert len(lines) == 1, lines
    return lines[0]


def test_prepared_on_one_machine_and_written_on_others(
    bucket: Bucket, whole: dict[str, bytes], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{bucket.address}/sets/photos"
    told = run("build", "prepare", *SHARD, "--out", address)
    assert f"{address}: {SHARDS} shards to write; go on with `seqjepa-data build work {address}`" in told.output
    there = objects_of(bucket, address)
    assert set(there) == {"_meta/build.json", COMMAND}
    assert json.loads(there[COMMAND]) == {"words": SHARD, "folder": str(here)}
    for reader in ("info", "verify"):
        line = refused(reader, address)
        assert f"{address} is an unfinished set: run the same" in line
        assert f"`seqjepa-data build work {address}`" in line
    monkeypatch.chdir("/")  # the command means the folder in which it was prepared
    on_machine("two", here, monkeypatch)
    missing = refused("build", "finish", address, code=1)
    assert f"{SHARDS} of {SHARDS} shards of {address} are not written yet" in missing
    told = run("build", "work", address, "--task-index", "1", "--num-tasks", "2", "--workers", "0", "--json")
    assert f"{address}: seqjepa-data shard folder --source photos" in told.stderr
    assert (json.loads(told.stdout)["samples"], json.loads(told.stdout)["path"]) == (20, address)
    assert objects_of(bucket, address) == whole
    on_machine("three", here, monkeypatch)
    for step in ("work", "finish", "run"):
        assert "20 samples" in run("build", step, address).output
    assert objects_of(bucket, address) == whole
    assert not [path for path in here.iterdir() if path.name.startswith("s3")]


def test_finish_finishes_what_others_have_written(
    bucket: Bucket, whole: dict[str, bytes], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last of the builders is killed when all shards are there."""

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    with monkeypatch.context() as patch:
        patch.setattr(SetBuilder, "finish", dies)
        run("build", "work", address, code=130)
    assert {f"{name}.tar" for name in shards_of(whole)} < set(objects_of(bucket, address))
    on_machine("two", here, monkeypatch)
    assert "20 samples" in run("build", "finish", address).output
    assert objects_of(bucket, address) == whole


def shards_of(whole: dict[str, bytes]) -> list[str]:
    return sorted(name.removesuffix(".tar") for name in whole if name.endswith(".tar"))


def test_run_does_all_three(bucket: Bucket, whole: dict[str, bytes]) -> None:
    run("build", "run", *SHARD, f"--out={bucket.address}/one")
    run("build", "prepare", *SHARD, "-o", f"{bucket.address}/two")
    run("build", "run", f"{bucket.address}/two/")
    assert objects_of(bucket, f"{bucket.address}/one") == objects_of(bucket, f"{bucket.address}/two") == whole


def test_prepared_again(bucket: Bucket, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    first = dict(bucket.objects)
    assert f"{SHARDS} shards to write" in run("build", "prepare", *SHARD, "--out", address).output
    assert bucket.objects == first
    assert "(limit: nothing there, 2 here" in refused("build", "prepare", *SHARD, "--limit", "2", "--out", address)
    assert "nothing in a store is overw" in refused("build", "prepare", *SHARD, "--overwrite", "--out", address)
    assert bucket.objects == first
    del bucket.objects[f"set/{COMMAND}"]  # as when a `prepare` was killed just before
    assert f"no build was prepared in {address}: run `seqjepa-data" in refused("build", "work", address)
    run("build", "prepare", *SHARD, "--out", address)
    assert bucket.objects == first
    run("build", "work", address)
    assert "20 samples" in run("build", "prepare", *SHARD, "--out", address).output
    assert objects_of(bucket, address) == whole


def test_bad_input_of_work_leaves_what_was_prepared(
    bucket: Bucket, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "photos" / NAMES[-1]).write_bytes(b"no image")
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    prepared = dict(bucket.objects)
    on_machine("two", here, monkeypatch)
    assert "1 bad so far, --max-bad allows 0" in run("build", "work", address, code=2).output
    assert {key: bucket.objects[key] for key in prepared} == prepared


def test_a_command_that_comes_when_all_is_done_does_not_stay(bucket: Bucket, whole: dict[str, bytes]) -> None:
    """Another builder, of the plain command, finishes the set between a `prepare`'s look at it and its last write."""
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    command = stored_command(address)
    assert command is not None
    run(*SHARD, "--out", address)
    store_command(command, address)
    assert objects_of(bucket, address) == whole


def test_work_leaves_what_others_are_at_to_them(
    bucket: Bucket, whole: dict[str, bytes], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as they live; of another machine, that is seen by the lease."""
    monkeypatch.setattr(store_lease, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(store_lease, "SETTLE_SECONDS", 0.0)
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    on_machine("far", here, monkeypatch)
    with held(address, shards_of(whole)[3:5]) as far:
        on_machine("near", here, monkeypatch)
        told = run("build", "work", address, "--json")
        assert json.loads(told.stdout) == {"out": address, "finished": SHARDS - 2, "shards": SHARDS}
        assert "2 of 10 shards of" in refused("build", "finish", address, code=1)
        far.dies()
        monkeypatch.setattr(store_lease, "LEASE_SECONDS", 0.3)
        assert "20 samples" in run("build", "work", address).output
    assert objects_of(bucket, address) == whole


class held:  # noqa: N801  a context
    """Leases on some shards by a builder of another host, which beats until it dies."""

    def __init__(self, address: str, names: list[str]) -> None:
        self.leases = store_lease.Leases(open_writable(address), "_meta/claims")
        self.leases._ours.content = b"node17/- 4711 99\n\nfar"
        assert all(self.leases.take(name) for name in names)

    def dies(self) -> None:
        self.leases._ours.ended.set()
        self.leases._thread.join()

    def __enter__(self) -> held:
        return self

    def __exit__(self, *_: object) -> None:
        self.dies()


@pytest.mark.parametrize(
    "words",
    [
        ["push", "set"],
        [],
        "shard",
        [1],
        ["--help"],
        [*SHARD, "--out", "elsewhere"],
        [*SHARD, "--out=elsewhere"],
        [*SHARD, "--overwrite"],
        ["shard", "folder", "--source", "pho\0tos"],
    ],
)
def test_a_strangers_command_is_checked(bucket: Bucket, here: Path, words: object) -> None:
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    bucket.objects[f"set/{COMMAND}"] = json.dumps({"words": words, "folder": str(here)}).encode()
    for step in ("work", "finish", "run"):
        assert f"{address}/{COMMAND} is damaged: prepare the build again" in refused("build", step, address)
    assert sorted(path.name for path in here.iterdir()) == ["one", "photos"]


def test_a_strangers_command_is_bounded_and_of_this_set(bucket: Bucket, here: Path) -> None:
    address = f"{bucket.address}/set"
    run("build", "prepare", *SHARD, "--out", address)
    bucket.objects[f"set/{COMMAND}"] = b" " * (LONGEST + 1)
    assert f"has more than {LONGEST} bytes" in refused("build", "work", address, code=1)
    bucket.objects[f"set/{COMMAND}"] = json.dumps({"words": [*SHARD, "--limit", "1\n2"], "folder": "/"}).encode()
    line = run("build", "work", address, code=2).output.splitlines()[0]
    assert line.startswith(f"{address}: ")
    assert r"\n2" in line
    bucket.objects[f"set/{COMMAND}"] = json.dumps({"words": [*SHARD, "--limit", "2"], "folder": str(here)}).encode()
    assert f"{address} holds another set (limit" in refused("build", "work", address)
    assert set(objects_of(bucket, address)) == {"_meta/build.json", COMMAND}


@pytest.mark.parametrize("source", ["pipe:touch ran; cat tars/0.tar", "p{i,}pe:touch ran; cat tars/0.tar"])
def test_no_shell_is_started_for_a_stranger(bucket: Bucket, here: Path, source: str) -> None:
    pytest.importorskip("webdataset")
    write_tar(here / "tars/0.tar", some_samples(4))
    shard, address = ["shard", "webdataset", "--size", "16"], f"{bucket.address}/set"
    line = refused("build", "prepare", *shard, "--source", source, "--out", address)
    assert "--source pipe:… is not prepared at an address" in line
    assert not bucket.objects
    run("build", "prepare", *shard, "--source", "tars/0.tar", "--out", address)
    words = [*shard, "--source", source]
    bucket.objects[f"set/{COMMAND}"] = json.dumps({"words": words, "folder": str(here)}).encode()
    assert "start `seqjepa-data shard` itself on as many machines" in refused("build", "work", address)
    assert not (here / "ran").exists()
    run(*shard, "--source", "pipe:touch ran; cat tars/0.tar", "--out", f"{bucket.address}/own")  # by whoever types it
    assert (here / "ran").exists()


def test_the_script_of_an_array(bucket: Bucket, here: Path) -> None:
    address = f"{bucket.address}/sets/photos"
    slurm = ("--engine", "slurm", "--num-tasks", "3", "--script", "b.sbatch")
    run("build", "run", *slurm, *SHARD, "--out", address)
    script = (here / "b.sbatch").read_text(encoding="utf-8")
    assert f'build work {address} --task-index "$SLURM_ARRAY_TASK_ID" --num-tasks 3 & pid=$!' in script
    assert f"#SBATCH --output={here}/photos.logs/%x-%a.out" in script
    run("build", "work", address)
    assert f"{address} is finished; there is nothing" in refused("build", "run", *slurm, address)


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("together", [pytest.param(True, marks=pytest.mark.slow), False])
@pytest.mark.parametrize("kind", ["bucket", pytest.param("moto", marks=pytest.mark.tools)])
def test_two_processes_of_which_one_is_killed(
    builders: ForkServer,
    whole: dict[str, bytes],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    together: bool,
) -> None:
    """They have a cache in common, or none."""
    with serving_bucket(monkeypatch) if kind == "bucket" else serving_s3(monkeypatch):
        on_machine("one", here, monkeypatch)
        store = open_writable(f"s3://bucket/{here.name}")  # moto keeps what another test wrote
        run("build", "prepare", *SHARD, "--out", store.address)

        def start(task: int):
            env = dict(os.environ) if together else {**os.environ, cache.FOLDER: str(here / f"cache-{task}")}
            words = [store.address, "--task-index", str(task), "--num-tasks", "2"]
            return builders.start("work", words, env)

        killed, other = start(0), start(1)
        wait_for(lambda: sum(name.endswith(".tar") for name in store.names()) > 1)
        killed.kill()
        assert killed.wait() != 0
        assert "_meta/dataset.json" not in store.names(), "killed while there was work"
        assert other.wait() == 0, other.said
        assert "Traceback" not in other.said
        assert "20 samples" in run("build", "finish", store.address).output
        found = {name: store.folder.read(name, size) for name, size in store.names().items()}
        assert found == whole
