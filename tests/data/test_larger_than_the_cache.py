"""A set in a store that is larger than the cache: the batches that the folder gives, in bounded room."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loaders import assert_same, endless, patch_loader, stored_loader
from noise_shards import noise_shards
from ordered_sets import COMMAND, write_walks
from small_backbone import SMALL
from typer.testing import CliRunner

from cli import seqjepa_app, seqjepa_data_app
from seqjepa import open_sequences
from seqjepa.data.draws import permutation, windowed
from seqjepa.data.fixations import Fixating
from seqjepa.data.loader import Loader
from seqjepa.data.one_pass import stored_views
from seqjepa.data.sampling import EpochOrder, Sampling, homes_of
from seqjepa.data.shards_needed import visits_of
from seqjepa.data.stored import Planner, StoredViews
from seqjepa.training.metrics_log import TIMING
from shards.errors import DamageError, FailureError, UsageError
from shards.reader import ShardSet
from shards.stores import cache, store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "shards"))
from folder_server import serving

SHARDS, PER_SHARD, WINDOW = 13, 6, 4
SAMPLES = SHARDS * PER_SHARD


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return noise_shards(tmp_path_factory.mktemp("larger") / "noise", train=SAMPLES, val=4, per_shard=PER_SHARD)


@pytest.fixture(scope="module")
def shard_bytes(folder) -> int:
    return (folder / "train-000000.tar").stat().st_size


@pytest.fixture
def cached(tmp_path, monkeypatch, shard_bytes) -> Path:
    """A cache that is empty, and holds 9 of the 13 shards."""
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(cache.SIZE, str(9 * shard_bytes))
    monkeypatch.setattr(store, "LONGEST_PAUSE", 0.001)
    cache._mirror.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def fullest(cached) -> Iterator[list[int]]:
    """[the most bytes of shards that the cache had], looked at all the time."""
    found, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(0.002):
            with contextlib.suppress(FileNotFoundError):
                found[0] = max(found[0], sum(path.stat().st_size for path in cached.glob("*/*.tar")))

    thread = threading.Thread(target=look)
    thread.start()
    yield found
    ended.set()
    thread.join()


def opened(place: str | Path, **how) -> Loader:
    settings = {"views": 3, "batch_size": 4, "seed": 7, "window": WINDOW, "action": "rotation", "workers": 0} | how
    return stored_loader(ShardSet.open(place).split("train", tars=False), **settings)


def test_a_windowed_order_reads_few_shards_at_a_time():
    homes = np.repeat(np.arange(100), 50)
    order = windowed(3, 5, homes, 10)
    assert sorted(order) == list(range(5000))
    assert (order == windowed(3, 5, homes, 10)).all()
    assert (order != windowed(3, 6, homes, 10)).any()
    assert (order != windowed(4, 5, homes, 10)).any()
    place = homes[order]
    first = {shard: int(np.flatnonzero(place == shard)[0]) for shard in range(100)}
    last = {shard: int(np.flatnonzero(place == shard)[-1]) for shard in range(100)}
    live = [sum(first[s] <= at <= last[s] for s in range(100)) for at in range(0, 5000, 50)]
    assert max(live) <= 11
    assert np.mean(live) > 8


def test_a_window_of_all_shards_is_the_full_shuffle():
    homes = np.repeat(np.arange(5), 4)
    for window in (0, 5, 9):
        order = EpochOrder("train", 20, Sampling(2, 4, 1, window=window), homes)
        np.testing.assert_array_equal(order.rows(0, 0, 5), permutation(1, 0, 20))
    assert (EpochOrder("train", 20, Sampling(2, 4, 1, window=4), homes).rows(0, 0, 5) != permutation(1, 0, 20)).any()


@pytest.mark.parametrize("shuffle", [True, False])
def test_visits_are_the_steps_that_read_a_shard(folder, shuffle):
    index = ShardSet.open(folder).split("train")
    sampling = Sampling(2, 5, 1, window=WINDOW, shuffle=shuffle, drop_last=True)
    order = EpochOrder("train", SAMPLES, sampling, homes_of(index))
    read = {step: set(index.shard[order.rows(2, step, step + 1)].tolist()) for step in range(order.steps)}
    for visit in visits_of(index, order, 2):
        steps = [step for step, shards in read.items() if visit.shard in shards]
        assert (min(steps), max(steps)) == visit[:2]
    assert {visit.shard for visit in visits_of(index, order, 2)} == set(range(SHARDS))


def test_visits_cover_sequences_that_cross_shards(tmp_path, monkeypatch):
    """A sequence's views may be of any sample of it, in the next shard too: that is there as well, in bounded room."""
    folder = write_walks(tmp_path / "walks", {"train": [30] * 20}).path
    index = ShardSet.open(folder).split("train")
    how = {"action": COMMAND, "views": 3, "window": 3, "batch_size": 4, "seed": 1, "order": "window", "workers": 0}
    planner = Planner(index, StoredViews(COMMAND, order="window"), Sampling(3, 4, 1, window=3))
    visits = visits_of(index, planner.order, 0)
    assert len(visits) > len({visit.shard for visit in visits})  # some are wanted at two times
    for step in range(planner.order.steps):
        for shard in np.unique(planner.batch(0, step).table["shard"]).tolist():
            assert any(visit.shard == shard and visit.first <= step <= visit.last for visit in visits)
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(cache.SIZE, str(16 * (folder / "train-000000.tar").stat().st_size))
    assert len(index.shard_paths) > 16
    with serving(folder) as server:
        here, there = opened(folder, **how), opened(server.url, **how)
        with here, there:
            for one, other in zip(here.epoch(0), there.epoch(0), strict=True):
                assert_same(one, other)


