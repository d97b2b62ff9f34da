"""Sets in object stores: the same arrays as from a folder, whatever the store and the cache go through."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from folder_server import serving
from fork_server import Forked, fork_server
from hub_server import COMMIT, REPO, use_hub
from hub_server import serving as serve_hub
from python_path import ROOT, python_path
from shard_sets import WEIGHTS, build
from typer.testing import CliRunner

import cli
from shards.errors import DamageError, FailureError, FormatError, UsageError
from shards.machine.files import sha256_of_file
from shards.reader import ShardSet
from shards.reading import on_demand
from shards.sample import ViewSample, encode_raw
from shards.schema import ParamField, ViewSpec
from shards.stats import PixelStats
from shards.stores import cache, store
from shards.stores.cache import check_shards, fetch, fetch_split, local_folder, parse_size
from shards.vector_reader import VectorReader
from shards.verify import verify
from shards.writer import SetBuilder

SHARDS, SAMPLES, SIDE = 5, 3, 32


def write_set(out: Path, seed: int = 0) -> Path:
    """Two splits in several tars of noise."""
    rng = np.random.default_rng(seed)
    spec = ViewSpec(2, SIDE, SIDE, "raw", (ParamField("x", "m"),))
    with SetBuilder(out, name="tiny", spec=spec, classes=("a",), fingerprint={"seed": seed}) as builder:
        for split, shards in (("train", SHARDS), ("val", 1)):
            for number in range(shards):
                with builder.open_shard(split, number) as shard:
                    for sample in range(SAMPLES):
                        pixels = rng.integers(0, 255, (2, SIDE, SIDE, 3)).astype(np.uint8)
                        params = rng.uniform(0, 1, (2, 1)).astype(np.float32)
                        views = [encode_raw(view) for view in pixels]
                        key = f"{split}{number}{sample}"
                        shard.add(ViewSample(key, views, range(2), params, 0), PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("store") / "set")


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """The cache, empty; pauses between attempts take no time."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.delenv(cache.SIZE, raising=False)
    monkeypatch.setattr(store, "LONGEST_PAUSE", 0.001)
    cache._mirror.cache_clear()  # what an address was at first stays for a process
    return tmp_path / "cache"


def tars(asked: list[str]) -> Counter[str]:
    return Counter(path.rpartition("/")[2] for path in asked if path.endswith(".tar"))


def same_views(there: Path | str, here: Path | str, split: str = "train") -> None:
    one, other = (ShardSet.open(place).split(split) for place in (there, here))
    assert one.digest == other.digest
    assert one.keys == other.keys
    np.testing.assert_array_equal(one.params, other.params)
    for sample in range(len(one)):
        for view in range(2):
            np.testing.assert_array_equal(one.read_view(sample, view), other.read_view(sample, view))


def test_a_set_behind_an_address_is_the_set_in_a_folder(folder, cached):
    with serving(folder) as server:
        same_views(server.url, folder)
        assert tars(server.asked) == {f"train-{n:06d}.tar": 1 for n in range(SHARDS)}
        same_views(server.url + "/", folder)  # nothing is fetched twice
        assert set(tars(server.asked).values()) == {1}
        same_views(server.url, folder, "val")
        assert tars(server.asked)["val-000000.tar"] == 1


def test_looking_at_a_set_fetches_no_shards(folder, cached):
    with serving(folder) as server:
        shown = CliRunner().invoke(cli.seqjepa_data_app, ["info", server.url, "--json"])
        assert shown.exit_code == 0, shown.output
        there, here = (
            json.loads(shown.stdout),
            json.loads(CliRunner().invoke(cli.seqjepa_data_app, ["info", str(folder), "--json"]).stdout),
        )
        assert {**there, "path": ""} == {**here, "path": ""}
        assert not tars(server.asked)


def test_verify_reads_every_byte_of_a_set_in_a_store(folder, cached):
    with serving(folder) as server:
        checked = CliRunner().invoke(cli.seqjepa_data_app, ["verify", server.url])
        assert checked.exit_code == 0, checked.output
        assert len(tars(server.asked)) == SHARDS + 1
        found = next(cached.glob("*/train-000002.tar"))
        flip(found)
        checked = CliRunner().invoke(cli.seqjepa_data_app, ["verify", server.url])
        assert checked.exit_code == 1
        assert "train-000002.tar: sha256 differs" in checked.output


