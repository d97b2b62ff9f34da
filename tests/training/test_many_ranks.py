"""Training by many: torchrun over "nodes" of one machine, gloo between them; mostly forked (torch_nodes.py).

What a rank was shown is written down by recorded_train.py; the draws' own permutation is the oracle.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from bucket_server import serving_bucket
from loaders import stored_loader
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]
from torch_nodes import forks, torchrun
from train_helpers import PARAMS, UNITS, metrics

from seqjepa.data.draws import permutation
from seqjepa.training import distributed
from seqjepa.training.distributed import World
from shards.reader import ShardSet
from shards.sample import ViewSample, encode_raw
from shards.schema import ParamField, ViewSpec
from shards.stats import PixelStats
from shards.writer import SetBuilder

SEED, BATCH, SAMPLES = 42, 12, 48
OFTEN = "train.checkpoint_minutes=1e-9"  # whenever the ranks agree, every eight steps


def make_set(out: Path, shards: int, samples: int) -> Path:
    """Views of noise in so many tars, which hold as many samples as can be or one fewer."""
    rng, numbers = np.random.default_rng(0), itertools.count()
    spec = ViewSpec(4, 16, 16, "raw", tuple(ParamField(*both) for both in zip(PARAMS, UNITS, strict=True)))
    with SetBuilder(out, name="many", spec=spec, classes=("a", "b"), fingerprint={"shards": shards}) as builder:
        for shard, part in enumerate(np.array_split(np.arange(samples), shards)):
            with builder.open_shard("train", shard) as tar:
                for _ in part:
                    number = next(numbers)
                    pixels = rng.integers(0, 255, (4, 16, 16, 3)).astype(np.uint8)
                    params = rng.uniform(-1, 1, (4, len(PARAMS))).astype(np.float32)
                    views = [encode_raw(view) for view in pixels]
                    tar.add(ViewSample(f"s{number:03d}", views, range(4), params, number % 2), PixelStats.of(pixels))
        builder.finish({"command": "test"})
    return out


def batches_of(epoch: int, samples: int, steps: int) -> list[set[str]]:
    """The samples of each batch of an epoch, over all ranks, where none is left out."""
    keys = [f"s{row:03d}" for row in permutation(SEED, epoch, samples)]
    return [set(keys[step * BATCH : (step + 1) * BATCH]) for step in range(steps)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """(shards, samples) → a set, made once."""
    made: dict[tuple[int, int], Path] = {}

    def get(shards: int, samples: int) -> Path:
        if (shards, samples) not in made:
            made[shards, samples] = make_set(tmp_path_factory.mktemp("many") / "set", shards, samples)
        return made[shards, samples]

    return get


CELLS = [*itertools.product((1, 2, 4), (0, 2, 4), (2, 7, 13))]


@pytest.mark.parametrize(
    ("ranks", "workers", "shards"),
    [pytest.param(*cell, marks=[] if cell in ((2, 0, 7), (4, 2, 13)) else pytest.mark.slow) for cell in CELLS],
)
def test_the_ranks_together_see_every_sample_once(sets, ranks: int, workers: int, shards: int):
    index = ShardSet.open(sets(shards, SAMPLES)).split("train")
    assert len(index.shard_paths) == shards
    how = {"views": 3, "batch_size": BATCH, "seed": SEED, "world_size": ranks, "workers": workers}
    seen: list[list[list[list[str]]]] = []
    for rank in range(ranks):
        with stored_loader(index, **how, rank=rank, action="rotation") as loader:
            seen.append([[seq.keys for seq in loader.epoch(epoch)] for epoch in range(2)])
    assert {len(epoch) for epochs in seen for epoch in epochs} == {SAMPLES // BATCH}
    for epoch in range(2):
        together = [list(itertools.chain(*pieces)) for pieces in zip(*(epochs[epoch] for epochs in seen), strict=True)]
        assert [set(batch) for batch in together] == batches_of(epoch, SAMPLES, SAMPLES // BATCH)
        assert Counter(itertools.chain(*together)).most_common(1)[0][1] == 1


def test_what_an_earlier_start_left_in_the_store_is_not_found(monkeypatch):
    """torchrun's store outlives an elastic restart, with the addresses of ranks that are dead."""
    shared, waits = HashStore(), timedelta(seconds=20)
    monkeypatch.setattr(distributed, "rendezvous", lambda *words, **how: iter([(shared, 0, 3)]))
    for start in ("first", "second"):
        with ThreadPoolExecutor(3) as pool:
            later = [pool.submit(distributed._store_of_this_start, World(rank, 3), waits) for rank in (1, 2)]
            time.sleep(0.3)  # these find the name of before, with all that was said under it
            first = pool.submit(distributed._store_of_this_start, World(0, 3), waits)
            stores = [future.result() for future in (first, *later)]
        stores[0].set("address", start)
        assert [store.get("address").decode() for store in stores] == [start] * 3