def test_images_are_streamed_too(build_image_set, tmp_path, monkeypatch):
    folder = build_image_set(80, saliency="none").path
    monkeypatch.setenv(cache.FOLDER, str(tmp_path / "cache"))
    monkeypatch.setenv(cache.SIZE, str(6 * (folder / "train-000000.tar").stat().st_size))
    how = {"views": 2, "batch_size": 8, "seed": 3, "window": 2, "workers": 1}
    patches = Fixating(patch=8, fixations="uniform")
    with serving(folder) as server:
        indices = [ShardSet.open(place).images("train", tars=False) for place in (folder, server.url)]
        here, there = (patch_loader(index, patches, resident=False, **how) for index in indices)
        with here, there:
            for one, other in zip(here.epoch(1), there.epoch(1), strict=True):
                assert_same(one, other)
        assert len(list((tmp_path / "cache").glob("*/train-*.tar"))) <= 6


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_in_bounded_room(folder, cached, fullest, shard_bytes, workers):
    with serving(folder) as server:
        here, there = opened(folder), opened(server.url, workers=workers)
        with here, there:
            for epoch in range(3):
                keys: list[str] = []
                for one, other in zip(here.epoch(epoch), there.epoch(epoch), strict=True):
                    assert_same(one, other)
                    keys += one.keys
                assert len(set(keys)) == len(keys) == SAMPLES
            asked = Counter(path for path in server.asked if path.endswith(".tar"))
        assert 0 < fullest[0] <= 9 * shard_bytes
        assert SHARDS < sum(asked.values()) < 4 * SHARDS  # some were still there when they were needed again


def test_ranks_share_what_is_fetched_and_their_pieces_are_the_batch(folder, cached, fullest, shard_bytes):
    with serving(folder) as server:
        whole = opened(folder)
        ranks = [opened(server.url, rank=rank, world_size=2) for rank in range(2)]
        for batch, *pieces in zip(whole.epoch(0), *(rank.epoch(0) for rank in ranks), strict=True):
            assert batch.keys == [key for piece in pieces for key in piece.keys]
        for loader in (whole, *ranks):
            loader.close()
        assert len([path for path in server.asked if path.endswith(".tar")]) < 2 * SHARDS
        assert fullest[0] <= 9 * shard_bytes