@pytest.mark.parametrize("ranges", [True, False])
def test_errors_resets_and_cut_bodies_are_passed_over(folder, cached, ranges, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 4096)
    faults = ("reset", "cut", "503", "cut")
    with serving(folder, faults=faults, ranges=ranges) as server:
        same_views(server.url, folder)
        assert min(tars(server.asked).values()) > len(faults)


@pytest.mark.parametrize("fault", ["408", "429", "500", "502", "504", "stall"])
def test_what_may_pass_is_tried_again(folder, cached, fault, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 4096)
    monkeypatch.setattr(store, "STALLED", "200ms")
    with serving(folder, faults=(fault,)) as server:
        ShardSet.open(server.url).split("val")
        assert tars(server.asked) == {"val-000000.tar": 2}


def test_a_store_that_stays_down_is_one_line_that_names_the_object(folder, cached, monkeypatch):
    monkeypatch.setattr(store, "TRIES", 2)
    with serving(folder) as server:
        opened = ShardSet.open(server.url)
        server.down = True
        with pytest.raises(FailureError, match=r"cannot read http://.*/set/.*; try again later") as caught:
            opened.split("train")
        assert "\n" not in str(caught.value)
        server.down = False
        same_views(server.url, folder)


def test_a_flipped_byte_on_the_way_is_fetched_again_and_one_in_the_store_is_found(folder, cached):
    with serving(folder, flips={"train-000001.tar": 1}) as server:
        same_views(server.url, folder)
        assert tars(server.asked)["train-000001.tar"] == 2
        server.flips["val-000000.tar"] = 99
        with pytest.raises(DamageError, match=r"/set/val-000000.tar is damaged"):
            ShardSet.open(server.url).split("val")
        assert not [*cached.glob("*/val*"), *cached.glob("*/.tmp-*")]


def test_after_an_error_the_rest_is_not_fetched(folder, cached, monkeypatch):
    monkeypatch.setattr(cache, "STREAMS", 1)
    with serving(folder, flips={"train-000001.tar": 99}, seconds=0.1) as server:
        with pytest.raises(DamageError, match=r"train-000001.tar is damaged"):
            ShardSet.open(server.url).split("train")
        assert "train-000004.tar" not in tars(server.asked)


def test_a_file_of_the_cache_that_was_changed_is_fetched_again(folder, cached):
    with serving(folder) as server:
        same_views(server.url, folder)
        changed, touched = (next(cached.glob(f"*/train-00000{number}.tar")) for number in (2, 3))
        data = bytearray(changed.read_bytes())
        data[1000] ^= 1
        changed.write_bytes(data)
        os.utime(touched)
        same_views(server.url, folder)
        assert {name: count for name, count in tars(server.asked).items() if count > 1} == {"train-000002.tar": 2}


def flip(path: Path) -> None:
    """As a disk that forgets: no time changes."""
    data, before = bytearray(path.read_bytes()), path.stat().st_mtime
    data[1000] ^= 1
    path.write_bytes(data)
    os.utime(path, (before, before))


@pytest.fixture
def another_process(monkeypatch):
    """From its call on, this process is as one that has just begun."""

    def begin() -> None:
        monkeypatch.setattr(cache, "BEGAN", time.time())
        monkeypatch.setattr(on_demand, "_known", set())

    return begin


def test_what_the_disk_has_lost_is_found_before_it_is_read_and_fetched_again(folder, cached, another_process, caplog):
    with serving(folder) as server:
        same_views(server.url, folder)
        flip(next(cached.glob("*/train-000002.tar")))
        another_process()
        same_views(server.url, folder)
        assert {name: count for name, count in tars(server.asked).items() if count > 1} == {"train-000002.tar": 2}
        assert "train-000002.tar has other bytes than when it was fetched" in caplog.text