def recorded(shards: Path, out: Path | str, records: Path, *settings: str, workers: int = 0) -> list[object]:
    """The words of recorded_train.py."""
    records.mkdir(exist_ok=True)
    return [shards, out, records, workers, f"optim.batch_size={BATCH}", *settings]


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with forks(tmp_path_factory.mktemp("nodes")) as start:
        yield start


def seen(records: Path) -> dict[tuple[int, int], list[str]]:
    """(epoch, step in it) → the samples of all ranks; of a step that was done again, those of the last time."""
    times: dict[tuple[int, int], dict[int, list[dict]]] = {}
    for path in sorted(records.glob("rank-*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            times.setdefault(divmod(line["step"], line["steps"]), {}).setdefault(int(path.stem[5:]), []).append(line)
    found: dict[tuple[int, int], list[str]] = {}
    for place, ranks in times.items():
        world = max((lines[-1] for lines in ranks.values()), key=lambda line: line["time"])["world"]
        found[place] = [key for rank in range(world) for key in ranks[rank][-1]["keys"]]
    return found


def assert_every_sample_once(records: Path, steps: list[int], samples: int = SAMPLES) -> None:
    """steps: in each epoch."""
    there = seen(records)
    assert sorted(there) == [(epoch, step) for epoch, count in enumerate(steps) for step in range(count)]
    for epoch, count in enumerate(steps):
        for step, batch in enumerate(batches_of(epoch, samples, count)):
            assert len(there[epoch, step]) == len(batch)
            assert set(there[epoch, step]) == batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nodes", "ranks", "workers", "forked"),
    [(2, 1, 0, False), (2, 1, 0, True), (2, 2, 2, True), (3, 1, 4, True)],
)
def test_nodes_train_together_on_every_sample(
    sets, tmp_path, started, nodes: int, ranks: int, workers: int, forked: bool
):
    words = recorded(sets(7, SAMPLES), tmp_path / "run", tmp_path / "records", workers=workers)
    ended = (started if forked else torchrun)(nodes, ranks, words).ended()
    assert [code for code, _ in ended] == [0] * nodes, ended
    assert_every_sample_once(tmp_path / "records", [4, 4, 4])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["samples"], line["devices"]) for line in lines] == [(SAMPLES, nodes * ranks)] * 3