def test_a_batch_waits_for_its_own_shards_alone(folder, cached):
    with serving(folder) as server:
        server.slow = 0.05
        with opened(server.url, workers=2) as loader:
            next(loader.epoch(0))
            first = len([path for path in server.asked if path.endswith(".tar")])
        assert first < SHARDS


def test_jumps_forward_and_back(folder, cached):
    with serving(folder) as server, opened(folder) as here, opened(server.url, workers=2) as there:
        for epoch, step in ((0, 10), (0, 2), (3, 5), (1, 0)):
            for _, one, other in zip(range(6), endless(here, epoch, step), endless(there, epoch, step), strict=False):
                assert_same(one, other)
        there.close()
        assert_same(next(here.epoch(4, 3)), next(there.epoch(4, 3)))  # it begins anew


def test_a_set_that_fits_stays_and_is_fetched_once(folder, cached, monkeypatch):
    monkeypatch.setenv(cache.SIZE, "1GB")
    with serving(folder) as server, opened(folder, window=0) as here, opened(server.url, window=0) as there:
        for epoch in range(2):
            for one, other in zip(here.epoch(epoch), there.epoch(epoch), strict=True):
                assert_same(one, other)
        assert set(Counter(path for path in server.asked if path.endswith(".tar")).values()) == {1}
        server.down = True
        with opened(server.url, window=0) as again:  # all is there: nobody asks the store
            assert len(list(again.epoch(0))) == len(here)