def test_what_the_disk_has_lost_is_found_by_readers_of_whole_splits(folder, cached, another_process):
    with serving(folder) as server:
        same_views(server.url, folder)
        flip(next(cached.glob("*/train-000003.tar")))
        another_process()
        root = local_folder(server.url)
        paths = ShardSet.open(root).split("train").shard_paths
        check_shards(paths)
        assert tars(server.asked)["train-000003.tar"] == 2
        flip(next(cached.glob("*/train-000004.tar")))
        another_process()
        fetch_split(paths, "train")
        assert tars(server.asked)["train-000004.tar"] == 2
        same_views(root, folder)


def test_shards_are_checked_once_in_a_process_and_by_one_of_those_that_began_before(
    folder, cached, another_process, monkeypatch
):
    hashed = []
    monkeypatch.setattr(cache, "sha256_of_file", lambda path, *rest: hashed.append(path.name) or sha256_of_file(path))
    with serving(folder) as server:
        for _ in range(2):
            same_views(server.url, folder)
        assert not hashed  # when they came
        another_process()
        for _ in range(2):
            same_views(server.url, folder)
            monkeypatch.setattr(on_demand, "_known", set())  # another one, which began at the same time
        assert sorted(hashed) == [f"train-{number:06d}.tar" for number in range(SHARDS)]
        assert set(tars(server.asked).values()) == {1}


def test_a_process_that_begins_later_finds_what_the_disk_has_lost(folder, cached):
    code = """
import sys
from shards.reader import ShardSet
index = ShardSet.open(sys.argv[1]).split("train")
print(sum(int(index.read_view(sample, view).sum()) for sample in range(len(index)) for view in range(2)))
"""
    with serving(folder) as server:
        command = [sys.executable, "-c", code, server.url]
        first = subprocess.run(command, capture_output=True, text=True, check=True)
        flip(next(cached.glob("*/train-000001.tar")))
        second = subprocess.run(command, capture_output=True, text=True, check=True)
        assert second.stdout == first.stdout
        assert tars(server.asked)["train-000001.tar"] == 2
        assert not list(cached.glob("*/.lock*"))


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        ("ftp://host/set", UsageError, "known are s3://, gs://, az://, http://, https://, hf://"),
        ("s3://", UsageError, "is no address of a folder"),
        (Path("s4://bucket/set"), UsageError, "'s4:/bucket/set' is no address of a folder; known are s3://"),
        (Path("s3://"), UsageError, "'s3:' is no address of a folder; known are s3://"),
        ("hf://datasets/set", UsageError, "hf://datasets/set: hf://datasets/USER/REPO or"),
        ("http://user:secret@host/set", UsageError, "an address holds no user name or password"),
    ],
)
def test_addresses_that_are_none(cached, address, error, said):
    with pytest.raises(error) as caught:
        local_folder(address)
    assert said in str(caught.value)