@pytest.mark.slow
@pytest.mark.parametrize(("hit", "minutes"), [("SIGKILL", 5), ("SIGSTOP", 0.1)])
def test_a_rank_that_is_gone_ends_the_others_in_time_and_the_run_goes_on(
    sets, tmp_path, started, hit: str, minutes: float
):
    records, settings = tmp_path / "records", [OFTEN, f"train.timeout_minutes={minutes}"]
    words = recorded(sets(7, SAMPLES), tmp_path / "run", records, *settings)
    nodes = started(3, 1, words, HIT=f"{hit} 1 10")
    lost, ends = wait_for(records / "hit"), []
    while len(ends) < 2 and time.time() < lost + 120:  # no rank waits for the five minutes that it may
        ends = [rank for rank in range(3) if (records / f"ended-{rank}").exists()]
        time.sleep(0.1)
    os.kill(int((records / "hit").read_text()), signal.SIGKILL) if hit == "SIGSTOP" else None
    outputs = nodes.ended()
    assert all(code != 0 for code, _ in outputs)
    assert len(ends) == 2
    said = [line for _, text in outputs for line in text.splitlines() if line.startswith("error: ")]
    assert len(said) == 2
    assert all("of 3: another rank ended or cannot be reached (" in line for line in said), said
    assert not any('recorded_train.py", line' in text for _, text in outputs), outputs
    ended = started(3, 1, words).ended()
    assert [code for code, _ in ended] == [0] * 3, ended
    assert_every_sample_once(records, [4, 4, 4])
    assert [line["samples"] for line in metrics(tmp_path / "run")] == [SAMPLES] * 3


@pytest.mark.slow
def test_an_elastic_restart_goes_on_from_the_last_checkpoint(sets, tmp_path, started):
    records = tmp_path / "records"
    words = recorded(sets(7, SAMPLES), tmp_path / "run", records, OFTEN)
    ended = started(2, 1, words, restarts=2, HIT="SIGKILL 1 10").ended()
    assert [code for code, _ in ended] == [0] * 2, ended
    assert (records / "hit").exists()
    steps = [json.loads(line)["step"] for line in (records / "rank-0.jsonl").read_text().splitlines()]
    assert steps in ([*range(done), *range(8, 12)] for done in (9, 10, 11))  # 8: the step of the last checkpoint
    assert_every_sample_once(records, [4, 4, 4])


@pytest.mark.slow
def test_other_ranks_go_on_with_the_same_epoch(sets, tmp_path, started):
    """54 samples: two ranks share out a last batch of 6, four would have one each and leave it out."""
    records, samples = tmp_path / "records", 54
    words = recorded(sets(7, samples), tmp_path / "run", records, "optim.epochs=6")
    ended = started(2, 1, words, HIT="SIGTERM 1 18").ended()  # saved after step 24, which is the fifth of epoch 5
    assert all(code for code, _ in ended), ended
    ended = started(2, 2, words).ended()
    assert [code for code, _ in ended] == [0] * 2, ended
    assert_every_sample_once(records, [5, 5, 5, 5, 4, 4], samples)
    lines = metrics(tmp_path / "run")
    assert [(line["epoch"], line["samples"]) for line in lines] == [*((n, 54) for n in (1, 2, 3, 4)), (5, 48), (6, 48)]


@pytest.mark.slow
def test_ranks_that_share_no_folder_go_on_from_a_run_in_a_store(sets, tmp_path, started, monkeypatch):
    with serving_bucket(monkeypatch) as bucket:
        words = recorded(sets(7, SAMPLES), "s3://bucket/run", tmp_path / "records", OFTEN)
        ended = started(2, 1, words, HIT="SIGKILL 1 10", CACHES=str(tmp_path / "first")).ended()
        assert all(code for code, _ in ended), ended
        assert {"run/state.pt", "run/run.json"} <= set(bucket.objects)
        ended = started(2, 1, words, CACHES=str(tmp_path / "second")).ended()
        assert [code for code, _ in ended] == [0, 0], ended[1][1][-3000:]
        assert_every_sample_once(tmp_path / "records", [4, 4, 4])
        lines = [json.loads(line) for line in bucket.objects["run/metrics.jsonl"].splitlines()]
        assert [line["samples"] for line in lines] == [SAMPLES] * 3


def wait_for(path: Path, seconds: float = 120) -> float:
    """When the file was written."""
    end = time.time() + seconds
    while not path.exists() or not path.read_text():
        assert time.time() < end
        time.sleep(0.05)
    return path.stat().st_mtime