def test_what_does_not_fit_is_one_line(folder, cached, monkeypatch, shard_bytes):
    with serving(folder) as server:
        with pytest.raises(
            UsageError, match=r"with samples of 13 shards shuffled together needs .* at a time, and the cache"
        ):
            opened(server.url, window=0)
        monkeypatch.setenv(cache.SIZE, str(3 * shard_bytes))
        with pytest.raises(UsageError, match=r"samples of 4 shards .*; set SEQJEPA_CACHE_SIZE, or a smaller data.shuf"):
            opened(server.url)
        assert len(list(opened(server.url, shuffle=False).epoch(0))) == -(-SAMPLES // 4)


def test_two_runs_claim_their_room(folder, cached, shard_bytes):
    with serving(folder) as server, opened(server.url, seed=1) as one:
        next(one.epoch(0))
        with pytest.raises(UsageError, match=r"at a time, and the cache .* has .* left of"):
            opened(server.url, seed=2)
        one.close()
        with opened(server.url, seed=2) as other:
            next(other.epoch(0))


def test_faults_on_the_way(folder, cached, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 4096)
    with (
        serving(folder, faults=("503", "cut", "reset"), flips={"train-000003.tar": 1}) as server,
        opened(folder) as here,
        opened(server.url) as there,
    ):
        for one, other in zip(here.epoch(0), there.epoch(0), strict=True):
            assert_same(one, other)


def test_a_damaged_shard_in_the_store_and_a_store_that_is_down(folder, cached, monkeypatch):
    monkeypatch.setattr(store, "TRIES", 2)
    with serving(folder, flips={"train-000003.tar": 99}) as server, opened(server.url) as loader:
        with pytest.raises(DamageError, match=r"train-000003.tar is damaged"):
            list(loader.epoch(0))
        server.flips.clear()
        assert len(list(loader.epoch(0))) == len(loader)
        server.down = True
        with pytest.raises(FailureError, match=r"cannot read http://.*; try again later"):
            list(endless(loader, 1))


READ = """
import sys
from loaders import stored_loader
from shards.reader import ShardSet
index = ShardSet.open(sys.argv[1]).split("train", tars=False)
with stored_loader(index, views=3, batch_size=4, seed=7, window=4, action="rotation", workers=1) as loader:
    for epoch in range(50):
        for batch in loader.epoch(epoch):
            print(batch.keys[0], flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_left_pinned(folder, cached, shard_bytes):
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    rng = np.random.default_rng(0)
    with serving(folder) as server:
        for _ in range(10):
            process = subprocess.Popen(
                [sys.executable, "-c", READ, server.url],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
            time.sleep(rng.uniform(1.0, 3.0))
            assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with opened(folder, seed=8) as here, opened(server.url, seed=8) as there:  # another order: all room is free
            for one, other in zip(here.epoch(0), there.epoch(0), strict=True):
                assert_same(one, other)
        assert sum(path.stat().st_size for path in cached.glob("*/*.tar")) <= 9 * shard_bytes


TINY = [SMALL, "data.image_size=0", "model.width=0.125", "model.layers=1", "optim.epochs=2", "optim.batch_size=4"]


def train(shards: str, out: Path, *more: str):
    settings = [word for text in TINY for word in ("--set", text)]
    words = ["train", "--shards", shards, "--recipe", "3die-rot-M3", "--out", str(out), "--device", "cpu", *settings]
    return CliRunner().invoke(seqjepa_app, [*words, "--workers", "0", *more])


def epochs(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMING} for line in lines]


def test_a_run_records_its_window_and_goes_on_with_another_cache(folder, cached, tmp_path, monkeypatch, shard_bytes):
    size = ("--cache-size", f"{11 * shard_bytes}")
    with serving(folder) as server:
        done = train(server.url, tmp_path / "run", *size)
        assert done.exit_code == 0, done.output
        config = (tmp_path / "run/config.toml").read_text()
        window = int(config.split("shuffle_window = ")[1].split()[0])
        assert 2 <= window <= 5
        # from a folder, with that window, the same run
        done = train(str(folder), tmp_path / "here", "--set", f"data.shuffle_window={window}")
        assert done.exit_code == 0, done.output
        assert epochs(tmp_path / "run") == epochs(tmp_path / "here")
        # it goes on where all of the set fits, and where less does: there, as if never stopped
        for name, more in (("run", ("--cache-size", "1GB")), ("here", ("--cache-size", f"{9 * shard_bytes}"))):
            done = train(server.url, tmp_path / name, *more, "--extend-epochs", "3")
            assert done.exit_code == 0, done.output
        assert epochs(tmp_path / "run") == epochs(tmp_path / "here")
        assert len(epochs(tmp_path / "run")) == 3
        refused = train(server.url, tmp_path / "run", "--cache-size", f"{2 * shard_bytes}", "--extend-epochs", "4")
        assert refused.exit_code == 2
        assert "left of" in refused.output
        assert os.environ[cache.SIZE] == str(9 * shard_bytes)  # the option was the command's alone


def test_open_sequences_of_a_larger_set(folder, cached):
    how = {"batch_size": 4, "context": 1, "workers": 0, "recipe": "3die-rot-M3", "settings": ["data.image_size=0"]}
    with serving(folder) as server:
        data = open_sequences(server.url, **how)
        batches = iter(data)
        keys = [next(batches).keys for _ in range(5)]
        state = data.state_dict()
        assert state["shuffle_window"] >= 2
        data.close()
        here = open_sequences(folder, **how)
        here.load_state_dict({**state, "epoch": 0, "step": 0})
        assert [batch.keys for batch, _ in zip(here, range(5), strict=False)] == keys


def test_other_commands_take_a_set_that_is_larger(folder, cached, tmp_path, fullest, shard_bytes):
    with serving(folder) as server:
        picture = ["preview", server.url, "-o", str(tmp_path / "p.png")]
        for words in (["info", server.url], picture, ["verify", server.url]):
            done = CliRunner().invoke(seqjepa_data_app, words)
            assert done.exit_code == 0, done.output
        assert fullest[0] <= 9 * shard_bytes
        index, here = ShardSet.open(server.url).split("train"), ShardSet.open(folder).split("train")
        parts = [list(stored_views(split, 5, threads=2)) for split in (index, here)]
        for one, other in zip(*parts, strict=True):
            for there, local in zip(one, other, strict=True):
                np.testing.assert_array_equal(there, local)
        for sample in np.random.default_rng(0).permutation(SAMPLES)[:20].tolist():  # jumps
            np.testing.assert_array_equal(index.read_view(sample, 1), here.read_view(sample, 1))