def test_a_folder_may_be_called_like_an_address(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ab:/set").mkdir(parents=True)
    assert local_folder("ab:/set") == Path("ab:/set")
    assert local_folder(tmp_path / "cd:/set") == tmp_path / "cd:/set"


def test_what_is_no_set_and_what_may_not_be_read(folder, cached, tmp_path):
    (tmp_path / "empty").mkdir()
    with serving(tmp_path / "empty") as server:
        refused = CliRunner().invoke(cli.seqjepa_app, ["train", "--shards", server.url])
        assert refused.exit_code == 2
        assert "_meta/dataset.json is not there; give the address of a shard set" in refused.output
    with serving(folder, forbidden=True) as server, pytest.raises(UsageError, match="may not be read"):
        ShardSet.open(server.url)
    assert not cached.exists()


def test_another_set_under_the_same_address_is_another_set(folder, cached, tmp_path):
    with serving(folder) as server:
        same_views(server.url, folder)
        server.folder = write_set(tmp_path / "other", seed=1)
        same_views(server.url, folder)  # for this process nothing changes under it
        cache._mirror.cache_clear()
        same_views(Path(server.url), server.folder)  # a Path drops the second slash
        assert len(list(cached.iterdir())) == 2


def test_the_set_that_was_used_least_recently_makes_room(folder, cached, elsewhere, tmp_path, monkeypatch):
    sizes = sum(path.stat().st_size for path in folder.glob("*.tar"))
    (cached / "mine").mkdir(parents=True)
    (cached / "mine" / "train-000000.tar").write_bytes(b"x" * 1000)
    monkeypatch.setenv(cache.SIZE, str(int(2.5 * sizes)))
    with serving(folder) as server:
        for seed in range(3):
            server.folder = write_set(tmp_path / f"set{seed}", seed)
            process = elsewhere(server.url)
            assert process.wait() == 0, process.said
            time.sleep(0.02)
        left = [ShardSet.open(found).info.fingerprint["seed"] for found in sets_in(cached)]
        assert sorted(left) == [1, 2]
        assert (cached / "mine" / "train-000000.tar").exists()  # not ours to remove
        monkeypatch.setenv(cache.SIZE, str(sizes // 2))
        server.folder = write_set(tmp_path / "more", seed=3)
        cache._mirror.cache_clear()
        same_views(server.url, server.folder)  # a split that is larger goes through the cache shard by shard
        info = ShardSet.open(server.url).info
        with pytest.raises(UsageError, match=r"needs 0.2 MB in the cache .* set SEQJEPA_CACHE_SIZE"):
            fetch(local_folder(server.url), info)


def sets_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if (path / cache.ORIGIN).exists()]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Iterator[Callable[[str], Forked]]:
    """elsewhere(URL): a process that fetches all of a set, and does not use it any more when it has ended."""
    env = {**os.environ, "PYTHONPATH": python_path(ROOT, Path(__file__).parent)}
    with fork_server("fetching", tmp_path_factory.mktemp("elsewhere"), env) as server:
        yield lambda url: server.start("fetch_all", [url], dict(os.environ))


def test_a_set_in_use_is_not_removed(folder, cached, tmp_path, monkeypatch):
    sizes = sum(path.stat().st_size for path in folder.glob("*.tar"))
    monkeypatch.setenv(cache.SIZE, str(int(1.5 * sizes)))
    with serving(folder) as server:
        mine = [ShardSet.open(server.url).split(name) for name in ("train", "val")]  # this process uses it
        server.folder = write_set(tmp_path / "other", seed=1)
        cache._mirror.cache_clear()
        info = ShardSet.open(server.url).info
        with pytest.raises(UsageError, match="is full of sets in use"):
            fetch(local_folder(server.url), info)
        same_views(server.url, server.folder)  # in what is left
        assert mine[0].read_view(0, 0).shape == (SIDE, SIDE, 3)


def test_processes_fetch_each_shard_once_between_them(folder, cached, elsewhere):
    with serving(folder) as server:
        processes = [elsewhere(server.url) for _ in range(3)]
        for process in processes:
            assert process.wait() == 0, process.said
        assert set(tars(server.asked).values()) == {1}
        same_views(server.url, folder)


@pytest.mark.slow
def test_killed_at_any_moment_the_next_one_has_the_whole_set(folder, cached, elsewhere):
    rng = np.random.default_rng(0)
    with serving(folder) as server:
        for _ in range(12):
            process = elsewhere(server.url)
            time.sleep(rng.uniform(0.0, 0.4))
            process.kill()
            process.wait()
        same_views(server.url, folder)
        same_views(server.url, folder, "val")
        assert not list(cached.glob("*/.tmp-*"))


@pytest.mark.parametrize(("text", "size"), [("200GB", 200e9), ("1.5 TB", 1.5e12), ("10", 10), ("3k", 3000)])
def test_sizes(text, size):
    assert parse_size(text) == size
    with pytest.raises(UsageError, match="write it as 200GB"):
        parse_size(text + "!")
    with pytest.raises(UsageError, match="write it as 200GB"):
        parse_size("9" * 400 + "GB")


def test_a_folder_with_a_colon_is_a_folder(tmp_path):
    assert local_folder("a:b/c") == Path("a:b/c")
    assert local_folder(tmp_path) == tmp_path
    with pytest.raises(FormatError, match="is not a folder"):
        ShardSet.open("a:b/c")


def test_a_data_set_on_the_hub(folder, cached, tmp_path, monkeypatch):
    with serve_hub(folder) as hub:
        use_hub(hub, tmp_path, monkeypatch)
        same_views(f"hf://datasets/{REPO}", folder)
        assert f"hf://datasets/{REPO}@{COMMIT}" in (sets_in(cached)[0] / cache.ORIGIN).read_text()
        fetched = [name for name in hub.loaded if name.endswith(".tar")]
        assert sorted(fetched) == [f"train-{n:06d}.tar" for n in range(SHARDS)]
        same_views(f"hf://{REPO}", folder)
        assert [name for name in hub.loaded if name.endswith(".tar")] == fetched


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Path:
    """A folder that stands for s3://bucket."""
    from obstore.store import LocalStore

    (tmp_path / "bucket").mkdir()

    def open_folder(self: store.ObjectStoreFolder) -> LocalStore:
        return LocalStore(tmp_path / "bucket" / self.address.removeprefix("s3://bucket/"), mkdir=True)

    monkeypatch.setattr(store.ObjectStoreFolder, "opened", property(open_folder))
    return tmp_path / "bucket"


def push(folder: Path, address: str, *more: str):
    return CliRunner().invoke(cli.seqjepa_data_app, ["push", str(folder), address, *more])


def test_a_set_is_pushed_once_and_read_back(folder, cached, bucket):
    assert "train-000000.tar" in push(folder, "s3://bucket/set", "--dry-run").output
    assert not list(bucket.iterdir())
    done = push(folder, "s3://bucket/set")
    assert done.exit_code == 0, done.output
    assert f"{SHARDS + 5} files sent, 0 were there" in done.output
    same_views("s3://bucket/set", folder)
    again = push(folder, "s3://bucket/set", "--json")
    assert json.loads(again.stdout)["sent"] == []


def test_a_push_goes_on_and_never_overwrites(folder, cached, bucket, tmp_path):
    assert push(folder, "s3://bucket/set").exit_code == 0
    (bucket / "set/_meta/dataset.json").unlink()
    (bucket / "set/train-000003.tar").unlink()
    with pytest.raises(FormatError, match="is not there"):
        ShardSet.open("s3://bucket/set")
    assert json.loads(push(folder, "s3://bucket/set", "--json").stdout)["sent"] == [store.INFO, "train-000003.tar"]
    before = {path: path.read_bytes() for path in bucket.rglob("*") if path.is_file()}
    refused = push(write_set(tmp_path / "other", seed=1), "s3://bucket/set")
    assert refused.exit_code == 2
    assert "is there and is of another set; choose another address" in refused.output
    assert {path: path.read_bytes() for path in bucket.rglob("*") if path.is_file()} == before
    refused = push(folder, "https://host/set")
    assert refused.exit_code == 2
    assert "can be read only; what can be written to begins with s3://, gs://, az://" in refused.output


def test_a_damaged_set_is_not_pushed(cached, bucket, tmp_path):
    damaged = write_set(tmp_path / "damaged")
    data = bytearray((damaged / "train-000000.tar").read_bytes())
    data[700] ^= 1
    (damaged / "train-000000.tar").write_bytes(data)
    refused = push(damaged, "s3://bucket/set")
    assert refused.exit_code == 1
    assert "is not sound: train-000000.tar: sha256 differs" in refused.output
    assert not list(bucket.rglob("*.tar"))


@pytest.mark.tools
def test_s3(folder, cached, monkeypatch, tmp_path):
    """moto's server stands for S3: signed requests, ranges, errors as XML."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        assert push(folder, "s3://bucket/some/set").exit_code == 0
        same_views("s3://bucket/some/set", folder)
        with pytest.raises(FormatError, match=r"s3://bucket/other/_meta/dataset.json is not there"):
            ShardSet.open("s3://bucket/other")
        assert json.loads(push(folder, "s3://bucket/some/set", "--json").stdout)["sent"] == []
        assert push(write_set(tmp_path / "other", seed=1), "s3://bucket/some/set").exit_code == 2
    finally:
        server.stop()


def test_a_set_of_features_comes_with_its_encoder(tmp_path, cached):
    features = tmp_path / "features"
    build(features, "features")
    with serving(features) as server:
        opened = ShardSet.open(server.url)
        assert opened.read_encoder() == WEIGHTS
        assert not tars(server.asked)
        np.testing.assert_array_equal(
            VectorReader(opened.split("val")).take_all(), VectorReader(ShardSet.open(features).split("val")).take_all()
        )
        assert verify(server.url).ok
